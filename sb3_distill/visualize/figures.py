"""The papers' figures, from what agents do and from files that ``sb3-distill evaluate`` and studies write."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from matplotlib.figure import Figure

from sb3_distill.common.figures import COLOURS, make_axes
from sb3_distill.common.teachers import ActorCriticTeacher, Teacher
from sb3_distill.visualize.episodes import Episode

MARKERS = "os^Dv<>P"


def plot_q_values(
    teacher: Teacher, students: Sequence[Teacher], episode: Episode, temperature: float, n_moments: int = 4
) -> Figure:
    """
    Figure 1 of Rusu et al. 2015: moments of a game, the teacher's values of the actions, and the targets that the
    temperature makes of them, beside the students' probabilities.

    :param teacher: a DQN, QR-DQN or actor-critic agent
    :param students: agents of the same actions
    :param episode: where the moments are taken from: those in which the teacher's choice is clearest and least clear
    :param temperature: of the targets
    :param n_moments: how many
    :return: the figure
    """
    observations = th.as_tensor(np.stack(episode.observations), device=teacher.device)
    logits = teacher.logits(observations).cpu()
    targets = (logits / temperature).softmax(dim=1)
    order = np.argsort(-targets.max(dim=1).values.numpy(), kind="stable")
    moments = np.sort(order[np.linspace(0, len(order) - 1, n_moments).round().astype(int)])
    answers = {"targets": targets}
    for student in students:
        is_student = student.algo in ("pd", "qpd") or isinstance(student, ActorCriticTeacher)
        outputs = student.logits(observations.to(student.device)).cpu()
        # Students answer with logits of these targets; other agents with values of their own scale.
        answers[f"{student.algo}, {student.n_parameters:,}"] = (outputs / (1.0 if is_student else temperature)).softmax(
            dim=1
        )
    figure = Figure(figsize=(1.9 * n_moments, 4.6), layout="constrained")
    axes = figure.subplots(3, n_moments, squeeze=False, height_ratios=[1.5, 1, 1])
    actions = np.arange(logits.shape[1])
    for column, moment in enumerate(moments):
        axes[0, column].imshow(episode.frames[moment])
        axes[0, column].set_title(f"step {moment}", fontsize="small")
        axes[1, column].bar(actions, logits[moment].numpy(), color="0.5")
        width = 0.8 / len(answers)
        for index, (label, probabilities) in enumerate(answers.items()):
            axes[2, column].bar(
                actions - 0.4 + (index + 0.5) * width,
                probabilities[moment].numpy(),
                width,
                color=COLOURS[index % len(COLOURS)],
                label=label if column == 0 else None,
            )
        for row in (1, 2):
            axes[row, column].set_xticks(actions)
            axes[row, column].spines[["top", "right"]].set_visible(False)
        axes[2, column].set_xlabel("action")
    lowest, highest = float(logits[moments].min()), float(logits[moments].max())
    margin = 0.1 * (highest - lowest) or 1.0
    for column in range(n_moments):
        axes[0, column].set_axis_off()
        axes[1, column].set_ylim(lowest - margin, highest + margin)
        axes[2, column].set_ylim(0, 1)
    axes[1, 0].set_ylabel("teacher's output", fontsize="small")
    axes[2, 0].set_ylabel(f"probability, τ = {temperature:g}", fontsize="small")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def plot_sizes(rows: Sequence[Mapping[str, Any]], size: str = "n_parameters") -> Figure:
    """
    Figure 3 of Rusu et al. 2015 and figure 1 of Avé et al. 2022: per cent of the teacher's score against size, with the
    95% interval of the mean return.

    :param rows: of ``sb3-distill evaluate -o FILE.json``, or results of studies
    :param size: "n_parameters" or "n_bytes"
    :return: the figure
    :raises ValueError: the rows belong to several games, or no row knows its share of the teacher's score
    """
    rows = check_rows(rows)
    figure, axes = make_axes({"n_parameters": "parameters", "n_bytes": "bytes"}[size], "% of the teacher's return")
    algos = list(dict.fromkeys(row["algo"] for row in rows))
    for index, algo in enumerate(algos):
        chosen = sorted((row for row in rows if row["algo"] == algo), key=lambda row: row[size])
        percents = np.array([row["percent_of_teacher"] for row in chosen])
        # The interval of the return, on the scale of percentages
        scale = np.array([_percent_per_point(row) for row in chosen])
        low, high = (
            np.array([abs(row["mean_interval"][end] - row["mean"]) for row in chosen]) * scale for end in (0, 1)
        )
        axes.errorbar(
            [row[size] for row in chosen],
            percents,
            np.stack([low, high]),
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle="none",
            capsize=2,
            label=algo,
        )
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize="small")
    return figure


def _percent_per_point(row: Mapping[str, Any]) -> float:
    teacher = row["teacher_mean"]
    return 100.0 / abs(teacher) if teacher else 0.0


def check_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """
    :param rows: of one evaluation
    :return: those that know their share of the teacher's score
    :raises ValueError: there is none, or they belong to several games
    """
    games = sorted({row["env"] for row in rows})
    if len(games) > 1:
        raise ValueError(f"One figure shows one game, but these runs are of {', '.join(games)}: choose with --env.")
    chosen = [row for row in rows if row.get("percent_of_teacher") is not None]
    if not chosen:
        raise ValueError("No row says its % of the teacher's score: evaluate with the teacher (--teacher).")
    return chosen


def plot_bars(rows: Sequence[Mapping[str, Any]], by: str) -> Figure:
    """
    Comparison of losses or other settings: bars of per cent of the teacher, by game; the points are runs.

    :param rows: results of a study, or of ``sb3-distill evaluate``
    :param by: the field that is compared, such as "loss"
    :return: the figure
    :raises ValueError: a row lacks the field, or no row knows its share of the teacher's score
    """
    rows = [row for row in rows if row.get("percent_of_teacher") is not None]
    known = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    if by not in known:
        raise ValueError(f"The results have no field {by!r} to compare by. They have {', '.join(known) or 'no rows'}.")
    games = list(dict.fromkeys(row["env"] for row in rows))
    choices = list(dict.fromkeys(str(row[by]) for row in rows))
    figure, axes = make_axes("", "% of the teacher's return")
    width = 0.8 / len(choices)
    for index, choice in enumerate(choices):
        for position, game in enumerate(games):
            percents = [row["percent_of_teacher"] for row in rows if (row["env"], str(row[by])) == (game, choice)]
            if not percents:
                continue
            x = position - 0.4 + (index + 0.5) * width
            color = COLOURS[index % len(COLOURS)]
            axes.bar(x, np.mean(percents), width, color=color, label=choice if position == 0 else None)
            axes.plot([x] * len(percents), percents, "o", color="black", markersize=2.5)
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    axes.set_xticks(range(len(games)), games)
    figure.legend(loc="outside right upper", title=by, frameon=False, fontsize="small")
    return figure


def read_curve(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """
    :param folder: a run folder
    :return: by player, steps or updates and mean returns: the run's evaluations if there are any, else its training
        episodes, averaged over 20
    :raises ValueError: the folder has neither
    """
    if (folder / "learning_curves.csv").is_file():
        with (folder / "learning_curves.csv").open() as file:
            entries = list(csv.DictReader(file))
        curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for player in dict.fromkeys(entry["player"] for entry in entries):
            points = [
                (float(entry["n_timesteps"]), float(entry["mean_reward"]))
                for entry in entries
                if entry["player"] == player
            ]
            x, y = np.array(points).T
            curves[f"{folder.name}: {player}"] = x, y
        return curves
    if (folder / "evaluations.npz").is_file():
        with np.load(folder / "evaluations.npz", allow_pickle=False) as data:
            return {folder.name: (data["timesteps"], data["results"].mean(axis=1))}
    episodes = []
    for path in sorted(folder.glob("*.monitor.csv")):
        with path.open() as file:
            file.readline()
            episodes += [(float(row["t"]), float(row["l"]), float(row["r"])) for row in csv.DictReader(file)]
    if not episodes:
        raise ValueError(
            f"{folder} has no curve: no learning_curves.csv, evaluations.npz or monitor.csv with episodes."
        )
    episodes.sort()
    _, lengths, returns = np.array(episodes).T
    window = min(20, len(returns))
    return {
        # Monitor counts the game's own steps: frames on Atari
        folder.name: (lengths.cumsum()[window - 1 :], np.convolve(returns, np.full(window, 1 / window), mode="valid"))
    }


def plot_learning_curves(folders: Sequence[Path]) -> Figure:
    """
    Figure 5 of Rusu et al. 2015: mean return over the steps of several runs.

    :param folders: run folders of one game
    :return: the figure
    :raises ValueError: a folder has no curve, or the runs are of several games
    """
    games = sorted({folder.name.rsplit("_", 1)[0] for folder in folders})
    if len(games) > 1:
        raise ValueError(f"One figure shows one game, but these runs are of {', '.join(games)}.")
    figure, axes = make_axes("steps (thousands)", "mean return")
    # What the folders' paths have in common says nothing.
    shared = os.path.commonpath([folder.resolve().parent.parent for folder in folders])
    curves = {}
    for folder in folders:
        for label, curve in read_curve(folder).items():
            curves[str(folder.resolve().parent.relative_to(shared) / label)] = curve
    for index, (label, (steps, returns)) in enumerate(curves.items()):
        axes.plot(steps / 1000, returns, color=COLOURS[index % len(COLOURS)], linewidth=1.5, label=label)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure
