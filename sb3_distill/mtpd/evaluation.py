"""Scores of one player at several tasks, each in its own environment, and their geometric mean."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_distill.common.evaluation import Player, RandomPlayer, Score, evaluate_paired, is_atari, make_eval_env
from sb3_distill.common.multitask import Task, pad_last_axis
from sb3_distill.common.statistics import geometric_mean, geometric_mean_interval
from sb3_distill.common.tables import format_table
from sb3_distill.mtpd.teachers import MultiTaskTeacher

if TYPE_CHECKING:
    from sb3_distill.mtpd.mtpd import MultiTaskDistillation


class TaskPlayer:
    """
    A multi-task player at one task: takes the observations that the task's own environment gives.

    :param player: the multi-task player
    :param task: index of the task
    :param length: length of the last axis after padding; None where nothing is padded
    """

    def __init__(self, player: Player, task: int, length: int | None = None) -> None:
        self.player = player
        self.task = task
        self.length = length

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, on a batch."""
        if self.length is not None:
            observation = pad_last_axis(observation, self.length)
        tasks = np.full(len(observation), self.task)
        return self.player.predict({"obs": observation, "task": tasks}, state, episode_start, deterministic)


def score_task(task: Task, player: Player, n_episodes: int, epsilon: float, seed: int) -> Score:
    """
    :param task: the task
    :param player: takes the task's own observations
    :param n_episodes: number of episodes
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode: the same starts and random actions for every player
    :return: the returns
    """
    frame_stack = task.observation_space.shape[0] if is_atari(task.env_id) else 1
    return evaluate_paired(
        player, lambda n_envs: make_eval_env(task.env_id, n_envs, frame_stack), n_episodes, epsilon, seed
    )


def score_tasks(
    tasks: Sequence[Task], player: Player, n_episodes: int, epsilon: float = 0.0, seed: int = 0
) -> dict[str, Score]:
    """
    :param tasks: the tasks of the multi-task player
    :param player: a multi-task model, policy or teacher
    :param n_episodes: episodes of each task
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode
    :return: the returns at each task, by its name
    """
    lengths = {task.observation_space.shape[-1] for task in tasks}
    length = max(lengths) if len(lengths) > 1 else None
    return {
        task.name: score_task(task, TaskPlayer(player, index, length), n_episodes, epsilon, seed)
        for index, task in enumerate(tasks)
    }


def normalized_percent(score: float, teacher: float, random: float) -> float:
    """
    ``100 (score - random) / (teacher - random)``: scores of games such as Pong are negative for a bad player, and a
    quotient of them says nothing.

    :param score: the student's mean return
    :param teacher: the teacher's
    :param random: that of uniformly random actions
    :return: 100 where the student plays as the teacher, 0 where it plays at random; NaN where the teacher is no better
        than that, and so no measure
    """
    if teacher <= random:
        return float("nan")
    return 100.0 * (score - random) / (teacher - random)


def task_interval(
    scores: Mapping[str, Score], teachers: Mapping[str, Score], randoms: Mapping[str, Score]
) -> tuple[float, float, float]:
    """
    :param scores: the student's, by task
    :param teachers: the teachers'
    :param randoms: the random player's
    :return: the geometric mean of the normalised scores, and the ends of its 95% interval
    """
    return geometric_mean_interval(
        {name: score.returns for name, score in scores.items()},
        {name: score.returns for name, score in teachers.items()},
        lambda name, score, teacher: normalized_percent(score, teacher, randoms[name].mean),
    )


def format_tasks(scores: Mapping[str, Score], teachers: Mapping[str, Score], randoms: Mapping[str, Score]) -> str:
    """
    :param scores: the student's, by task
    :param teachers: the teachers'
    :param randoms: the random player's
    :return: a table with one line per task, and the geometric mean
    """
    rows = [["task", "random", "teacher", "student", "% of teacher"]]
    for name, score in scores.items():
        percent = normalized_percent(score.mean, teachers[name].mean, randoms[name].mean)
        cells = [f"{player[name].mean:.2f} ± {player[name].std:.2f}" for player in (randoms, teachers, scores)]
        rows.append([name, *cells, "-" if np.isnan(percent) else f"{percent:.1f}"])
    mean, low, high = task_interval(scores, teachers, randoms)
    rows.append(["geometric mean", "", "", "", f"{mean:.1f} ({low:.1f} to {high:.1f})"])
    return format_table(rows, n_left=1)


class TaskEvalCallback(BaseCallback):
    """
    Scores the teachers and a random player at their tasks before training, and the student every so many steps and at
    the end.

    Logs ``teacher/<task>``, ``eval/<task>``, ``eval_percent/<task>`` and ``eval/geometric_mean_percent``; appends to
    ``model.evaluations``.

    :param eval_freq: steps of the environment between two evaluations; -1: only at the end
    :param n_eval_episodes: episodes of each task
    :param epsilon: share of uniformly random actions
    :param teacher: the teachers
    :param verbose: Verbosity level
    """

    model: "MultiTaskDistillation"

    def __init__(
        self, eval_freq: int, n_eval_episodes: int, epsilon: float, teacher: MultiTaskTeacher, verbose: int = 0
    ) -> None:
        super().__init__(verbose)
        self.eval_freq = eval_freq
        self.n_eval_episodes = n_eval_episodes
        self.epsilon = epsilon
        self.teacher = teacher
        self.scores: dict[str, Score] | None = None

    def _score(self, player: Player) -> dict[str, Score]:
        return score_tasks(self.teacher.tasks, player, self.n_eval_episodes, self.epsilon, self._seed)

    def _on_training_start(self) -> None:
        self._seed = (self.model.seed or 0) + 1_000_000
        self._last_evaluation = self.num_timesteps
        self.teacher_scores = self._score(self.teacher)
        self.random_scores = {
            task.name: score_task(task, RandomPlayer(task.n_actions), self.n_eval_episodes, 0.0, self._seed)
            for task in self.teacher.tasks
        }
        for name, score in self.teacher_scores.items():
            self.logger.record(f"teacher/{name}", score.mean)

    def _on_step(self) -> bool:
        if 0 < self.eval_freq <= self.num_timesteps - self._last_evaluation:
            self._evaluate()
        return True

    def _on_training_end(self) -> None:
        if self.scores is None or self._last_evaluation != self.num_timesteps:
            self._evaluate()
        if self.verbose > 0:
            assert self.scores is not None
            print(format_tasks(self.scores, self.teacher_scores, self.random_scores))

    def _evaluate(self) -> None:
        self._last_evaluation = self.num_timesteps
        self.model.policy.set_training_mode(False)
        self.scores = scores = self._score(self.model.policy)
        percents = []
        for name, score in scores.items():
            percents.append(
                normalized_percent(score.mean, self.teacher_scores[name].mean, self.random_scores[name].mean)
            )
            self.logger.record(f"eval/{name}", score.mean)
            self.logger.record(f"eval_percent/{name}", percents[-1])
            self.model.evaluations.append(
                {
                    "n_timesteps": self.num_timesteps,
                    "n_updates": self.model._n_updates,
                    "task": name,
                    "mean_reward": score.mean,
                    "std_reward": score.std,
                    "percent": percents[-1],
                }
            )
        self.logger.record("eval/geometric_mean_percent", geometric_mean(percents))
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
