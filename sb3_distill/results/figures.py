"""What all pictures share."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

# Okabe & Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = "os^Dv<>P"
# Inches: Matplotlib's text of 10 points has 6 where a column of 3.4 inches takes the figure.
WIDTH, HEIGHT = 5.5, 3.2


def make_axes(xlabel: str, ylabel: str, width: float = WIDTH) -> tuple[Figure, Axes]:
    """
    An empty picture of column width, made without pyplot: no window system is asked for, and nothing is left behind.

    :param xlabel: what the x axis shows
    :param ylabel: what the y axis shows
    :param width: in inches, for what does not fit a column
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
    :param axes: whose x axis shows sizes: it becomes logarithmic, with labels such as 200k that do not overlap
    """
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def line_style(index: int) -> dict[str, Any]:
    """
    :param index: number of a line
    :return: its colour; where the colours are used up the dashes change
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
    :param text: an environment, or words with one in them
    :return: the same without what all Atari games have in common
    """
    return text.replace("NoFrameskip-v4", "")


def check_format(path: Path) -> None:
    """
    :param path: of a figure to write
    :raises ValueError: its ending names no format
    """
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: figures are written as one of {', '.join('.' + name for name in formats)}.")


def save_figure(figure: Figure, path: Path) -> None:
    """
    :param figure: the picture
    :param path: file to write, in the format that its name ends with
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
