"""Results as tables: seeds together, the paper's numbers beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_distill.results.figures import short_name
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN, geometric_mean

# Fields that say which row it is, beside the labels of the grid
PARTS = ("player", "task")


@dataclass(frozen=True)
class Group:
    """
    Runs that differ in their seed alone.

    :param labels: what they have in common
    :param percents: per cent of the teacher, one number per run; empty where there is none
    :param scores: mean return, one number per run; empty where there is none
    :param highest: the highest per cent of each run, where runs tell it
    :param teacher: the teachers' mean returns
    :param n_parameters: parameters of the student; None where they differ between games
    :param n_bytes: bytes of what acts; None where they differ
    :param published: the paper's per cent, None where it has no such number
    :param n_seeds: number of runs
    """

    labels: dict[str, str]
    percents: tuple[float, ...]
    scores: tuple[float, ...]
    highest: tuple[float, ...]
    teacher: tuple[float, ...]
    n_parameters: int | None
    n_bytes: int | None
    published: float | None
    n_seeds: int


def label_names(rows: Sequence[Row], grid: Mapping[str, Sequence[str]]) -> list[str]:
    """
    :param rows: of a study
    :param grid: the labels of each dimension, also of cells that have not finished
    :return: what tells groups apart: dimensions with several values, players and tasks; not the seed
    """
    values = {name: set(labels) for name, labels in grid.items() if name != "seed"}
    for name in PARTS:
        parts = {getattr(row, name) for row in rows}
        if parts - {None}:
            values[name] = {str(part) for part in parts}
    return [name for name, labels in values.items() if len(labels) > 1] or list(values)[:1] or ["env"]


def group_rows(
    rows: Sequence[Row], grid: Mapping[str, Sequence[str]], published: Sequence[Mapping[str, Any]]
) -> list[Group]:
    """
    :param rows: of a study
    :param grid: the labels of each dimension
    :param published: the paper's rows
    :return: one group per setting, in the order of the study
    """
    names = label_names(rows, grid)
    together: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        content = row.to_dict()
        together.setdefault(tuple(str(content.get(name, "")) for name in names), []).append(row)
    return [
        Group(
            dict(zip(names, key, strict=True)),
            tuple(row.percent_of_teacher for row in members if row.percent_of_teacher is not None),
            tuple(row.mean for row in members if row.mean is not None),
            tuple(row.max_percent for row in members if row.max_percent is not None),
            tuple(row.teacher_mean for row in members if row.teacher_mean is not None),
            members[0].n_parameters,
            members[0].n_bytes,
            find_published(members[0], published),
            len(members),
        )
        for key, members in together.items()
    ]


def geometric_groups(groups: Sequence[Group], games: Sequence[str]) -> list[Group]:
    """
    :param groups: of a study
    :param games: its environments
    :return: the geometric means over the games of what stands in all of them, ours and the paper's; none where there is
        one game
    """
    together: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        if group.labels.get("env") in games and group.percents:
            key = tuple(value for name, value in group.labels.items() if name != "env")
            together.setdefault(key, []).append(group)
    means = []
    for members in together.values():
        if len(games) < 2 or {group.labels["env"] for group in members} != set(games):
            continue
        published = [group.published for group in members if group.published is not None]
        n_parameters, n_bytes = {group.n_parameters for group in members}, {group.n_bytes for group in members}
        means.append(
            Group(
                labels={**members[0].labels, "env": GEOMETRIC_MEAN},
                percents=(geometric_mean([float(np.mean(group.percents)) for group in members]),),
                scores=(),
                highest=(),
                teacher=(),
                n_parameters=n_parameters.pop() if len(n_parameters) == 1 else None,
                n_bytes=n_bytes.pop() if len(n_bytes) == 1 else None,
                published=geometric_mean(published) if len(published) == len(members) else None,
                n_seeds=min(group.n_seeds for group in members),
            )
        )
    return means


def find_published(row: Row, published: Sequence[Mapping[str, Any]]) -> float | None:
    """
    :param row: of a study
    :param published: the paper's rows
    :return: the per cent of the first of them all of whose labels the row has
    """
    content = row.to_dict()
    for entry in published:
        labels = {name: value for name, value in entry.items() if name != "percent"}
        if all(str(content.get(name)) == str(value) for name, value in labels.items()):
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
    highest = any(group.highest for group in groups)
    columns = ["parameters", "bytes", "teacher", "student", "% of teacher"]
    columns += ["max %"] * highest + ["seeds"] + ["paper, %"] * published
    table = [[*groups[0].labels, *columns]]
    for group in groups:
        cells = [
            *map(short_name, group.labels.values()),
            *("" if size is None else f"{size:,}" for size in (group.n_parameters, group.n_bytes)),
            # All runs have the same teacher, or each its own.
            spread(group.teacher[:1] if len(set(group.teacher)) == 1 else group.teacher, 2),
            spread(group.scores, 2),
            spread(group.percents),
            *([spread(group.highest)] * highest),
            str(group.n_seeds),
            *(["" if group.published is None else f"{group.published:.1f}"] * published),
        ]
        table.append(cells)
    return table


def to_latex(table: Sequence[Sequence[str]], n_left: int, caption: str) -> str:
    """
    :param table: cells, the header first
    :param n_left: how many columns are text
    :param caption: of the table
    :return: LaTeX for the package booktabs
    """

    special = {character: "\\" + character for character in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "±": r"$\pm$",
    }

    def escape(text: str) -> str:
        return "".join(special.get(character, character) for character in text)

    columns = "l" * n_left + "r" * (len(table[0]) - n_left)
    header, *body = [" & ".join(map(escape, row)) + r" \\" for row in table]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\begin{{tabular}}{{{columns}}}"]
    return "\n".join(
        [*lines, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    )
