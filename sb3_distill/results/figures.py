"""Style and helpers of all figures."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from sb3_distill.common.files import whole_file
from sb3_distill.results.statistics import NORMALIZED

# Palette of Okabe & Ito, which colour-blind readers can distinguish. After its seven colours come those of Matplotlib's
# tab20 that are most unlike them, and lines, markers and hatches differ too.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#2ca02c", "#bcbd22", "#ffbb78", "#ff9896", "#9467bd", "#d62728", "#8c564b", "#c5b0d5", "#17becf", "#c49c94"),
)
_N_FIRST = 7
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "os^Dv<>P"
FILLS = ("full", "none", "left", "top", "right", "bottom")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "--", "oo")
# So many entries of a legend stand in one column beside a figure.
_N_BESIDE = 12
# In inches. Scaled down to a column of 3.4 inches, Matplotlib's text of 10 points has about 6 points.
WIDTH, HEIGHT = 5.5, 3.2
# Height of a legend below the axes that fits without a larger figure
_ROOM = 0.7


def make_axes(xlabel: str, ylabel: str, width: float = WIDTH) -> tuple[Figure, Axes]:
    """
    Make an empty figure. It does not use pyplot, which would need a display and keep every figure in memory.

    :param xlabel: label of the x axis
    :param ylabel: label of the y axis
    :param width: width in inches
    :return: the figure and its axes
    """
    figure = Figure(figsize=(width, HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def scale_by_size(axes: Axes) -> None:
    """
    :param axes: axes with sizes on the x axis, which becomes logarithmic, with short labels such as 200k
    """
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    # All three of three decades would lie on each other. Within a factor of five there may be one of them alone.
    subs = (1, 2, 5) if high < 500 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs) if high > 5 * low else MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _split(heights: list[float], others: Sequence[float]) -> tuple[list[float], float, float, bool] | None:
    """
    :param heights: of points, sorted
    :param others: of what is drawn beside them
    :return: as few of them as can be, without which the others fill less than a third as much; the ends of these, and
        whether those left out lie below; None: there are no such
    """
    # Few are many where they are a third of the rest.
    for n_outside in range(1, len(heights) // 4 + 1):
        for from_below in (True, False):
            outside, rest = heights[:n_outside], heights[n_outside:]
            if not from_below:
                outside, rest = heights[-n_outside:], heights[:-n_outside]
            if len(rest) < 4:
                return None
            kept = [*rest, *(y for y in others if (y > outside[-1] if from_below else y < outside[0]))]
            low, high = min(kept), max(kept)
            gap = low - outside[-1] if from_below else outside[0] - high
            whole = max(high, heights[-1]) - min(low, heights[0])
            # 98 is not far from 100, however close the others are to each other; and what is all alike cannot be flat.
            if 0 < high - low < whole / 3 and gap >= 0.1 * max(map(abs, heights)):
                return outside, low, high, from_below
    return None


def clip_outliers(axes: Axes, points: Sequence[tuple[float, float]], others: Sequence[float] = ()) -> None:
    """
    Leave out of the y axis the few points that would flatten all others, and write at its edge what lies there.

    :param axes: axes whose points are drawn already
    :param points: x and y of each
    :param others: y of what is drawn beside them, such as the ends of intervals: it is left out with the points alone
    """
    found = _split(sorted(y for _, y in points), others)
    if found is None:
        return
    outside, low, high, from_below = found
    span = high - low
    room = 0.25 * span
    edge, end = (low - room, high + room) if from_below else (high + room, low - room)
    axes.set_ylim(min(edge, end), max(edge, end))
    marker, side, shift = ("v", "bottom", 5) if from_below else ("^", "top", -5)
    for x in dict.fromkeys(x for x, y in points if y in outside):
        text = ", ".join(f"{y:.0f}" for own, y in points if own == x and y in outside)
        axes.plot(x, edge, marker, color="black", markersize=5, clip_on=False, zorder=5)
        place: dict[str, Any] = {"textcoords": "offset points", "va": side, "fontsize": "x-small"}
        axes.annotate(text, (x, edge), (5, shift), annotation_clip=False, **place)


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """
    Write the text of each point beside it, where it covers no other text, no other point, and stays inside, if it can.

    :param axes: axes that show all points, with sizes on a logarithmic x axis, in a figure that has its legend
    :param points: x, y and text of each point
    """
    # Where things lie is known when the figure is laid out.
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    marks = axes.transData.transform([(x, y) for x, y, _ in points]) if points else ()
    texts: list[Bbox] = []
    for x, y, text in sorted(points):
        label = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", fontsize="x-small", color="0.25")

        def put(place: tuple[str, str], label: Annotation = label) -> Bbox:
            label.set(ha=place[0], va=place[1])
            label.xyann = (4 if place[0] == "left" else -4, 3 if place[1] == "bottom" else -3)
            return label.get_window_extent()

        def n_covered(place: tuple[str, str], put: Callable[[tuple[str, str]], Bbox] = put) -> int:
            box = put(place)
            edges = [axes.bbox.contains(*corner) for corner in (box.min, box.max)]
            return box.count_overlaps(texts) + box.count_contains(marks) + edges.count(False)

        sides = ("right", "left") if x * x > low * high else ("left", "right")
        texts.append(put(min(itertools.product(sides, ("top", "bottom")), key=n_covered)))


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _round(index: int) -> int:
    """How often the style has changed: after the first seven series, and whenever all colours were used with it."""
    return (index - _N_FIRST) // len(COLOURS) + 1


def line_style(index: int) -> dict[str, Any]:
    """
    :param index: number of a line
    :return: its colour and line style
    """
    return {"color": _colour(index), "linestyle": LINES[_round(index) % len(LINES)]}


def marker_style(index: int) -> dict[str, Any]:
    """
    :param index: number of a series of points
    :return: its colour and marker
    """
    return {"color": _colour(index), "marker": MARKERS[index % len(MARKERS)]}


def fill_style(index: int) -> dict[str, Any]:
    """
    :param index: number of a series whose points have markers of several shapes
    :return: its colour and how its markers are filled
    """
    return {"color": _colour(index), "fillstyle": FILLS[_round(index) % len(FILLS)]}


def bar_style(index: int) -> dict[str, Any]:
    """
    :param index: number of a series of bars
    :return: its colour and hatch
    """
    hatch = HATCHES[_round(index) % len(HATCHES)]
    return {"color": _colour(index), "edgecolor": "white", "linewidth": 0, "hatch": hatch}


def add_legend(figure: Figure, below: bool = False, ncols: int = 2, **kwargs: Any) -> None:
    """
    Add a legend outside of the axes, and make the figure larger where it would not fit.

    :param figure: a figure that has all its series
    :param below: put it below the axes instead of beside them
    :param ncols: number of columns below the axes, fewer if the labels are long
    :param kwargs: more arguments of ``Figure.legend``
    """
    n_entries = len({label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]})
    if not below:
        ncols = max(math.ceil(n_entries / _N_BESIDE), 1)
    kwargs = {"loc": "outside lower center" if below else "outside right upper", "frameon": False, **kwargs}
    while True:
        legend = figure.legend(ncols=ncols, **kwargs)
        box = legend.get_window_extent()
        width, height = box.width / figure.dpi, box.height / figure.dpi
        if not below or ncols == 1 or width <= figure.get_figwidth():
            break
        legend.remove()
        ncols -= 1
    if below:
        figure.set_figheight(figure.get_figheight() + max(height - _ROOM, 0.0))
        # A single column can be too wide, too.
        figure.set_figwidth(max(figure.get_figwidth(), width))
    else:
        figure.set_figwidth(figure.get_figwidth() + width * (1 - 1 / ncols))


def short_name(text: str) -> str:
    """
    :param text: an environment's id, or a text that contains one
    :return: the text without the suffix of Atari ids
    """
    return text.replace("NoFrameskip-v4", "")


def short_names(names: Sequence[tuple[str, ...]]) -> list[str]:
    """
    :param names: names of several words
    :return: each of them as one short text; different names have different texts
    """
    for texts in ([short_name(" ".join(name).strip()) for name in names], [" ".join(name).strip() for name in names]):
        if len(set(texts)) == len(set(names)):
            return texts
    return [" | ".join(name) for name in names]


def distinct_names(paths: Sequence[str | Path]) -> list[str]:
    """
    :param paths: paths of agents or runs
    :return: the paths without the leading folders that all of them share; of long ones only the ends, of two parts or
        more, that tell them apart
    """
    parts = [Path(path).parts for path in paths]
    n_shared = 0
    while all(len(own) > n_shared + 1 for own in parts) and len({own[n_shared] for own in parts}) == 1:
        n_shared += 1
    n_kept = 2
    while len({own[-n_kept:] for own in parts}) < len(set(parts)):
        n_kept += 1
    return ["/".join(own[max(n_shared, len(own) - n_kept) :]) for own in parts]


def percent_label(definitions: Iterable[str | None]) -> str:
    """
    :param definitions: definitions of the percentages on an axis; None: not known
    :return: the label of the axis
    """
    found = set(definitions)
    if found == {NORMALIZED}:
        return "% between a random player\nand the teacher"
    return "% of the teacher" if NORMALIZED in found else "% of the teacher's return"


def check_format(path: Path) -> None:
    """
    :param path: file of a figure
    :raises ValueError: the file's extension is not a supported format
    """
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: figures are written as one of {', '.join('.' + name for name in formats)}.")


def show_literally(figure: Figure) -> None:
    """
    :param figure: a figure, whose texts may come from files; $ is no formula in them
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)


def save_figure(figure: Figure, path: Path) -> None:
    """
    :param figure: the figure
    :param path: file to write; its extension chooses the format
    :raises OSError: it cannot be written
    """
    show_literally(figure)
    with whole_file(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix[1:])
