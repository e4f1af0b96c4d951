"""Draws the scores of checkpoints over the steps of their runs, from files that ``sb3-distill evaluate --json`` wrote.

``python -m benchmarks.plot_checkpoints net1.json net3.json -o curves.png``; the first agent of a file is the teacher.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from sb3_distill.results.figures import COLOURS, make_axes, save_figure


def read_curve(path: Path) -> tuple[dict[str, Any], list[tuple[int, dict[str, Any]]]]:
    """
    :param path: output of ``sb3-distill evaluate --json``
    :return: the teacher's row, and for each checkpoint its number of steps and its row
    """
    text = path.read_text()
    # The emulator greets on the same stream.
    teacher, *checkpoints = json.loads(text[text.index("{") :])["agents"]
    steps = [int(re.findall(r"(\d+)_steps", row["agent"])[-1]) for row in checkpoints]
    return teacher, sorted(zip(steps, checkpoints, strict=True), key=lambda point: point[0])


def main() -> None:
    """Entry point of ``python -m benchmarks.plot_checkpoints``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()

    figure, axes = make_axes("teacher steps (thousands)", "mean return")
    for index, path in enumerate(args.files):
        teacher, points = read_curve(path)
        if index == 0:
            axes.axhline(teacher["mean"], color="0.5", linewidth=1, linestyle="--", label="teacher")
        steps = [step / 1000 for step, _ in points]
        axes.plot(steps, [row["mean"] for _, row in points], "o-", color=COLOURS[index], markersize=3, label=path.stem)
    axes.legend(frameon=False, fontsize="small")
    save_figure(figure, args.output)


if __name__ == "__main__":
    main()
