"""Bars of percentages of the teacher's score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.figure import Figure

from sb3_distill.results.figures import (
    WIDTH,
    add_legend,
    bar_style,
    clip_outliers,
    make_axes,
    percent_label,
    short_names,
)

# Height of a slanted letter in inches
_SLANTED = 0.035


@dataclass(frozen=True)
class Bar:
    """
    Runs of one kind.

    :param place: what the bar shares with those beside it, such as the game
    :param series: what tells it apart from those beside it
    :param percents: percentage of the teacher of each run
    :param definition: definition of the percentages; None: not known
    :param published: the paper's percentage; None: there is none
    """

    place: tuple[str, ...]
    series: str
    percents: Sequence[float]
    definition: str | None = None
    published: float | None = None


def draw_bars(bars: Sequence[Bar], series: str, places_differ_in: str = "") -> Figure:
    """
    :param bars: the bars, no two of them with the same place and series
    :param series: what the bars of one place differ in, for the legend
    :param places_differ_in: what the places differ in, for the axis, where their names do not say it
    :return: a bar chart: bars show means over runs, points show single runs, lines show the paper's numbers
    """
    definitions = {bar.definition for bar in bars}
    # Percentages of different definitions do not stand side by side without a word.
    places = [
        bar.place if len(definitions) == 1 or bar.definition in bar.place else (*bar.place, bar.definition or "")
        for bar in bars
    ]
    outer, inner = list(dict.fromkeys(places)), list(dict.fromkeys(bar.series for bar in bars))
    # Widen the figure if there are many bars.
    figure, axes = make_axes(
        places_differ_in, percent_label(definitions), max(WIDTH, 0.18 * len(outer) * (len(inner) + 1) + 1.5)
    )
    width = 0.8 / len(inner)
    labels = dict(zip(inner, short_names([(name,) for name in inner]), strict=True))
    places_of_points: list[tuple[float, float]] = []
    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    for index, name in enumerate(inner):
        label: str | None = labels[name]
        for bar, place in zip(bars, places, strict=True):
            if bar.series != name or not bar.percents:
                continue
            x = outer.index(place) - 0.4 + (index + 0.5) * width
            axes.bar(x, np.mean(bar.percents), width * 0.9, **bar_style(index), label=label)
            # Their edge shows on dark bars.
            points: dict[str, Any] = {
                "color": "black",
                "markeredgecolor": "white",
                "markeredgewidth": 0.4,
                "markersize": 3,
            }
            axes.plot([x] * len(bar.percents), bar.percents, "o", **points)
            places_of_points += [(x, percent) for percent in bar.percents]
            label = None
    label = "paper"
    for bar, place in zip(bars, places, strict=True):
        if bar.percents and bar.published is not None:
            x = outer.index(place) - 0.4 + (inner.index(bar.series) + 0.5) * width
            ends = [x - width * 0.4, x + width * 0.4]
            axes.plot(ends, [bar.published] * 2, color="black", path_effects=outline, label=label)
            label = None
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    clip_outliers(axes, places_of_points, [0.0, 100.0])
    names = short_names(outer)
    longest = max(map(len, names))
    crowded = longest * len(names) > 40
    if crowded:
        figure.set_figheight(figure.get_figheight() + _SLANTED * longest)
    axes.set_xticks(range(len(names)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    add_legend(figure, title=series)
    return figure
