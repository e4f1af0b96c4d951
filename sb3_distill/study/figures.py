"""Figures of the results of a study."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sb3_distill.results.bars import Bar, draw_bars
from sb3_distill.results.figures import add_legend, make_axes, marker_style, percent_label, scale_by_size, short_names
from sb3_distill.study.tables import Group


def plot_groups(groups: Sequence[Group]) -> Figure:
    """
    :param groups: groups of a study
    :return: a bar chart of the percentages of the teacher: bars for the means over seeds, points for single seeds,
        lines for the paper's numbers
    """
    bars = []
    for group in groups:
        *place, series = group.labels.values()
        bars.append(Bar(tuple(place), series, group.percents, group.definition, group.published))
    return draw_bars(bars, list(groups[0].labels)[-1])


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
        style = {**marker_style(index), "linewidth": 1, "elinewidth": 0.6, "markersize": 5}
        axes.errorbar(sizes, means, np.stack([low, high]), label=label, **style)
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    scale_by_size(axes)
    if len(series) > 1:
        add_legend(figure)
    return figure
