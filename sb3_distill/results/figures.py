"""Style and helpers of all figures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from sb3_distill.results.statistics import NORMALIZED

# Palette of Okabe & Ito, which colour-blind readers can distinguish
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = "os^Dv<>P"
# In inches. Scaled down to a column of 3.4 inches, Matplotlib's text of 10 points has about 6 points.
WIDTH, HEIGHT = 5.5, 3.2


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
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def line_style(index: int) -> dict[str, Any]:
    """
    :param index: number of a line
    :return: its colour and line style; the line style changes when all colours have been used
    """
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}


def marker_style(index: int) -> dict[str, Any]:
    """
    :param index: number of a series of points
    :return: its colour and marker
    """
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def short_name(text: str) -> str:
    """
    :param text: an environment's id, or a text that contains one
    :return: the text without the suffix of Atari ids
    """
    return text.replace("NoFrameskip-v4", "")


def percent_label(definitions: Iterable[str | None]) -> str:
    """
    :param definitions: definitions of the percentages on an axis; None: not known
    :return: the label of the axis
    """
    if set(definitions) == {NORMALIZED}:
        return "% between a random player and the teacher"
    return "% of the teacher's return"


def check_format(path: Path) -> None:
    """
    :param path: file of a figure
    :raises ValueError: the file's extension is not a supported format
    """
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: figures are written as one of {', '.join('.' + name for name in formats)}.")


def save_figure(figure: Figure, path: Path) -> None:
    """
    :param figure: the figure
    :param path: file to write; its extension chooses the format
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
