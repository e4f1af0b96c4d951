"""What all pictures share."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def make_axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """
    An empty picture of column width, made without pyplot: no window system is asked for, and nothing is left behind.

    :param xlabel: what the x axis shows
    :param ylabel: what the y axis shows
    :return: the figure and its axes
    """
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """
    :param figure: the picture
    :param path: file to write, in the format that its name ends with
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
