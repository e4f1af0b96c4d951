"""Learning curves as files, tables and figures."""

import csv
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict, cast
from zipfile import BadZipFile

import numpy as np
from matplotlib.figure import Figure

from sb3_distill.common.files import write_whole
from sb3_distill.reading.arrays import read_npz
from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import MAX_ARRAY_BYTES, MAX_DATA_BYTES
from sb3_distill.results.comparison import t_interval
from sb3_distill.results.figures import add_legend, line_style, make_axes, save_figure
from sb3_distill.results.statistics import (
    FORMULAS,
    SIGNED_QUOTIENT,
    Interval,
    percent_of_teacher,
    quotient_percent,
    sample_std,
)
from sb3_distill.results.tables import format_table

# The teacher's name among the players
TEACHER = "teacher"
# And the name of its highest evaluation until then
BEST_SO_FAR = "teacher, best so far"
CURVES_FILE = "learning_curves.csv"
# A player's score is the mean over this many last evaluations.
N_LAST = 10
# A point of the curve of training episodes is the mean over this many episodes.
_WINDOW = 20


class Evaluation(TypedDict):
    """One entry of ``RealTimeDistillDQN.evaluations``, and one line of ``learning_curves.csv``."""

    n_updates: int
    n_timesteps: int
    player: str
    mean_reward: float
    std_reward: float
    min_reward: float
    max_reward: float
    n_episodes: int


@dataclass(frozen=True)
class PlayerSummary:
    """
    A player's learning curve in a few numbers.

    :param player: "teacher" or the name of a student
    :param max: the highest mean return of an evaluation
    :param max_percent: ``max`` as a percentage of the teacher's
    :param last: the mean over the last 10 evaluations
    :param last_percent: ``last`` as a percentage of the teacher's
    :param last_quotient: the mean, over the last 10 evaluations, of the percentage of the teacher's score in the same
        evaluation (the quotient), as Sun & Fazli 2019 report it; NaN if the teacher's score is not positive in one
    :param last_std: sample standard deviation over the last 10 evaluations, a measure of stability; NaN for one alone
    """

    player: str
    max: float
    max_percent: float
    last: float
    last_percent: float
    last_quotient: float
    last_std: float


@dataclass(frozen=True)
class Curve:
    """
    Mean returns over the steps of a run.

    :param steps: numbers of steps
    :param returns: the mean return at each of them
    :param seen: the lowest and the highest return of a single episode, where these are known
    """

    steps: np.ndarray
    returns: np.ndarray
    seen: Interval = (-np.inf, np.inf)


def curve_of(
    evaluations: Sequence[Evaluation],
    player: str,
    field: Literal["mean_reward", "n_updates", "n_timesteps"] = "mean_reward",
) -> np.ndarray:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :param player: "teacher" or the name of a student
    :param field: a field of the entries
    :return: the field's values for this player, one per evaluation
    """
    return np.array([entry[field] for entry in evaluations if entry["player"] == player])


def players_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :return: the players that were evaluated, the teacher first
    """
    return list(dict.fromkeys(entry["player"] for entry in evaluations))


def summarize_players(evaluations: Sequence[Evaluation]) -> list[PlayerSummary]:
    """
    Table 1 of Sun & Fazli 2019: for each player, the highest score and the mean of the last 10 evaluations, both also
    as a percentage of the teacher's (the signed quotient), and the mean of the last 10 percentages.

    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :return: one summary per player
    """
    teacher = curve_of(evaluations, TEACHER)
    teacher_last = float(teacher[-N_LAST:].mean())
    summaries = []
    for player in players_of(evaluations):
        curve = curve_of(evaluations, player)
        highest, last = float(curve.max()), float(curve[-N_LAST:].mean())
        summaries.append(
            PlayerSummary(
                player,
                highest,
                percent_of_teacher(highest, float(teacher.max())),
                last,
                percent_of_teacher(last, teacher_last),
                float(np.mean([*map(quotient_percent, curve[-N_LAST:], teacher[-N_LAST:])])),
                sample_std(list(curve[-N_LAST:])),
            )
        )
    return summaries


def format_summary(evaluations: Sequence[Evaluation]) -> str:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :return: the result of ``summarize_players`` as a table, and what its percentages are
    """
    n_last = min(N_LAST, len(curve_of(evaluations, TEACHER)))
    header = ["player", "max", "max, %", f"mean of last {n_last}", "%", "mean of %", f"std of last {n_last}"]
    rows = [
        [
            summary.player,
            f"{summary.max:.2f}",
            f"{summary.max_percent:.1f}",
            f"{summary.last:.2f}",
            f"{summary.last_percent:.1f}",
            "-" if np.isnan(summary.last_quotient) else f"{summary.last_quotient:.1f}",
            "" if np.isnan(summary.last_std) else f"{summary.last_std:.2f}",
        ]
        for summary in summarize_players(evaluations)
    ]
    table = format_table([header, *rows], n_left=1)
    return (
        f"{table}\n%: of the teacher, the {SIGNED_QUOTIENT} {FORMULAS[SIGNED_QUOTIENT]}\n"
        f"mean of %: the mean of 100 score / teacher over the last {n_last} evaluations"
    )


def write_csv(evaluations: Sequence[Evaluation], path: Path) -> None:
    """
    :param evaluations: ``RealTimeDistillDQN.evaluations``
    :param path: file to write, one line per evaluation and player
    :raises OSError: it cannot be written
    """
    buffer = io.StringIO()
    # Evaluations of earlier versions have no lowest and highest return.
    writer = csv.DictWriter(buffer, list(Evaluation.__annotations__), restval="nan")
    writer.writeheader()
    writer.writerows(evaluations)
    write_whole(path, buffer.getvalue())


def read_csv(path: Path) -> list[Evaluation]:
    """
    :param path: a file that ``write_csv`` wrote
    :return: the evaluations, with all numbers as floats
    :raises ValueError: it is damaged
    """
    content = io.StringIO(read_file(path, MAX_DATA_BYTES).decode("utf-8"), newline="")
    try:
        entries = [
            {name: value if name == "player" else float(value) for name, value in line.items()}
            for line in csv.DictReader(content)
        ]
        if not all({"player", "mean_reward", "n_timesteps"} <= entry.keys() for entry in entries):
            raise ValueError("no player, mean_reward or n_timesteps")
    except (csv.Error, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of evaluations ({error}).") from error
    return cast(list[Evaluation], entries)


def read_curves(run: Path) -> dict[str, Curve]:
    """
    :param run: a run folder
    :return: the curves of its evaluations: by player for a real-time run, and the best so far of the teacher; under the
        name "" for the evaluations of the Zoo; empty if the run has not been evaluated
    :raises ValueError: the Zoo's evaluations are damaged
    """
    if (run / CURVES_FILE).is_file():
        evaluations = read_csv(run / CURVES_FILE)
        curves = {
            player: Curve(
                curve_of(evaluations, player, "n_timesteps"), curve_of(evaluations, player), _seen(evaluations, player)
            )
            for player in players_of(evaluations)
        }
        if TEACHER in curves and len(curves) > 1:
            # Beside students in figure 5 of Rusu et al. 2015, where they follow this network
            best = np.maximum.accumulate(curves[TEACHER].returns)
            curves = {BEST_SO_FAR: replace(curves[TEACHER], returns=best), **curves}
        return curves
    path = run / "evaluations.npz"
    if not path.is_file():
        return {}
    try:
        data = read_npz(path, MAX_DATA_BYTES)
        steps, returns = data["timesteps"], data["results"]
        if steps.ndim != 1 or returns.ndim != 2 or len(steps) != len(returns) or not returns.size:
            raise ValueError(f"{steps.shape} steps and {returns.shape} returns do not fit")
        return {"": Curve(steps.astype(float), returns.astype(float).mean(axis=1), (returns.min(), returns.max()))}
    except (KeyError, ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} holds no evaluations: {error}. Delete it to see the training episodes, or train again."
        ) from error


def _seen(evaluations: Sequence[Evaluation], player: str) -> Interval:
    """The lowest and the highest return of an episode, as far as the file has them."""
    own = [entry for entry in evaluations if entry["player"] == player]
    low, high = (np.array([entry.get(name, np.nan) for entry in own]) for name in ("min_reward", "max_reward"))
    return (-np.inf, np.inf) if np.isnan([low, high]).any() else (float(low.min()), float(high.max()))


def read_episodes(run: Path) -> Curve:
    """
    :param run: a run folder
    :return: the curve of its training episodes, a moving average over 20 episodes; steps are counted as in the Monitors
    :raises ValueError: the run has no training episodes
    """
    episodes = []
    for path in sorted(run.glob("*.monitor.csv")):
        # If the run has not finished, its last line may be incomplete.
        content = read_file(path, MAX_ARRAY_BYTES).decode("utf-8")
        lines = [line for line in content.splitlines(keepends=True)[1:] if line.endswith("\n")]
        try:
            episodes += [(float(row["t"]), float(row["l"]), float(row["r"])) for row in csv.DictReader(lines)]
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no table of episodes ({type(error).__name__}: {error}).") from error
    if not episodes:
        raise ValueError(f"{run} has no curve: no {CURVES_FILE}, evaluations.npz or monitor.csv with episodes.")
    episodes.sort()
    _, lengths, returns = np.array(episodes).T
    window = min(_WINDOW, len(returns))
    means = np.convolve(returns, np.full(window, 1 / window), mode="valid")
    return Curve(lengths.cumsum()[window - 1 :], means, (returns.min(), returns.max()))


def plot_curves(evaluations: Sequence[Evaluation], path: Path) -> None:
    """
    Draw the learning curves of the teacher (in light grey, with its best score so far as a dashed line) and students.

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
    add_legend(figure)
    save_figure(figure, path)


def average(curves: Sequence[Curve]) -> tuple[Curve, np.ndarray]:
    """
    :param curves: curves of runs that differ in their seed alone
    :return: their mean where all of them are known, and its 95% interval ``(2, n)``: Student's t, cut to the returns
        that were seen, because a game that ends at 500 has no mean above
    """
    first, last = max(curve.steps[0] for curve in curves), min(curve.steps[-1] for curve in curves)
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = steps[(first <= steps) & (steps <= last)]
    returns = np.array([np.interp(steps, curve.steps, curve.returns) for curve in curves])
    intervals = np.array([t_interval(column) for column in returns.T.tolist()], dtype=float).reshape(-1, 2)
    lowest, highest = zip(*(curve.seen for curve in curves), strict=True)
    return Curve(steps, returns.mean(axis=0)), intervals.T.clip(min(lowest), max(highest))


def plot_learning_curves(
    curves: Sequence[tuple[str, Curve]],
    teacher: Sequence[float] = (),
) -> Figure:
    """
    Figure 5 of Rusu et al. 2015: mean return over the steps of several runs. Curves of one name are of several seeds:
    they are pale, with their mean and its 95% interval.

    :param curves: each curve with its name in the legend
    :param teacher: the teacher's mean return, and if they are known the bounds of its 95% interval
    :return: the figure
    """
    figure, axes = make_axes("steps (thousands)", "mean return")
    if teacher:
        label = "teacher (band: 95%)" if len(teacher) == 3 else "teacher"
        axes.axhline(teacher[0], color="0.35", linewidth=1, label=label)
        if len(teacher) == 3:
            axes.axhspan(*teacher[1:], color="0.35", alpha=0.15, linewidth=0)
    names = list(dict.fromkeys(label for label, _ in curves))
    for index, name in enumerate(names):
        members, style, label = [curve for own, curve in curves if own == name], line_style(index), name
        if len(members) > 1:
            for curve in members:
                axes.plot(curve.steps / 1000, curve.returns, **style, linewidth=0.7, alpha=0.3)
            mean, band = average(members)
            label = f"{name}: mean of {len(members)} seeds"
            axes.fill_between(mean.steps / 1000, *band, color=style["color"], alpha=0.15, linewidth=0)
            members = [mean]
        (curve,) = members
        # A line with a single point is invisible without a marker.
        marker = "o" if len(curve.steps) == 1 else None
        axes.plot(curve.steps / 1000, curve.returns, **style, marker=marker, linewidth=1.5, label=label)
    if len(names) < len(curves):
        # What is pale means the same of every series.
        color = line_style(0)["color"] if len(names) == 1 else "0.35"
        axes.plot([], [], color=color, linewidth=0.7, alpha=0.5, label="a single seed")
        axes.fill_between([], [], color=color, alpha=0.15, linewidth=0, label="95% interval of the mean")
    add_legend(figure, below=True)
    return figure
