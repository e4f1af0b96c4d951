"""Tables and figures of a study's results: grouped over seeds, with the paper's numbers for comparison."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sb3_distill.results.bars import Bar, draw_bars
from sb3_distill.results.comparison import MARGIN, t_interval, verdict
from sb3_distill.results.factors import draw_factors
from sb3_distill.results.figures import (
    add_legend,
    clip_outliers,
    label_points,
    make_axes,
    marker_style,
    percent_label,
    scale_by_size,
    short_name,
    short_names,
)
from sb3_distill.results.row import Row, teachers_of
from sb3_distill.results.seen import UNKNOWN, seen_percents, seen_returns
from sb3_distill.results.statistics import FORMULAS, GEOMETRIC_MEAN, LEAST_PERCENT, NORMALIZED, Interval, sample_std
from sb3_distill.results.tables import interval_text

# Fields that, together with the labels of the grid, identify a row
PARTS = ("player", "task")
# The field that tells teachers apart, of which tables show the beginning
TEACHER_SHA256 = "teacher_sha256"
# So many runs are written one by one: a standard deviation of so few says little.
_ONE_BY_ONE = 3


@dataclass(frozen=True)
class Group:
    """
    Runs that differ only in their seed.

    :param labels: the labels that the runs have in common
    :param percents: percentages of the teacher, one per run; empty if unknown
    :param scores: mean returns, one per run; empty if unknown
    :param highest: percentages of the highest evaluations, one per run; empty if unknown
    :param quotients: percentages of the teacher as the paper of the algorithm has them, one per run; empty if unknown,
        or if ``percents`` are these
    :param teacher: the teachers' mean returns
    :param n_parameters: number of the student's parameters; None if it differs between games
    :param n_bytes: the student's size in bytes; None if it differs between games
    :param published: the paper's percentage; None if the paper has no number for this group
    :param n_seeds: number of runs
    :param seeds: the seed of each run in ``percents``
    :param stds: standard deviation of the returns within each run
    :param episode_interval: if there is a single run, the 95% interval of its percentage over episodes
    :param definition: definition of the percentages
    :param seen: the percentages that the lowest and the highest return of an episode in this game would be
    :param facts: what the row of the first run says
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
    seeds: tuple[str, ...] = ()
    stds: tuple[float, ...] = ()
    episode_interval: Interval | None = None
    definition: str | None = None
    quotients: tuple[float, ...] = ()
    seen: Interval = UNKNOWN
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> tuple[tuple[float, ...], ...]:
        """What the columns of a table average over the runs."""
        return self.percents, self.scores, self.highest, self.quotients

    @property
    def interval(self) -> Interval | None:
        """95% interval of the percentage: over the runs (Student's t), or over the episodes of a single run."""
        return t_interval(self.percents) if len(self.percents) > 1 else self.episode_interval

    @property
    def shown_interval(self) -> Interval | None:
        """The interval, cut to what was seen: a game that ends at 500 has no mean above."""
        if len(self.percents) < 2 or self.interval is None:
            return self.interval
        low, high = np.clip(self.interval, *self.seen)
        return float(low), float(high)


def _group(labels: dict[str, str], members: Sequence[Row], published: float | None, returns: Interval) -> Group:
    """The group of these rows, in a game with these returns."""
    compared = [row for row in members if row.percent_of_teacher is not None]
    alone = compared[0].percent_interval if len(compared) == 1 else ()
    return Group(
        labels,
        tuple(row.percent_of_teacher for row in compared if row.percent_of_teacher is not None),
        tuple(row.mean for row in members if row.mean is not None),
        tuple(row.max_percent for row in members if row.max_percent is not None),
        tuple(row.teacher_mean for row in members if row.teacher_mean is not None),
        members[0].n_parameters,
        members[0].n_bytes,
        published,
        len(members),
        seeds=tuple(str(row.seed) for row in compared),
        stds=tuple(row.std for row in members if row.std is not None and not np.isnan(row.std)),
        episode_interval=(alone[0], alone[1]) if alone else None,
        definition=compared[0].percent_definition if compared else None,
        quotients=tuple(row.quotient for row in members if row.quotient is not None),
        seen=seen_percents(compared, returns),
        facts=members[0].to_dict(),
    )


def label_names(rows: Sequence[Row], grid: Mapping[str, Sequence[str]]) -> list[str]:
    """
    :param rows: rows of a study
    :param grid: all labels of each dimension, including those of cells that have not finished
    :return: the fields by which groups differ: dimensions with several labels, except the seed; player and task if used
    """
    values = {name: set(labels) for name, labels in grid.items() if name != "seed"}
    for name in PARTS:
        parts = {getattr(row, name) for row in rows}
        if parts - {None}:
            values[name] = {str(part) for part in parts}
    return [name for name, labels in values.items() if len(labels) > 1] or list(values)[:1] or ["env"]


def _together(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """The rows that have the same values of these fields."""
    together: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        content = row.to_dict()
        if TEACHER_SHA256 in content:
            content[TEACHER_SHA256] = content[TEACHER_SHA256][:12]
        together.setdefault(tuple(str(content.get(name, "")) for name in names), []).append(row)
    return together


def group_rows(
    rows: Sequence[Row], grid: Mapping[str, Sequence[str]], published: Sequence[Mapping[str, Any]]
) -> list[Group]:
    """
    :param rows: rows of a study
    :param grid: all labels of each dimension
    :param published: the paper's rows
    :return: one group per combination of labels without the seed, in the order of the study; where runs of one group
        would have different teachers, groups are told apart by their teacher, too
    """
    names = label_names(rows, grid)
    together = _together(rows, names)
    if any(len(teachers_of(members)) > 1 for members in together.values()):
        names = [TEACHER_SHA256, *names]
        together = _together(rows, names)
    # If the study has one value of a dimension alone, the paper's rows need not say it.
    compared = [name for name in names if len(grid.get(name, ())) > 1]
    seen = seen_returns(rows)
    return [
        _group(
            dict(zip(names, key, strict=True)),
            members,
            find_published(members[0].to_dict(), compared, published),
            seen[members[0].env, members[0].task],
        )
        for key, members in together.items()
    ]


def find_published(
    content: Mapping[str, Any], compared: Iterable[str], published: Sequence[Mapping[str, Any]]
) -> float | None:
    """
    :param content: the fields and labels of a row of a study
    :param compared: the dimensions of the grid in which the study's groups differ
    :param published: the paper's rows
    :return: the percentage of the paper's row for the same game and network, which must say the environment, these
        dimensions, and player or task if there is one; None if there is no such row
    """
    for entry in published:
        names = {"env", *PARTS, *compared, *entry} - {"percent"}
        if all(str(content.get(name, "")) == str(entry.get(name, "")) for name in names):
            return float(entry["percent"])
    return None


def list_runs(values: Sequence[float], digits: int = 1) -> str:
    """
    :param values: one number per run
    :param digits: number of decimals
    :return: up to three numbers one by one, more as their mean and sample standard deviation; empty if there are none
    """
    if len(values) <= _ONE_BY_ONE:
        return ", ".join(f"{value:.{digits}f}" for value in values)
    return f"{np.mean(values):.{digits}f} ± {sample_std(values):.{digits}f}"


def percent_name(groups: Sequence[Group]) -> str:
    """
    :param groups: groups of a study
    :return: what the column of their percentages is called
    """
    return (
        "normalized %" if {group.definition for group in groups if group.percents} == {NORMALIZED} else "% of teacher"
    )


def describe_numbers(groups: Sequence[Group], margin: float) -> str:
    """
    :param groups: the groups of a table
    :param margin: per cent of the teacher by which a student may be worse
    :return: what its columns are
    """
    name = percent_name(groups)
    definitions = dict.fromkeys(group.definition for group in groups if group.definition)
    sentences = [f"{name}: {' or '.join(f'{entry}, {FORMULAS[entry]}' for entry in definitions)}."] * bool(definitions)
    if any(group.n_seeds > 1 for group in groups):
        sentences.append(
            "Two or three runs are written one by one, more as mean ± sample standard deviation. 95% interval: "
            "Student's t interval over the runs, shown as far as the returns of episodes went in this game, in all "
            "runs (a game that ends at 500 has no mean above); of a single run, over pairs of episodes of student and "
            "teacher."
        )
    else:
        sentences.append("95% interval: over pairs of episodes of student and teacher.")
    sentences.append(
        f"std within runs: of the returns of a run, apart from the spread between runs. margin {margin:g}%: not worse "
        f"if the whole interval is above {100 - margin:g}%, worse if it is below, else undecided."
    )
    if any(_counted("", values, group) for group in groups for values in group.numbers):
        sentences.append("(1 of 2): only so many of the runs have this number, and they alone are averaged.")
    unknown = dict.fromkeys(group.labels["task"] for group in groups if group.labels.get("task") and not group.percents)
    if unknown:
        sentences.append(
            f"No percentage of {', '.join(unknown)}, where the teacher is not better than a random player: geometric "
            "means over the tasks leave these out."
        )
    has_means = any(GEOMETRIC_MEAN in group.labels.values() for group in groups)
    if has_means and any(percent < LEAST_PERCENT for group in groups for percent in group.percents):
        sentences.append(f"Geometric means count a percentage below {LEAST_PERCENT:g} as {LEAST_PERCENT:g}.")
    if any(group.quotients for group in groups):
        sentences.append(
            "quotient: 100 student / teacher, as the papers have it, where the teacher's score is positive; of "
            "students beside a teacher the mean over their last evaluations."
        )
    if any(group.published is not None for group in groups):
        sentences.append("paper: the quotient 100 student / teacher, for the same game (or all games) and network.")
    return " ".join(sentences)


def _counted(text: str, values: Sequence[float], group: Group) -> str:
    """The text, with the number of runs behind it if these are not all runs of the group."""
    return f"{text} ({len(values)} of {group.n_seeds})".strip() if 0 < len(values) < group.n_seeds else text


def table_of(groups: Sequence[Group], margin: float = MARGIN) -> list[list[str]]:
    """
    :param groups: groups of a study
    :param margin: per cent of the teacher by which a student may be worse
    :return: rows of cells, the header first
    """
    published = any(group.published is not None for group in groups)
    highest = any(group.highest for group in groups)
    quotients = any(group.quotients for group in groups)
    columns = ["parameters", "bytes", "teacher's score", "student's score", "std within runs"]
    columns += [percent_name(groups), "95% interval"]
    columns += (
        [f"margin {margin:g}%"]
        + ["max %"] * highest
        + ["quotient %"] * quotients
        + ["seeds"]
        + ["paper, %"] * published
    )
    table = [[*({"env": "environment"}.get(name, name) for name in groups[0].labels), *columns]]
    for group in groups:
        cells = [
            *map(short_name, group.labels.values()),
            *("" if size is None else f"{size:,}" for size in (group.n_parameters, group.n_bytes)),
            # If all runs have the same teacher, write its score once.
            list_runs(group.teacher[:1] if len(set(group.teacher)) == 1 else group.teacher, 2),
            _counted(list_runs(group.scores, 2), group.scores, group),
            f"{np.sqrt(np.mean(np.square(group.stds))):.2f}" if group.stds else "",
            _counted(list_runs(group.percents), group.percents, group),
            interval_text(group.shown_interval).strip(" ()"),
            verdict(group.interval, margin) if group.percents else "",
            *([_counted(list_runs(group.highest), group.highest, group)] * highest),
            *([_counted(list_runs(group.quotients), group.quotients, group)] * quotients),
            str(group.n_seeds),
            *(["" if group.published is None else f"{group.published:.1f}"] * published),
        ]
        table.append(cells)
    return table


def to_latex(table: Sequence[Sequence[str]], n_left: int, caption: str) -> str:
    """
    :param table: rows of cells, the header first
    :param n_left: number of left-aligned text columns at the start of the table
    :param caption: caption of the table
    :return: LaTeX for the package booktabs
    """

    special = {character: "\\" + character for character in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "±": r"$\pm$",
        # Behind the end of a row, these two belong to it.
        "[": "{[}",
        "*": "{*}",
    }

    def escape(text: str) -> str:
        return "".join(special.get(character, character) for character in " ".join(text.split()))

    columns = "l" * n_left + "r" * (len(table[0]) - n_left)
    header, *body = [" & ".join(map(escape, row)) + r" \\" for row in table]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape(caption)}}}", rf"\begin{{tabular}}{{{columns}}}"]
    return "\n".join(
        [*lines, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    )


def plot_groups(groups: Sequence[Group]) -> Figure:
    """
    :param groups: groups of a study
    :return: a bar chart of the percentages of the teacher: bars for the means over seeds, points for single seeds,
        lines for the paper's numbers. Where these are given, and are of another definition, all bars are quotients, too
    """
    quotients = any(group.published is not None and group.quotients for group in groups)
    bars = []
    for group in groups:
        *place, series = group.labels.values()
        percents, definition = (group.quotients, None) if quotients else (group.percents, group.definition)
        bars.append(Bar(tuple(place), series, percents, definition, group.published))
    *places, series = groups[0].labels
    # An environment says that it is one.
    return draw_bars(bars, series, ", ".join(name for name in places if name != "env"))


def plot_factors(groups: Sequence[Group]) -> Figure | None:
    """
    :param groups: groups of a study
    :return: what each dimension of two values does, such as distilled against alone; None unless there are two of them
    """
    known = [group for group in groups if group.percents]
    label = percent_label(group.definition for group in known)
    return draw_factors([group.labels for group in known], [float(np.mean(group.percents)) for group in known], label)


def plot_group_sizes(groups: Sequence[Group]) -> Figure:
    """
    Figure 3 of Rusu et al. 2015 and figure 1 of Avé et al. 2022, over the seeds of each group.

    :param groups: groups of a study
    :return: a plot of the percentage of the teacher over size in bytes; groups of one game that differ only in the last
        dimension of the grid have the same colour
    """
    known = [group for group in groups if group.percents]
    definitions = {group.definition for group in known}
    figure, axes = make_axes("bytes", percent_label(definitions))
    series: dict[tuple[str, ...], list[Group]] = {}
    for group in sorted(known, key=lambda group: group.n_bytes or 0):
        others = [name for name in group.labels if name != "env"][:-1]
        key = [label for name, label in group.labels.items() if name == "env" or name in others]
        series.setdefault((*key, *([group.definition or ""] if len(definitions) > 1 else [])), []).append(group)
    for index, (label, members) in enumerate(zip(short_names(list(series)), series.values(), strict=True)):
        means = np.array([np.mean(group.percents) for group in members])
        low = means - [min(group.percents) for group in members]
        high = [max(group.percents) for group in members] - means
        sizes = np.array([group.n_bytes for group in members], dtype=float)
        style = {**marker_style(index), "linestyle": "none", "elinewidth": 0.8, "markersize": 5}
        axes.errorbar(sizes, means, np.stack([low, high]), label=label, **style)
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    scale_by_size(axes)
    # The last dimension of the grid is not in the legend.
    names = [[f"{name} {label}" for name, label in own.labels.items() if name != "env"][-1:] for own in known]
    points = [(own.n_bytes or 1, float(np.mean(own.percents)), "".join(n)) for own, n in zip(known, names, strict=True)]
    clip_outliers(axes, [(own.n_bytes or 1, percent) for own in known for percent in own.percents], [100.0])
    if len(series) > 1:
        add_legend(figure, title=" ".join([name for name in groups[0].labels if name != "env"][:-1]))
    label_points(axes, points)
    return figure
