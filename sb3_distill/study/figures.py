"""Figures of a study's groups."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sb3_distill.common.figures import COLOURS, WIDTH, make_axes, marker_style, short_name
from sb3_distill.study.tables import Group


def plot_groups(groups: Sequence[Group]) -> Figure:
    """
    :param groups: of a study
    :return: bars of per cent of the teacher, the seeds as points, the paper's numbers as lines
    """
    *names, last = groups[0].labels
    places = [short_name(" ".join(group.labels[name] for name in names)) for group in groups]
    outer = list(dict.fromkeys(places))
    inner = list(dict.fromkeys(group.labels[last] for group in groups))
    # Bars and names of many games need room.
    figure, axes = make_axes("", "% of the teacher's return", max(WIDTH, 0.18 * len(outer) * (len(inner) + 1) + 1.5))
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

    :param groups: of a study
    :return: per cent of the teacher against bytes, one colour for each game
    """
    figure, axes = make_axes("bytes", "% of the teacher's return")
    games = list(dict.fromkeys(group.labels.get("env", "") for group in groups))
    for index, game in enumerate(games):
        chosen = [group for group in groups if group.labels.get("env", "") == game and group.percents]
        means = np.array([np.mean(group.percents) for group in chosen])
        low = means - [min(group.percents) for group in chosen]
        high = [max(group.percents) for group in chosen] - means
        axes.errorbar(
            np.array([group.n_bytes for group in chosen], dtype=float),
            means,
            np.stack([low, high]),
            **marker_style(index),
            linestyle="none",
            capsize=2,
            label=short_name(game),
        )
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    axes.set_xscale("log")
    if len(games) > 1:
        figure.legend(loc="outside right upper", frameon=False)
    return figure
