"""Results as tables: seeds together, the paper's numbers beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Fields that say which row it is, beside the labels of the grid
PARTS = ("player", "task")


@dataclass(frozen=True)
class Group:
    """
    Runs that differ in their seed alone.

    :param labels: what they have in common
    :param percents: per cent of the teacher, one number per run; empty where there is none
    :param scores: mean return, one number per run; empty where there is none
    :param teacher: the teachers' mean returns
    :param n_parameters: parameters of the student
    :param n_bytes: bytes of what acts
    :param published: the paper's per cent, None where it has no such number
    :param n_seeds: number of runs
    """

    labels: dict[str, str]
    percents: tuple[float, ...]
    scores: tuple[float, ...]
    teacher: tuple[float, ...]
    n_parameters: int
    n_bytes: int
    published: float | None
    n_seeds: int


def label_names(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[str]:
    """
    :param rows: of a study
    :param labels: names of the grid's dimensions
    :return: what tells groups apart: dimensions with several values, and environments; not the seed
    """
    names = [name for name in labels if name != "seed"]
    names += [name for name in PARTS if name not in names and any(name in row for row in rows)]
    varying = [name for name in names if len({str(row.get(name)) for row in rows}) > 1]
    return varying or names[:1]


def group_rows(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[str], published: Sequence[Mapping[str, Any]]
) -> list[Group]:
    """
    :param rows: of a study
    :param labels: names of the grid's dimensions
    :param published: the paper's rows
    :return: one group per setting, in the order of the study
    """
    names = label_names(rows, labels)
    together: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        together.setdefault(tuple(str(row.get(name, "")) for name in names), []).append(row)
    groups = []
    for key, members in together.items():
        first = members[0]
        groups.append(
            Group(
                dict(zip(names, key, strict=True)),
                tuple(float(row["percent_of_teacher"]) for row in members if row["percent_of_teacher"] is not None),
                tuple(float(row["mean"]) for row in members if "mean" in row),
                tuple(float(row["teacher_mean"]) for row in members if row.get("teacher_mean") is not None),
                int(first["n_parameters"]),
                int(first["n_bytes"]),
                find_published(first, published),
                len(members),
            )
        )
    return groups


def find_published(row: Mapping[str, Any], published: Sequence[Mapping[str, Any]]) -> float | None:
    """
    :param row: of a study
    :param published: the paper's rows
    :return: the per cent of the first of them all of whose labels the row has
    """
    for entry in published:
        labels = {name: value for name, value in entry.items() if name not in ("percent", "score")}
        if all(str(row.get(name)) == str(value) for name, value in labels.items()):
            return float(entry["percent"])
    return None


def spread(values: Sequence[float], digits: int = 1) -> str:
    """
    :param values: one number per seed
    :param digits: behind the point
    :return: mean, and standard deviation over the seeds where there are several
    """
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def table_of(groups: Sequence[Group]) -> list[list[str]]:
    """
    :param groups: of a study
    :return: cells, the header first
    """
    published = any(group.published is not None for group in groups)
    header = [*groups[0].labels, "parameters", "bytes", "teacher", "student", "% of teacher", "seeds"]
    table = [[*header, "paper, %"] if published else header]
    for group in groups:
        cells = [
            *group.labels.values(),
            f"{group.n_parameters:,}",
            f"{group.n_bytes:,}",
            # All runs have the same teacher, or each its own.
            spread(group.teacher[:1] if len(set(group.teacher)) == 1 else group.teacher, 2),
            spread(group.scores, 2),
            spread(group.percents),
            str(group.n_seeds),
        ]
        if published:
            cells.append("" if group.published is None else f"{group.published:g}")
        table.append(cells)
    return table


def to_latex(table: Sequence[Sequence[str]], n_left: int, caption: str) -> str:
    """
    :param table: cells, the header first
    :param n_left: how many columns are text
    :param caption: of the table
    :return: LaTeX for the package booktabs
    """

    def escape(text: str) -> str:
        for character in "&%$#_{}":
            text = text.replace(character, "\\" + character)
        return text.replace("±", r"$\pm$")

    columns = "l" * n_left + "r" * (len(table[0]) - n_left)
    header, *body = [" & ".join(map(escape, row)) + r" \\" for row in table]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\begin{{tabular}}{{{columns}}}"]
    return "\n".join(
        [*lines, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    )
