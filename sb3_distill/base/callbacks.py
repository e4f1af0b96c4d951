"""Callbacks of the algorithms: scores as a percentage of the teacher's, and the statistics of saved models."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EventCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import BEST_STATISTICS
from sb3_distill.base.reference import PlayRule, TeacherReferences, TeacherScore
from sb3_distill.common.files import whole_file
from sb3_distill.results.statistics import percent_of_teacher


def list_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """
    :param callback: None, a callback, a function, or a list of them
    :return: the callbacks
    """
    callbacks = callback if isinstance(callback, list) else [] if callback is None else [callback]
    return [item if isinstance(item, BaseCallback) else ConvertCallback(item) for item in callbacks]


def walk_callbacks(callback: BaseCallback) -> Iterator[BaseCallback]:
    """
    :param callback: a callback
    :return: it, and all callbacks that it calls
    """
    yield callback
    children: list[BaseCallback | None] = list(callback.callbacks) if isinstance(callback, CallbackList) else []
    if isinstance(callback, EventCallback):
        children = [callback.callback, getattr(callback, "callback_on_new_best", None)]
    for child in (child for child in children if child is not None):
        yield from walk_callbacks(child)


def find_eval_callbacks(callback: BaseCallback) -> Iterator[EvalCallback]:
    """
    :param callback: a callback, a list of them, or one that calls others
    :return: the evaluation callbacks in it that evaluate at all
    """
    for found in walk_callbacks(callback):
        if isinstance(found, EvalCallback) and found.eval_freq > 0:
            yield found


def save_statistics(vec_normalize: VecNormalize, path: Path) -> None:
    """
    Save the statistics of ``VecNormalize`` as its own ``save`` does, in a file that appears whole or not at all.

    :param vec_normalize: the wrapper
    :param path: the file
    :raises OSError: the file cannot be written
    """
    with whole_file(path) as file:
        pickle.dump(vec_normalize, file)


def save_best_statistics(vec_normalize: VecNormalize | None, folder: Path) -> None:
    """
    :param vec_normalize: the wrapper whose statistics belong to a best model; None: there is none
    :param folder: folder of the best model
    :raises OSError: the file cannot be written
    """
    path = folder / BEST_STATISTICS
    if vec_normalize is None:
        # Those of an earlier run in the same folder
        path.unlink(missing_ok=True)
    else:
        save_statistics(vec_normalize, path)


class BestStatisticsCallback(BaseCallback):
    """
    Keeps the statistics of ``VecNormalize`` with the best model that an ``EvalCallback`` saves (it is called on a new
    best). The run goes on changing its own.

    :param folder: folder of the best model
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _on_step(self) -> bool:
        save_best_statistics(self.model.get_vec_normalize_env(), self.folder)
        return True


def keep_statistics(callbacks: list[BaseCallback]) -> None:
    """
    Let every model that is saved during a run have the statistics of ``VecNormalize`` of its own moment beside it.

    :param callbacks: the run's callbacks
    """
    for callback in (found for item in callbacks for found in walk_callbacks(item)):
        if isinstance(callback, CheckpointCallback):
            # Our save writes them, whole.
            callback.save_vecnormalize = False
        elif isinstance(callback, EvalCallback) and callback.best_model_save_path is not None:
            known = callback.callback_on_new_best
            present = known.callbacks if isinstance(known, CallbackList) else [known] if known is not None else []
            # The same callback may be passed to learn() again.
            if not any(isinstance(item, BestStatisticsCallback) for item in present):
                own = BestStatisticsCallback(Path(callback.best_model_save_path))
                callback.callback_on_new_best = CallbackList([own, *present])
                callback.callback_on_new_best.parent = callback


class UpdateProgressBar(ProgressBarCallback):
    """SB3's progress bar that also shows, every hundred updates, the progress within a long series of updates."""

    def show_updates(self, n_done: int, n_updates: int) -> None:
        """
        :param n_done: number of updates of this series that are done
        :param n_updates: number of updates in this series
        """
        if n_done % 100 == 0:
            self.pbar.set_description_str(f"update {n_done:,} of {n_updates:,}")

    def _on_step(self) -> bool:
        if self.pbar.desc:
            self.pbar.set_description_str("")
        return super()._on_step()


class PercentOfTeacherWriter(KVWriter):
    """
    Adds ``eval/percent_of_teacher`` to every row of the log that has ``eval/mean_reward``. It stands before the other
    writers of the logger, because an EvalCallback writes its row at once and leaves no moment to record more.

    :param references: the evaluation callbacks, each with the teacher's score that belongs to it
    :param verbose: Verbosity level
    """

    def __init__(self, references: list[tuple[EvalCallback, TeacherScore | None]], verbose: int = 0) -> None:
        self.references = references
        self.verbose = verbose
        # The call in which each of them wrote its last row
        self.written = [0] * len(references)

    def put_first(self, logger: Logger) -> None:
        """Become the first writer of a logger, in the place of one that an interrupted run has left."""
        self.leave(logger)
        logger.output_formats.insert(0, self)

    @staticmethod
    def leave(logger: Logger) -> None:
        """Take every writer of this kind from a logger."""
        writers = logger.output_formats
        writers[:] = [writer for writer in writers if not isinstance(writer, PercentOfTeacherWriter)]

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """As SB3's writers; adds to ``key_values``."""
        if "eval/mean_reward" not in key_values:
            return
        for index, (callback, score) in enumerate(self.references):
            is_due = callback.n_calls % callback.eval_freq == 0
            if not is_due or self.written[index] == callback.n_calls:
                continue
            self.written[index] = callback.n_calls
            if score is not None:
                percent = percent_of_teacher(callback.last_mean_reward, score[0])
                key_values["eval/percent_of_teacher"], key_excluded["eval/percent_of_teacher"] = percent, ()
                if self.verbose > 0:
                    print(f"Eval num_timesteps={step}, {percent:.1f}% of the teacher")
            return

    def close(self) -> None:
        """Nothing is open."""


class TeacherReferenceCallback(BaseCallback):
    """
    Scores the teacher before the student's first step, and logs the student's later scores as a percentage of the
    teacher's. Each of the student's scores has a reference of its own, which the teacher plays by the same rule in a
    copy of the same environment: the evaluations of every ``EvalCallback``, and the training episodes.

    Logs ``teacher/{mean_reward,std_reward,rule}`` (of the first evaluations, else of the training episodes),
    ``eval/percent_of_teacher`` and ``rollout/percent_of_teacher``.

    :param references: plays and keeps the teacher's scores
    :param teacher: the teacher
    :param siblings: the run's other callbacks
    :param evaluation_rule: how the student acts when it is evaluated, by ``deterministic``
    :param rollout_rules: how the student and how the teacher act in training episodes; the same rule twice if only one
        of them acts
    :param teacher_share: probability that the teacher acts, as a function of the remaining progress
    :param verbose: Verbosity level
    """

    def __init__(
        self,
        references: TeacherReferences,
        teacher: Teacher,
        siblings: list[BaseCallback],
        evaluation_rule: Callable[[bool], PlayRule],
        rollout_rules: tuple[PlayRule, PlayRule],
        teacher_share: Callable[[float], float],
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.references = references
        self.teacher = teacher
        self.siblings = siblings
        self.evaluation_rule = evaluation_rule
        self.rollout_rules = rollout_rules
        self.teacher_share = teacher_share
        # The first reference, and how it was played
        self.score: TeacherScore | None = None
        self.rule: str | None = None

    @property
    def mean_reward(self) -> float | None:
        """The teacher's mean return, None if it has not been measured."""
        return None if self.score is None else self.score[0]

    def _on_training_start(self) -> None:
        callbacks = [callback for sibling in self.siblings for callback in find_eval_callbacks(sibling)]
        plays = [(callback.eval_env, self.evaluation_rule(callback.deterministic)) for callback in callbacks]
        plays += [(self.training_env, rule) for rule in self.rollout_rules]
        scores = [self.references.score(self.teacher, env, rule) for env, rule in plays]
        self.rollout_scores = scores[len(callbacks) :]
        self.evaluation_scores = dict(zip(callbacks, scores, strict=False))
        PercentOfTeacherWriter(list(zip(callbacks, scores, strict=False)), self.verbose).put_first(self.logger)
        for (env, rule), score in zip(plays, scores, strict=True):
            if score is not None:
                self.score, self.rule = score, self.references.describe(env, rule)
                self.logger.record("teacher/mean_reward", score[0])
                self.logger.record("teacher/std_reward", score[1])
                self.logger.record("teacher/rule", self.rule)
                break

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        PercentOfTeacherWriter.leave(self.logger)

    def log_rollout(self) -> None:
        """Record the mean return of the last training episodes as a percentage of the teacher's."""
        student, teacher = self.rollout_scores
        episodes = self.model.ep_info_buffer
        if student is None or teacher is None or not episodes:
            return
        # Exact where one of the two acts alone; in between, what lies between their two references
        expected = student[0] + self.teacher_share(self.model._current_progress_remaining) * (teacher[0] - student[0])
        mean_return = safe_mean([episode["r"] for episode in episodes])
        self.logger.record("rollout/percent_of_teacher", percent_of_teacher(mean_return, expected))
