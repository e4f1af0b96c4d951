"""Scores of a multi-task student while it learns."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from stable_baselines3.common.callbacks import BaseCallback

from sb3_distill.agents.files import BEST_MODEL
from sb3_distill.common.utils import show_whole_keys
from sb3_distill.evaluation.play import Score
from sb3_distill.evaluation.players import Player, RandomPlayer
from sb3_distill.evaluation.tasks import format_tasks, score_task, score_tasks
from sb3_distill.mtpd.teachers import MultiTaskTeacher, find_task_teachers, load_teachers
from sb3_distill.results.statistics import geometric_mean, normalized_percent


class TaskEvaluation(TypedDict):
    """One entry of ``MultiTaskDistillation.evaluations``: the student at one task."""

    n_timesteps: int
    n_updates: int
    task: str
    mean_reward: float
    std_reward: float
    percent: float


# By teachers and by how they played, the scores of the teachers and of the random player, each by task
TaskReferences = dict[Hashable, tuple[dict[str, Score], dict[str, Score]]]


class TaskEvalCallback(BaseCallback):
    """
    Scores the teachers and a random player at their tasks before training, and the student every so many steps and at
    the end.

    Logs ``teacher/<task>``, ``eval/<task>``, ``eval_percent/<task>`` and ``eval/geometric_mean_percent``; appends to
    ``evaluations``.

    :param eval_freq: steps of the environment between two evaluations; -1: only at the end
    :param n_eval_episodes: episodes of each task
    :param epsilon: share of uniformly random actions
    :param teacher: the teachers
    :param evaluations: gets one entry per evaluation and task
    :param references: keeps the scores of teachers and random player from one call of ``learn`` to the next
    :param verbose: Verbosity level
    """

    # A ``MultiTaskDistillation``
    model: Any

    def __init__(
        self,
        eval_freq: int,
        n_eval_episodes: int,
        epsilon: float,
        teacher: MultiTaskTeacher,
        evaluations: list[TaskEvaluation],
        references: TaskReferences,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.eval_freq = eval_freq
        self.n_eval_episodes = n_eval_episodes
        self.epsilon = epsilon
        self.teacher = teacher
        self.evaluations = evaluations
        self.references = references
        self.scores: dict[str, Score] | None = None
        self.mean_percent: float | None = None

    def _score(self, player: Player) -> dict[str, Score]:
        # Teacher and student may see other keys.
        tasks = self.teacher.tasks if player is self.teacher else self.model.tasks
        return score_tasks(tasks, player, self.n_eval_episodes, self.epsilon, self._seed)

    def _on_training_start(self) -> None:
        self._seed = (self.model.seed or 0) + 1_000_000
        self._last_evaluation = self.num_timesteps
        show_whole_keys(self.logger, [task.name for task in self.teacher.tasks])
        key = (*self.teacher.sha256.items(), self.n_eval_episodes, self.epsilon, self._seed)
        if key not in self.references:
            self.references[key] = (
                self._score(self.teacher),
                {
                    task.name: score_task(task, RandomPlayer(task.n_actions), self.n_eval_episodes, 0.0, self._seed)
                    for task in self.model.tasks
                },
            )
        self.teacher_scores, self.random_scores = self.references[key]
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
            self.evaluations.append(
                {
                    "n_timesteps": self.num_timesteps,
                    "n_updates": self.model._n_updates,
                    "task": name,
                    "mean_reward": score.mean,
                    "std_reward": score.std,
                    "percent": percents[-1],
                }
            )
        self.mean_percent = geometric_mean(percents)
        self.logger.record("eval/geometric_mean_percent", self.mean_percent)
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)


class BestOfTasksCallback(TaskEvalCallback):
    """
    Evaluates an agent of several tasks while it learns (``mtpd`` or ``mtdqn``), and keeps the model with the highest
    geometric mean of its percentages of the tasks' teachers. (An ``EvalCallback`` would take that with the highest mean
    return, which is that of the task with the largest rewards.)

    :param best_model_save_path: folder in which ``best_model.zip`` is written
    :param eval_freq: steps of the environment between two evaluations; the last one is at the end
    :param n_eval_episodes: episodes of each task
    :param epsilon: share of uniformly random actions
    :param teachers: by name of the task, the agent that counts as 100%; None: the Zoo's agents
    :param verbose: Verbosity level
    """

    def __init__(
        self,
        best_model_save_path: str | Path,
        eval_freq: int,
        n_eval_episodes: int = 10,
        epsilon: float = 0.0,
        teachers: Mapping[str, str] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(eval_freq, n_eval_episodes, epsilon, MultiTaskTeacher({}, []), [], {}, verbose)
        self.best_model_save_path = Path(best_model_save_path)
        self.teachers = teachers
        self.best_mean_percent: float | None = None

    def _init_callback(self) -> None:
        tasks = self.model.tasks
        sources = self.teachers or find_task_teachers(tasks)
        self.teacher = MultiTaskTeacher(load_teachers(sources, tasks, self.model.device), tasks)

    def _evaluate(self) -> None:
        super()._evaluate()
        assert self.mean_percent is not None
        if self.best_mean_percent is None or self.mean_percent > self.best_mean_percent:
            self.best_mean_percent = self.mean_percent
            self.model.save(self.best_model_save_path / BEST_MODEL)
