"""Many series in one figure, which stay apart."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sb3_distill.results.bars import Bar, draw_bars
from sb3_distill.results.curves import Curve, plot_learning_curves
from sb3_distill.results.figures import (
    COLOURS,
    bar_style,
    fill_style,
    label_points,
    line_style,
    make_axes,
    marker_style,
    short_names,
)
from sb3_distill.visualize.tsne import plot_tsne


@pytest.mark.parametrize("style", [bar_style, fill_style, line_style, marker_style])
def test_styles_of_series_differ(style):
    styles = [str(style(index)) for index in range(60)]
    assert len(set(styles)) == 60
    # Up to the seventeenth the colours alone differ.
    assert len({style(index)["color"] for index in range(17)}) == 17


def test_colours_are_unlike_each_other():
    # A just visible difference of luminance-weighted channels is below 0.02.
    colours = np.array([to_rgb(colour) for colour in COLOURS])
    pairs = itertools.combinations(colours, 2)
    assert min(np.abs(one - other).max() for one, other in pairs) > 0.1


def draw_many(n_series: int) -> list[tuple[Figure, Callable[[Any], Any]]]:
    """Figures of so many series, each with what its legend shows of a series."""
    bars = [Bar((game,), f"{index}", [50.0, 60.0 + index]) for game in ("A", "B") for index in range(n_series)]
    curves = [(f"run {index}", Curve(np.arange(3), np.arange(3) * index)) for index in range(n_series)]
    points = np.random.default_rng(0).normal(size=(n_series, 6, 4))
    tsne = plot_tsne([f"game {index}" for index in range(n_series)], [(own, own) for own in points], ["a", "b"])
    return [
        (draw_bars(bars, "width"), lambda bar: (bar.get_facecolor(), bar.get_hatch())),
        (plot_learning_curves(curves), lambda line: (line.get_color(), line.get_linestyle())),
        (tsne, lambda dots: (*dots.get_facecolor()[0], str(dots.get_paths()[0].vertices))),
    ]


@pytest.mark.parametrize("n_series", [8, 26])
def test_legends_tell_all_series_apart_and_fit(n_series, tmp_path):
    pytest.importorskip("sklearn")
    for figure, look in draw_many(n_series):
        (legend,) = figure.legends
        assert len({text.get_text() for text in legend.get_texts()}) == len(legend.get_texts()) == n_series
        assert len({look(handle) for handle in legend.legend_handles}) == n_series
        figure.savefig(tmp_path / "figure.png")
        box, (width, height) = legend.get_window_extent(), figure.get_size_inches() * figure.dpi
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert all(axes.get_position().height * figure.get_figheight() > 1.2 for axes in figure.axes)


def test_texts_of_points_lie_apart():
    """Sizes and scores of a study of nine students."""
    sizes = [1_697_104, 426_672, 217_264, 446_160, 112_816, 59_440, 244_176, 61_872, 33_584]
    percents = [116.6, 101.4, 89.4, 66.3, 77.2, 79.0, 63.4, 85.8, 68.5]
    _, axes = make_axes("bytes", "%")
    axes.set_xscale("log")
    axes.plot(sizes, percents, "o")
    label_points(axes, [(*point, f"student {index}") for index, point in enumerate(zip(sizes, percents, strict=True))])
    boxes = [text.get_window_extent() for text in axes.texts]
    marks = axes.transData.transform(list(zip(sizes, percents, strict=True)))
    assert len(boxes) == 9 and not any(box.count_contains(marks) for box in boxes)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))


def test_bars_of_different_places_never_lie_on_each_other():
    bars = [Bar(place, "kl", [value]) for place, value in ((("a b", "c"), 1.0), (("a", "b c"), 2.0))]
    axes = draw_bars(bars, "loss").axes[0]
    assert len({bar.get_x() for bar in axes.patches}) == 2
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a b | c", "a | b c"]
    assert short_names([("PongNoFrameskip-v4", "kl")]) == ["Pong kl"]
    assert short_names([("PongNoFrameskip-v4",), ("Pong",)]) == ["PongNoFrameskip-v4", "Pong"]


def test_bars_of_other_definitions_are_named():
    bars = [Bar(("A",), "kl", [90.0], "signed quotient"), Bar(("B",), "kl", [40.0], "normalized")]
    axes = draw_bars(bars, "loss").axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["A signed quotient", "B normalized"]
    assert axes.get_ylabel() == "% of the teacher"
