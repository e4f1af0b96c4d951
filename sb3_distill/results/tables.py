"""Results as text: tables for terminals and documents, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sb3_distill.results.row import Row


def format_spread(mean: float, std: float | None) -> str:
    """
    :param mean: a mean
    :param std: the standard deviation; None or NaN if it is not known
    :return: both as text
    """
    return f"{mean:.2f}" + ("" if std is None or math.isnan(std) else f" ± {std:.2f}")


def interval_text(interval: Sequence[float] | None, digits: int = 1) -> str:
    """
    :param interval: the bounds; empty, None or NaN if there is no interval
    :param digits: number of decimals
    :return: the interval in brackets, to be appended to a number; nothing if there is none
    """
    if not interval or any(map(math.isnan, interval)):
        return ""
    low, high = interval
    return f" ({low:.{digits}f} to {high:.{digits}f})"


def format_table(rows: Sequence[Sequence[str]], n_left: int) -> str:
    """
    Align columns.

    :param rows: the cells, the header first
    :param n_left: how many columns are text, aligned at the left; the others are numbers
    :return: the lines
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < n_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def escape_markdown(text: str) -> str:
    """
    :param text: text from a file
    :return: Markdown of one line that shows it, without links and tags of its own
    """
    escaped = "".join(f"\\{character}" if character in "\\|<>[]`*" else character for character in text)
    return " ".join(escaped.split())


def format_markdown(rows: Sequence[Sequence[str]], n_left: int) -> str:
    """
    :param rows: the cells, the header first
    :param n_left: how many columns are text, aligned at the left; the others are numbers
    :return: a table in Markdown
    """
    header, *body = [list(map(escape_markdown, row)) for row in rows]
    rule = ["---" if column < n_left else "---:" for column in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *body))


def _in_columns(row: Row) -> dict[str, Any]:
    """A row as columns of a CSV file: the bounds of intervals become separate columns, other lists are left out."""
    columns = {}
    for name, value in row.to_dict().items():
        if name.endswith("_interval"):
            columns[f"{name}_low"], columns[f"{name}_high"] = value
        elif not isinstance(value, list):
            columns[name] = value
    return columns


def format_csv(rows: Sequence[Row]) -> str:
    """
    :param rows: rows of results
    :return: the rows as CSV; the bounds of intervals are separate columns, other lists are left out, and fields that a
        row does not have are empty
    """
    table = [_in_columns(row) for row in rows]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in table for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(content: Any) -> str:
    """
    :param content: results
    :return: the content as standard JSON, with null instead of NaN and infinity
    """
    return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"
