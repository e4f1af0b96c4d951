"""The papers' figures, from what agents do and from files that ``sb3-distill evaluate`` and studies write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch as th
from matplotlib.figure import Figure

from sb3_distill.agents.agent import ActorCriticTeacher, Teacher
from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.sources import find_agent
from sb3_distill.results.figures import COLOURS, WIDTH, make_axes, marker_style, scale_by_size, short_name
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN
from sb3_distill.visualize.episodes import Episode


def distinct_names(paths: Sequence[str | Path]) -> list[str]:
    """
    :param paths: of agents or runs
    :return: the paths without the folders in which all of them lie, which say nothing
    """
    parts = [Path(path).parts for path in paths]
    n_shared = 0
    while all(len(own) > n_shared + 1 for own in parts) and len({own[n_shared] for own in parts}) == 1:
        n_shared += 1
    return ["/".join(own[n_shared:]) for own in parts]


def temperature_of(student: Teacher, temperature: float) -> float:
    """
    :param student: a loaded agent
    :param temperature: of the targets
    :return: what divides its outputs before the softmax: students of a KL or NLL loss answer with logits of the targets
        at the temperature that they were trained with; agents that answer with values need that of the targets
    """
    if student.algo == "qpd" or isinstance(student, ActorCriticTeacher):
        return 1.0
    if student.algo != "pd":
        return temperature
    data = read_archive(find_agent(student.source).zip_path).data
    return temperature if data.get("loss") == "mse" else float(data.get("student_temperature", 1.0))


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
    outputs = teacher.answer(observations)[0].preferences.cpu()
    targets = (outputs / temperature).softmax(dim=1)
    order = np.argsort(-targets.max(dim=1).values.numpy(), kind="stable")
    moments = np.sort(order[np.linspace(0, len(order) - 1, n_moments).round().astype(int)])
    answers = [("targets", targets)]
    for name, student in zip(distinct_names([student.source for student in students]), students, strict=True):
        own = student.answer(observations.to(student.device))[0].preferences.cpu()
        probabilities = (own / temperature_of(student, temperature)).softmax(dim=1)
        answers.append((f"{name} ({student.n_parameters:,})", probabilities))
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots(3, n_moments, squeeze=False, height_ratios=[1.5, 1, 1])
    actions = np.arange(outputs.shape[1])
    for column, moment in enumerate(moments):
        axes[0, column].imshow(episode.frames[moment])
        axes[0, column].set_title(f"step {moment}", fontsize="medium")
        # Points: values have no zero that means something.
        axes[1, column].plot(actions, outputs[moment].numpy(), "o", color="0.3", markersize=4)
        width = 0.8 / len(answers)
        for index, (label, probabilities) in enumerate(answers):
            axes[2, column].bar(
                actions - 0.4 + (index + 0.5) * width,
                probabilities[moment].numpy(),
                width,
                color=COLOURS[index % len(COLOURS)],
                label=label if column == 0 else None,
            )
        for row in (1, 2):
            # Numbers of 18 actions would overlap.
            axes[row, column].set_xticks(actions[:: 1 + (len(actions) - 1) // 6])
            axes[row, column].sharey(axes[row, 0])
            axes[row, column].tick_params(labelleft=column == 0)
            axes[row, column].spines[["top", "right"]].set_visible(False)
        axes[2, column].set_xlabel("action")
    lowest, highest = float(outputs[moments].min()), float(outputs[moments].max())
    margin = 0.1 * (highest - lowest) or 1.0
    for column in range(n_moments):
        axes[0, column].set_axis_off()
    axes[1, 0].set_ylim(lowest - margin, highest + margin)
    axes[2, 0].set_ylim(0, 1)
    axes[1, 0].set_ylabel("teacher's\noutput")
    axes[2, 0].set_ylabel(f"probability,\nτ = {temperature:g}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def plot_sizes(rows: Sequence[Row], size: str = "n_parameters") -> Figure:
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
    for index, algo in enumerate(dict.fromkeys(row.algo for row in rows)):
        chosen = sorted((row for row in rows if row.algo == algo), key=lambda row: getattr(row, size))
        axes.errorbar(
            [getattr(row, size) for row in chosen],
            np.array([row.percent_of_teacher for row in chosen], dtype=float),
            np.transpose([_percent_errors(row) for row in chosen]),
            **marker_style(index),
            linestyle="none",
            capsize=2,
            label=algo,
        )
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    scale_by_size(axes)
    axes.legend(frameon=False)
    return figure


def _percent_errors(row: Row) -> tuple[float, float]:
    """How far the interval reaches below and above the row's share of the teacher's score."""
    assert row.percent_of_teacher is not None
    if row.percent_interval:
        # Geometric means over tasks
        low, high = row.percent_interval
        return max(row.percent_of_teacher - low, 0.0), max(high - row.percent_of_teacher, 0.0)
    assert row.mean is not None and row.teacher_mean is not None
    mean, distance = row.mean, row.mean - row.teacher_mean
    # Shares of tasks are counted from a random player's score on: a point is worth what the row itself says.
    per_point = abs((row.percent_of_teacher - 100.0) / distance) if distance else 100.0 / abs(row.teacher_mean)
    low, high = (abs(end - mean) * per_point for end in row.mean_interval)
    return low, high


def check_rows(rows: Sequence[Row]) -> list[Row]:
    """
    :param rows: of one evaluation
    :return: those that know their share of the teacher's score; of several tasks their geometric mean
    :raises ValueError: there is none, or they belong to several games
    """
    games = sorted({row.env for row in rows})
    if len(games) > 1:
        raise ValueError(f"One figure shows one game, but these runs are of {', '.join(games)}: choose with --env.")
    chosen = [row for row in rows if row.percent_of_teacher is not None and row.task in (None, GEOMETRIC_MEAN)]
    if not chosen:
        raise ValueError("No row says its % of the teacher's score: evaluate with the teacher (--teacher).")
    return chosen


def plot_bars(rows: Sequence[Row], by: str) -> Figure:
    """
    Comparison of losses or other settings: bars of per cent of the teacher, by game; the points are runs.

    :param rows: results of a study, or of ``sb3-distill evaluate``
    :param by: the field that is compared, such as "loss"
    :return: the figure
    :raises ValueError: a row lacks the field, or no row knows its share of the teacher's score
    """
    contents = [row.to_dict() for row in rows if row.percent_of_teacher is not None]
    known = sorted(set.intersection(*map(set, contents))) if contents else []
    if by not in known:
        raise ValueError(f"The results have no field {by!r} to compare by. They have {', '.join(known) or 'no rows'}.")
    percents_of: dict[tuple[str, str], list[float]] = {}
    for content in contents:
        percents_of.setdefault((content["env"], str(content[by])), []).append(content["percent_of_teacher"])
    games, choices = (list(dict.fromkeys(names)) for names in zip(*percents_of, strict=True))
    figure, axes = make_axes("", "% of the teacher's return", max(WIDTH, 0.18 * len(games) * (len(choices) + 1) + 1.5))
    width = 0.8 / len(choices)
    for index, choice in enumerate(choices):
        label: str | None = choice
        for position, game in enumerate(games):
            percents = percents_of.get((game, choice))
            if not percents:
                continue
            x = position - 0.4 + (index + 0.5) * width
            axes.bar(x, np.mean(percents), width, color=COLOURS[index % len(COLOURS)], label=label)
            axes.plot([x] * len(percents), percents, "o", color="black", markersize=2.5)
            label = None
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    names = [short_name(game) for game in games]
    crowded = max(map(len, names)) * len(names) > 40
    axes.set_xticks(range(len(names)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    figure.legend(loc="outside right upper", title=by, frameon=False)
    return figure
