"""Learning curves as a table, a file and a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_distill.results.figures import line_style, make_axes, save_figure
from sb3_distill.results.statistics import percent_of_teacher
from sb3_distill.results.tables import format_table

# How the teacher is called among the players
TEACHER = "teacher"
N_LAST = 10

Evaluations = Sequence[dict[str, Any]]


def curve_of(evaluations: Evaluations, player: str, field: str = "mean_reward") -> np.ndarray:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :param player: "teacher" or the name of a student
    :param field: a field of the entries
    :return: its values, one per evaluation
    """
    return np.array([entry[field] for entry in evaluations if entry["player"] == player])


def players_of(evaluations: Evaluations) -> list[str]:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :return: who was evaluated, the teacher first
    """
    return list(dict.fromkeys(entry["player"] for entry in evaluations))


def summarize(evaluations: Evaluations) -> list[dict[str, Any]]:
    """
    Table 1 of Sun & Fazli 2019: of each player the highest score and the mean of the last 10 evaluations, also as a
    percentage of the teacher's; and the standard deviation over the last 10, which says how steady it is.

    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :return: one row per player
    """
    teacher = curve_of(evaluations, TEACHER)
    rows = []
    for player in players_of(evaluations):
        curve = curve_of(evaluations, player)
        last, teacher_last = curve[-N_LAST:].mean(), teacher[-N_LAST:].mean()
        rows.append(
            {
                "player": player,
                "max": float(curve.max()),
                "max_percent": percent_of_teacher(float(curve.max()), float(teacher.max())),
                "last": float(last),
                "last_percent": percent_of_teacher(float(last), float(teacher_last)),
                "last_std": float(curve[-N_LAST:].std()),
            }
        )
    return rows


def format_summary(evaluations: Evaluations) -> str:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :return: ``summarize`` as text
    """
    n_last = min(N_LAST, len(curve_of(evaluations, TEACHER)))
    header = ["player", "max", "max %", f"mean of last {n_last}", "%", f"std of last {n_last}"]
    rows = [
        [
            row["player"],
            f"{row['max']:.2f}",
            f"{row['max_percent']:.1f}",
            f"{row['last']:.2f}",
            f"{row['last_percent']:.1f}",
            f"{row['last_std']:.2f}",
        ]
        for row in summarize(evaluations)
    ]
    return format_table([header, *rows], n_left=1)


def write_csv(evaluations: Evaluations, path: Path) -> None:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :param path: file to write, one line per evaluation and player
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(evaluations[0]))
        writer.writeheader()
        writer.writerows(evaluations)


def plot_curves(evaluations: Evaluations, path: Path) -> None:
    """
    Draw the teacher pale, its best score so far, and the students.

    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :param path: file to write
    """
    figure, axes = make_axes("updates (thousands)", "mean return")
    updates = curve_of(evaluations, TEACHER, "n_updates") / 1000
    teacher = curve_of(evaluations, TEACHER)
    axes.plot(updates, teacher, color="0.75", linewidth=1.5, label="teacher")
    axes.plot(updates, np.maximum.accumulate(teacher), color="0.45", linewidth=1, linestyle="--", label="best so far")
    for index, player in enumerate(player for player in players_of(evaluations) if player != TEACHER):
        student_updates = curve_of(evaluations, player, "n_updates") / 1000
        axes.plot(student_updates, curve_of(evaluations, player), **line_style(index), linewidth=1.5, label=player)
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)
