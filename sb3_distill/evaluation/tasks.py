"""Scores a multi-task player on every task, in the task's own environment, and computes the geometric mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.multitask import Task, pad_last_axis
from sb3_distill.envs.recipe import default_recipe
from sb3_distill.envs.views import ObservationView
from sb3_distill.evaluation.play import Score, evaluate_paired
from sb3_distill.evaluation.players import Player
from sb3_distill.results.comparison import Pairs, geometric_mean_interval, percent_interval
from sb3_distill.results.statistics import FORMULAS, GEOMETRIC_MEAN, NORMALIZED, geometric_mean, quotient_percent
from sb3_distill.results.tables import format_spread, format_table, interval_text


class TaskPlayer:
    """
    Lets a multi-task player play one task in the task's own environment: adds padding and task index to the
    observations.

    :param player: the multi-task player
    :param task: index of the task
    :param lengths: by key ("obs" if observations are no Dict), the length of the last axis after padding; parts without
        one are not padded
    """

    def __init__(self, player: Player, task: int, lengths: Mapping[str, int]) -> None:
        self.player = player
        self.task = task
        self.lengths = lengths

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, on a batch."""
        parts = dict(observation) if isinstance(observation, dict) else {"obs": observation}
        for key, length in self.lengths.items():
            parts[key] = pad_last_axis(parts[key], length)
        tasks = np.full(len(next(iter(parts.values()))), self.task)
        return self.player.predict({**parts, "task": tasks}, state, episode_start, deterministic)


def score_task(task: Task, player: Player, n_episodes: int, epsilon: float, seed: int) -> Score:
    """
    :param task: the task
    :param player: a player for observations of the task's own environment
    :param n_episodes: number of episodes
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode; with the same seed, all players get the same starts and random actions
    :return: the returns
    """
    recipe = default_recipe(task.env_id, task.observation_space)

    def make_env(n_envs: int) -> VecEnv:
        venv = make_eval_env(task.env_id, n_envs, recipe)
        return venv if task.keys is None else ObservationView(venv, task.keys)

    return evaluate_paired(player, make_env, n_episodes, epsilon, seed)


def score_tasks(
    tasks: Sequence[Task], player: Player, n_episodes: int, epsilon: float = 0.0, seed: int = 0
) -> dict[str, Score]:
    """
    :param tasks: the tasks of the multi-task player
    :param player: a multi-task model, policy or teacher
    :param n_episodes: number of episodes per task
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode
    :return: by name of the task, the returns
    """
    parts = [task.parts for task in tasks]
    lengths = {
        key: max(own[key].shape[-1] for own in parts) for key in parts[0] if len({own[key].shape for own in parts}) > 1
    }
    return {
        task.name: score_task(task, TaskPlayer(player, index, lengths), n_episodes, epsilon, seed)
        for index, task in enumerate(tasks)
    }


def pair_tasks(
    scores: Mapping[str, Score], teachers: Mapping[str, Score], randoms: Mapping[str, Score]
) -> dict[str, Pairs]:
    """
    :param scores: the student's scores, by task
    :param teachers: the teachers' scores, by task, from the same starts
    :param randoms: the random player's scores, by task
    :return: the episodes in pairs, by task, for the normalized per cent
    """
    return {name: Pairs.of(score, teachers[name], randoms[name].mean) for name, score in scores.items()}


def task_interval(
    scores: Mapping[str, Score], teachers: Mapping[str, Score], randoms: Mapping[str, Score]
) -> tuple[float, float, float]:
    """
    :param scores: the student's scores, by task
    :param teachers: the teachers' scores, by task
    :param randoms: the random player's scores, by task
    :return: the geometric mean of the normalized scores, and the bounds of its 95% confidence interval
    """
    return geometric_mean_interval({name: [pairs] for name, pairs in pair_tasks(scores, teachers, randoms).items()})


def task_quotients(scores: Mapping[str, Score], teachers: Mapping[str, Score]) -> dict[str, float | None]:
    """
    :param scores: the student's scores, by task
    :param teachers: the teachers' scores, by task
    :return: by task, and for ``GEOMETRIC_MEAN``, the percentage of the teacher as Rusu et al. 2015 have it: the
        quotient of the scores. None where the teacher's score is not positive; the mean leaves these tasks out.
    """
    quotients = {name: quotient_percent(score.mean, teachers[name].mean) for name, score in scores.items()}
    quotients[GEOMETRIC_MEAN] = geometric_mean(list(quotients.values()))
    return {name: None if np.isnan(quotient) else quotient for name, quotient in quotients.items()}


def format_tasks(scores: Mapping[str, Score], teachers: Mapping[str, Score], randoms: Mapping[str, Score]) -> str:
    """
    :param scores: the student's scores, by task
    :param teachers: the teachers' scores, by task
    :param randoms: the random player's scores, by task
    :return: a table with one line per task, and the geometric mean; below it, what the percentages are
    """
    rows = [["task", "random", "teacher", "student", "normalized % (95%)", "quotient %"]]
    quotients = {
        name: "-" if quotient is None else f"{quotient:.1f}"
        for name, quotient in task_quotients(scores, teachers).items()
    }
    paired = pair_tasks(scores, teachers, randoms)
    for name, pairs in paired.items():
        cells = [format_spread(player[name].mean, player[name].std) for player in (randoms, teachers, scores)]
        percent = "-" if np.isnan(pairs.percent) else f"{pairs.percent:.1f}{interval_text(percent_interval(pairs))}"
        rows.append([name, *cells, percent, quotients[name]])
    mean, *interval = task_interval(scores, teachers, randoms)
    unknown = [name for name, pairs in paired.items() if np.isnan(pairs.percent)]
    label = f"{GEOMETRIC_MEAN}, without {', '.join(unknown)}" if unknown else GEOMETRIC_MEAN
    rows.append([label, "", "", "", f"{mean:.1f}{interval_text(interval)}", quotients[GEOMETRIC_MEAN]])
    return (
        f"{format_table(rows, n_left=1)}\nnormalized %: {FORMULAS[NORMALIZED]}\n"
        "quotient %: 100 score / teacher, where the teacher's score is positive; the mean is over these tasks"
    )
