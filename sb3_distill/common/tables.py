"""Tables for terminals."""

from collections.abc import Sequence


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
