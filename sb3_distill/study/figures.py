"""Figures of the results of a study."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sb3_distill.results.figures import (
    COLOURS,
    WIDTH,
    make_axes,
    marker_style,
    percent_label,
    scale_by_size,
    short_name,
)
from sb3_distill.study.tables import Group


def plot_groups(groups: Sequence[Group]) -> Figure:
    """
    :param groups: groups of a study
    :return: a bar chart of the percentages of the teacher: bars for the means over seeds, points for single seeds,
        lines for the paper's numbers
    """
    *names, last = groups[0].labels
    places = [short_name(" ".join(group.labels[name] for name in names)) for group in groups]
    outer = list(dict.fromkeys(places))
    inner = list(dict.fromkeys(group.labels[last] for group in groups))
    # Widen the figure if there are many games.
    ylabel = percent_label(group.definition for group in groups if group.percents)
    figure, axes = make_axes("", ylabel, max(WIDTH, 0.18 * len(outer) * (len(inner) + 1) + 1.5))
    width = 0.8 / len(inner)
    labelled: set[str] = set()

    def label_once(label: str) -> str | None:
        new = label not in labelled
        labelled.add(label)
        return label if new else None

    for group, place in zip(groups, places, strict=True):
        if not group.percents:
            continue
        index = inner.index(group.labels[last])
        x = outer.index(place) - 0.4 + (index + 0.5) * width
        color = COLOURS[index % len(COLOURS)]
        axes.bar(x, np.mean(group.percents), width * 0.9, color=color, label=label_once(short_name(inner[index])))
        axes.plot([x] * len(group.percents), group.percents, "o", color="black", markersize=2.5)
        if group.published is not None:
            axes.plot(
                [x - width * 0.4, x + width * 0.4], [group.published] * 2, color="black", label=label_once("paper")
            )
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    crowded = max(map(len, outer)) * len(outer) > 40
    axes.set_xticks(range(len(outer)), outer, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    figure.legend(loc="outside right upper", title=last, frameon=False)
    return figure


def plot_group_sizes(groups: Sequence[Group]) -> Figure:
    """
    Figure 3 of Rusu et al. 2015 and figure 1 of Avé et al. 2022, over the seeds of each group.

    :param groups: groups of a study
    :return: a plot of the percentage of the teacher over size in bytes; groups that differ only in the last dimension
        of the grid have the same colour
    """
    figure, axes = make_axes("bytes", percent_label(group.definition for group in groups if group.percents))
    series: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: group.n_bytes or 0):
        if group.percents:
            series.setdefault(short_name(" ".join(list(group.labels.values())[:-1])), []).append(group)
    for index, (label, members) in enumerate(series.items()):
        means = np.array([np.mean(group.percents) for group in members])
        low = means - [min(group.percents) for group in members]
        high = [max(group.percents) for group in members] - means
        sizes = np.array([group.n_bytes for group in members], dtype=float)
        style = {**marker_style(index), "linewidth": 1, "elinewidth": 0.6, "markersize": 5}
        axes.errorbar(sizes, means, np.stack([low, high]), label=label, **style)
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    scale_by_size(axes)
    if len(series) > 1:
        figure.legend(loc="outside right upper", frameon=False)
    return figure
