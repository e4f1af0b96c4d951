"""The papers' figures, from agents, or from files that ``sb3-distill evaluate`` and studies write."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from matplotlib.figure import Figure

from sb3_distill.agents.agent import ActorCriticTeacher, Teacher
from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.sources import find_agent
from sb3_distill.algorithms import STUDENTS
from sb3_distill.common.utils import unknown_choice
from sb3_distill.results.bars import Bar, draw_bars
from sb3_distill.results.figures import (
    WIDTH,
    add_legend,
    bar_style,
    clip_outliers,
    distinct_names,
    label_points,
    make_axes,
    marker_style,
    percent_label,
    scale_by_size,
)
from sb3_distill.results.games import over_games
from sb3_distill.results.likeness import conditions_of, describe, group_alike
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN
from sb3_distill.visualize.episodes import Episode

# Frames of an episode beside which Q-values are drawn
_N_MOMENTS = 4
# How the teacher's own interval is drawn
_TEACHER: dict[str, Any] = {"color": "0.7", "alpha": 0.25, "linewidth": 0, "zorder": 0}


def _saved_arguments(student: Teacher) -> dict[str, Any]:
    """The arguments of a student's training, as its zip has them."""
    return read_archive(find_agent(student.source).zip_path).data


def temperature_of(student: Teacher, temperature: float) -> float:
    """
    :param student: a loaded agent
    :param temperature: temperature of the targets
    :return: the temperature that turns the student's outputs into probabilities: for students trained with a KL or NLL
        loss, whose outputs are logits, the student temperature of their training; for agents whose outputs are
        Q-values, the temperature of the targets; for actor-critic agents, 1
    """
    if isinstance(student, ActorCriticTeacher):
        return 1.0
    if student.algo != "pd":
        return temperature
    data = _saved_arguments(student)
    return temperature if data.get("loss") == "mse" else float(data.get("student_temperature", 1.0))


def targets_temperature(students: Sequence[Teacher]) -> float:
    """
    :param students: loaded agents
    :return: the temperature of the targets that all students were trained on; 0.01 (Rusu et al. 2015) if none was
        trained on targets with a temperature
    :raises ValueError: their temperatures differ
    """
    trained_at = {}
    for student in (student for student in students if student.algo in STUDENTS):
        data = _saved_arguments(student)
        if data.get("loss", "kl") in ("kl", "reverse_kl") and "temperature" in data:
            # That of qpd and ppd can be None: distributions are left as they are.
            trained_at[student.source] = 1.0 if data["temperature"] is None else float(data["temperature"])
    if len(set(trained_at.values())) > 1:
        found = ", ".join(f"{temperature:g} of {source}" for source, temperature in trained_at.items())
        raise ValueError(f"The students' targets have different temperatures ({found}): choose one with --temperature.")
    return next(iter(trained_at.values()), 0.01)


def _preferences(agent: Teacher, episode: Episode) -> th.Tensor:
    """An agent's one number per action, for its observations of one episode in their order."""
    observations = th.as_tensor(np.stack(episode.observations), device=agent.device)
    if not agent.has_memory:
        return agent.answer(observations)[0].preferences.cpu()
    state, found = None, []
    for step in range(len(observations)):
        answers, state = agent.answer(observations[step : step + 1], state, np.array([step == 0]))
        found.append(answers.preferences.cpu())
    return th.cat(found)


def plot_q_values(
    teacher: Teacher, students: Sequence[Teacher], episodes: Sequence[Episode], temperature: float
) -> Figure:
    """
    Figure 1 of Rusu et al. 2015: frames of a game, the teacher's outputs for all actions, the targets (their softmax
    with the temperature), and the students' probabilities.

    :param teacher: a DQN, QR-DQN or actor-critic agent
    :param students: agents with the same actions
    :param episodes: the episode from which the frames are chosen, from clear to unclear choices of the teacher: as it
        sees it, then as each student does
    :param temperature: temperature of the targets
    :return: the figure
    """
    episode = episodes[0]
    outputs = _preferences(teacher, episode)
    targets = (outputs / temperature).softmax(dim=1)
    order = np.argsort(-targets.max(dim=1).values.numpy(), kind="stable")
    moments = np.sort(order[np.linspace(0, len(order) - 1, _N_MOMENTS).round().astype(int)])
    answers = [("targets", targets)]
    names = distinct_names([student.source for student in students])
    for name, student, seen in zip(names, students, episodes[1:], strict=True):
        own = _preferences(student, seen)
        probabilities = (own / temperature_of(student, temperature)).softmax(dim=1)
        answers.append((f"{name} ({student.n_parameters:,})", probabilities))
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots(3, _N_MOMENTS, squeeze=False, height_ratios=[1.5, 1, 1])
    actions = np.arange(outputs.shape[1])
    for column, moment in enumerate(moments):
        axes[0, column].imshow(episode.frames[moment])
        axes[0, column].set_title(f"step {moment}", fontsize="medium")
        # Points instead of bars, because a Q-value of zero has no special meaning.
        axes[1, column].plot(actions, outputs[moment].numpy(), "o", color="0.3", markersize=4)
        width = 0.8 / len(answers)
        for index, (label, probabilities) in enumerate(answers):
            axes[2, column].bar(
                actions - 0.4 + (index + 0.5) * width,
                probabilities[moment].numpy(),
                width,
                **bar_style(index),
                label=label if column == 0 else None,
            )
        for row in (1, 2):
            # Label only some actions: the labels of 18 actions would overlap.
            axes[row, column].set_xticks(actions[:: 1 + (len(actions) - 1) // 6])
            axes[row, column].sharey(axes[row, 0])
            axes[row, column].tick_params(labelleft=column == 0)
            axes[row, column].spines[["top", "right"]].set_visible(False)
        axes[2, column].set_xlabel("action")
    lowest, highest = float(outputs[moments].min()), float(outputs[moments].max())
    margin = 0.1 * (highest - lowest) or 1.0
    for column in range(_N_MOMENTS):
        axes[0, column].set_axis_off()
    axes[1, 0].set_ylim(lowest - margin, highest + margin)
    axes[2, 0].set_ylim(0, 1)
    axes[1, 0].set_ylabel("teacher's\noutput")
    axes[2, 0].set_ylabel(f"probability,\nτ = {temperature:g}")
    add_legend(figure, below=True)
    return figure


def plot_sizes(rows: Sequence[Row], size: str | None = None) -> Figure:
    """
    Figure 3 of Rusu et al. 2015 and figure 1 of Avé et al. 2022: the percentage of the teacher's score over the size,
    with its 95% interval; of several games the geometric mean over them.

    :param rows: results of ``sb3-distill evaluate -o FILE.json``, or of studies
    :param size: "n_parameters" or "n_bytes"; None: bytes where students differ in their bits, else parameters
    :return: the figure
    :raises ValueError: no row has a percentage of the teacher's score, or nothing tells which rows of several games
        belong together
    """
    rows = check_rows(rows)
    if size is None:
        # More sizes in bytes than numbers of parameters: some of these have several precisions.
        by_bits = len({(row.n_parameters, row.n_bytes) for row in rows}) > len({row.n_parameters for row in rows})
        size = "n_bytes" if by_bits else "n_parameters"
    percent = percent_label(row.percent_definition for row in rows)
    percent += "\n(geometric mean over games)" * (rows[0].env == GEOMETRIC_MEAN)
    figure, axes = make_axes({"n_parameters": "parameters", "n_bytes": "bytes"}[size], percent)
    # One series has scores of one kind, all measured in the same way.
    conditions = [conditions_of(row) for row in rows]
    names = dict.fromkeys(name for own in conditions for name in own)
    differing = [name for name in names if len({str(own.get(name) or "") for own in conditions}) > 1]
    series: dict[str, list[Row]] = {}
    # Seeds of one kind have one text, at their mean.
    texts: dict[tuple[str, float, str], list[float]] = {}
    for row, own, text in zip(rows, conditions, name_points(rows), strict=True):
        label = describe({"algo": row.algo, **{name: str(own.get(name) or "") for name in differing}})
        series.setdefault(label, []).append(row)
        texts.setdefault((label, float(getattr(row, size)), text), []).append(float(row.percent_of_teacher or 0.0))
    for index, (label, members) in enumerate(series.items()):
        chosen = sorted(members, key=lambda row: getattr(row, size))
        axes.errorbar(
            [getattr(row, size) for row in chosen],
            np.array([row.percent_of_teacher for row in chosen], dtype=float),
            np.transpose([_percent_errors(row) for row in chosen]),
            **marker_style(index),
            linestyle="none",
            capsize=2,
            label=label,
        )
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    for row in rows:
        if row.taught_by == row.agent and row.mean and row.mean_interval:
            # The teacher itself, whose score has an interval, too
            axes.axhspan(*(100 + 100 * (end - row.mean) / abs(row.mean) for end in row.mean_interval), **_TEACHER)
    scale_by_size(axes)
    points = [(float(getattr(row, size)), float(row.percent_of_teacher or 0.0)) for row in rows]
    clip_outliers(axes, points, [100.0, *(end for row in rows for end in row.percent_interval)])
    add_legend(figure)
    label_points(axes, [(x, float(np.mean(percents)), text) for (_, x, text), percents in texts.items()])
    return figure


def name_points(rows: Sequence[Row]) -> list[str]:
    """
    :param rows: rows of one figure
    :return: what tells each apart in few words: the labels of a study in which they differ, such as width and bits,
        else the agent's name
    """
    known = dict.fromkeys(name for row in rows for name in row.labels)
    labels = [name for name in known if len({str(row.labels.get(name)) for row in rows}) > 1]
    said = [" ".join(str(row.labels[name]) for name in labels if name in row.labels) for row in rows]
    return [text or name for text, name in zip(said, distinct_names([row.agent for row in rows]), strict=True)]


def _percent_errors(row: Row) -> tuple[float, float]:
    """How far the 95% interval extends below and above the row's percentage of the teacher's score."""
    assert row.percent_of_teacher is not None
    if row.percent_interval:
        low, high = row.percent_interval
        return max(row.percent_of_teacher - low, 0.0), max(high - row.percent_of_teacher, 0.0)
    if row.percent_definition or not row.mean_interval:
        # There is no interval: the agent counts as 100% itself, or there are too few episodes.
        return 0.0, 0.0
    # Files of earlier versions have the interval of the student's mean alone.
    assert row.mean is not None and row.teacher_mean is not None
    mean, distance = row.mean, row.mean - row.teacher_mean
    # Percentage per point of return. It is computed from the row itself, because percentages of tasks are relative to a
    # random player's score.
    per_point = abs((row.percent_of_teacher - 100.0) / distance) if distance else 100.0 / abs(row.teacher_mean)
    low, high = (abs(end - mean) * per_point for end in row.mean_interval)
    return low, high


def check_rows(rows: Sequence[Row]) -> list[Row]:
    """
    :param rows: rows of results
    :return: the rows that have a percentage of the teacher's score; of multi-task agents, only the geometric mean; of
        several games, the geometric means over them
    :raises ValueError: there is no such row, or nothing tells which rows of several games belong together
    """
    chosen = [row for row in rows if row.percent_of_teacher is not None and row.task in (None, GEOMETRIC_MEAN)]
    if not chosen:
        raise ValueError("No row has a percentage of the teacher's score: evaluate with the teacher (--teacher).")
    games = list(dict.fromkeys(row.env for row in rows))
    return over_games(chosen, games) if len(games) > 1 else chosen


def plot_bars(rows: Sequence[Row], by: str) -> Figure:
    """
    Comparison of losses or other settings: bars show the mean percentage of the teacher's score over runs that differ
    in their seed alone, points show single runs. What else the runs differ in stands below the bars.

    :param rows: results of a study, or of ``sb3-distill evaluate``
    :param by: the field to compare by, such as "loss"
    :return: the figure
    :raises ValueError: a row does not have the field, or no row has a percentage of the teacher's score
    """
    compared = [row for row in rows if row.percent_of_teacher is not None]
    contents = [{**row.settings, **row.conditions, **row.to_dict()} for row in compared]
    known = sorted(set.intersection(*map(set, contents))) if contents else []
    if by not in known:
        said = unknown_choice("field to compare by", by, known) if known else "no row has a percentage of a teacher"
        raise ValueError(f"The results cannot be compared: {said}")
    names, groups = group_alike(compared, list(dict.fromkeys(["env", by])))
    labels = [name for row in compared for name in row.labels]
    # What all bars have in common need not stand below each of them.
    shared = {name for name, values in zip(names, zip(*groups, strict=True), strict=True) if len(set(values)) == 1}
    below = [name for name in names if name != by and name not in shared] or ["env"]
    bars = []
    for key, members in groups.items():
        facts = dict(zip(names, key, strict=True))
        percents = [row.percent_of_teacher for row in members if row.percent_of_teacher is not None]
        place = tuple(describe({name: facts[name]}, labels) for name in below)
        bars.append(Bar(place, facts[by], percents, members[0].percent_definition))
    return draw_bars(bars, by)
