"""What each factor of an ablation does: pairs of runs that differ in it alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sb3_distill.results.figures import HEIGHT, WIDTH, short_names

# Of more pairs the names would lie on each other.
_NAMED = 4


def draw_factors(labels: Sequence[Mapping[str, str]], percents: Sequence[float], ylabel: str) -> Figure | None:
    """
    :param labels: by factor, the value that each kind of run has
    :param percents: the percentage of the teacher of each
    :param ylabel: what the percentages are
    :return: a panel for each factor with two values: pale lines join runs that differ in it alone (a few are
        named by what they have in common), a bold one their means; None unless there are two such factors with pairs
    """
    names = [name for name in (labels[0] if labels else ()) if name not in ("env", "task")]
    pairs = {name: _pairs(name, labels, percents) for name in names}
    pairs = {name: found for name, found in pairs.items() if found}
    if len(pairs) < 2:
        return None
    figure = Figure(figsize=(max(WIDTH, 1.9 * len(pairs)), HEIGHT), layout="constrained")
    for axes, (name, found) in zip(
        figure.subplots(1, len(pairs), sharey=True, squeeze=False)[0], pairs.items(), strict=True
    ):
        for others, pair in found.items():
            axes.plot([0, 1], pair, "o-", color="0.6", linewidth=0.8, markersize=3)
            if len(found) <= _NAMED:
                place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": "x-small"}
                axes.annotate(" ".join(others), (1, pair[1]), (6, 0), color="0.4", **place)
        means = np.mean(list(found.values()), axis=0)
        axes.plot([0, 1], means, "o-", color="#0072B2", linewidth=2.5, markersize=6)
        axes.set_title(f"on average {means[1] - means[0]:+.0f}", fontsize="small", color="#0072B2")
        axes.axhline(100, color="0.7", linewidth=1, zorder=0)
        axes.set_xticks([0, 1], short_names([(value,) for value in _values(name, labels)]))
        axes.set_xlim(-0.4, 1.6)
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(ylabel)
    return figure


def _values(name: str, labels: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(own[name] for own in labels if name in own))


def _pairs(
    name: str, labels: Sequence[Mapping[str, str]], percents: Sequence[float]
) -> dict[tuple[str, ...], tuple[float, float]]:
    """By what they have in common, the percentages of runs that differ in this factor alone."""
    values = _values(name, labels)
    if len(values) != 2:
        return {}
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for own, percent in zip(labels, percents, strict=True):
        others = tuple(value for other, value in own.items() if other != name)
        found.setdefault(others, {})[own.get(name, "")] = percent
    first, second = values
    return {key: (pair[first], pair[second]) for key, pair in found.items() if pair.keys() == set(values)}
