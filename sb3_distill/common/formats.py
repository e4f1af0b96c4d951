"""Versions of the formats of our files: earlier ones are read, later ones are refused."""

from typing import Any


def format_problem(what: object, found: Any, known: int) -> str | None:
    """
    :param what: the file
    :param found: the format that it says it has
    :param known: the latest format that this version reads
    :return: why it cannot be read; None if it can
    """
    if type(found) is int and 1 <= found <= known:
        return None
    if type(found) is not int or found < 1:
        return f"{what} has the format {str(found)[:40]!r}, which is none that ever was: formats are numbered from 1."
    return (
        f"{what} has format {found}, and this version of sb3_distill reads format {known} at most: install the version "
        "that wrote it, or a later one."
    )
