"""Tables for terminals and documents."""

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


def format_markdown(rows: Sequence[Sequence[str]], n_left: int) -> str:
    """
    :param rows: the cells, the header first
    :param n_left: how many columns are text, aligned at the left; the others are numbers
    :return: a table in Markdown
    """
    header, *body = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    rule = ["---" if column < n_left else "---:" for column in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *body))
