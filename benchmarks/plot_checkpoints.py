"""Draws the scores of checkpoints over the steps of their runs, from files that ``sb3-distill evaluate --json`` wrote.

``python -m benchmarks.plot_checkpoints net1.json net3.json -o curves.png``; the first agent of a file is the teacher.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from sb3_distill.results.curves import Curve
from sb3_distill.results.figures import add_legend, line_style, make_axes, save_figure
from sb3_distill.results.row import parse_rows


def read_checkpoints(path: Path) -> tuple[float, Curve]:
    """
    :param path: output of ``sb3-distill evaluate --json``
    :return: the teacher's mean return, and the curve of the checkpoints
    """
    text = path.read_text()
    # The Atari emulator prints its version to the same stream, so skip everything before the JSON.
    rows = parse_rows(text[text.index("{") :])
    teacher, *means = np.array([row.mean for row in rows], dtype=float)
    steps = np.array([int(re.findall(r"(\d+)_steps", row.agent)[-1]) for row in rows[1:]])
    order = np.argsort(steps)
    return teacher, Curve(steps[order], np.array(means)[order])


def main() -> None:
    """Entry point of ``python -m benchmarks.plot_checkpoints``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()

    figure, axes = make_axes("teacher steps (thousands)", "mean return")
    for index, path in enumerate(args.files):
        teacher, curve = read_checkpoints(path)
        if index == 0:
            axes.axhline(teacher, color="0.5", linewidth=1, linestyle="--", label="teacher")
        axes.plot(curve.steps / 1000, curve.returns, marker="o", **line_style(index), markersize=3, label=path.stem)
    add_legend(figure)
    save_figure(figure, args.output)


if __name__ == "__main__":
    main()
