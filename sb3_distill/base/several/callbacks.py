"""Evaluates and writes the further students of a run."""

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    StopTrainingOnNoModelImprovement,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_distill.base.callbacks import find_eval_callbacks
from sb3_distill.base.several.runs import write_student_run
from sb3_distill.common.files import whole_file
from sb3_distill.common.utils import show_whole_keys, unchanged_randomness
from sb3_distill.envs.copies import CopyError, copy_env
from sb3_distill.envs.inspection import monitor_folder
from sb3_distill.results.statistics import percent_of_teacher


class StudentsEvalCallback(BaseCallback):
    """
    Evaluates the further students after every evaluation of an ``EvalCallback``, as it evaluates the first: as many
    episodes, in a copy of its environment, all students from the same starts.

    Logs ``eval/<name>_mean_reward`` and, where the teacher's score is known, ``eval/<name>_percent_of_teacher``. Where
    the ``EvalCallback`` keeps the first student's best model, those of the further students are kept in their folders.

    :param writer: writes the students and their evaluations
    """

    parent: EvalCallback

    def __init__(self, writer: "StudentsCallback") -> None:
        super().__init__()
        self.writer = writer
        # As in SB3's evaluations.npz, by student
        self.timesteps: list[int] = []
        self.results: dict[str, list[list[float]]] = {}
        self.ep_lengths: dict[str, list[list[int]]] = {}
        self.best_mean_rewards: dict[str, float] = {}

    def _on_step(self) -> bool:
        model: Any = self.model
        show_whole_keys(self.logger, [f"{name}_percent_of_teacher" for name in model.students])
        score = None if model._reference is None else model._reference.evaluation_scores.get(self.parent)
        self.timesteps.append(self.num_timesteps)
        best = []
        for name in model.students:
            returns, lengths = self._play(model.student_model(name), (model.seed or 0) + 1_000_000 + self.num_timesteps)
            self.results.setdefault(name, []).append(returns)
            self.ep_lengths.setdefault(name, []).append(lengths)
            mean = float(np.mean(returns))
            self.logger.record(f"eval/{name}_mean_reward", mean)
            if mean > self.best_mean_rewards.get(name, -np.inf):
                self.best_mean_rewards[name] = mean
                best.append(name)
            if score is not None:
                self.logger.record(f"eval/{name}_percent_of_teacher", percent_of_teacher(mean, score[0]))
            if self.parent.verbose > 0:
                print(f"Eval num_timesteps={self.num_timesteps}, {name}: {mean:.2f}")
        # The EvalCallback has written its own row already.
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
        self.writer.write(best if self.writer.keeper is self else ())
        return True

    def _play(self, student: Any, seed: int) -> tuple[list[float], list[int]]:
        parent = self.parent
        try:
            env = copy_env(parent.eval_env)
        except CopyError:
            # What the first student plays next then depends on its siblings.
            env = parent.eval_env
        try:
            env.seed(seed)
            with unchanged_randomness():
                np.random.seed(seed % 2**32)
                played: Any = evaluate_policy(
                    student,
                    env,
                    parent.n_eval_episodes,
                    parent.deterministic,
                    return_episode_rewards=True,
                    warn=False,
                )
        finally:
            if env is not parent.eval_env:
                env.close()
        return played

    def save_evaluations(self, name: str, folder: Path) -> None:
        """
        :param name: name of a student
        :param folder: where ``evaluations.npz`` is written, as an ``EvalCallback`` writes it
        """
        if name in self.results:
            with whole_file(folder / "evaluations.npz") as file:
                np.savez(
                    file,
                    timesteps=self.timesteps,
                    results=self.results[name],
                    ep_lengths=self.ep_lengths[name],
                )


class StudentsCallback(BaseCallback):
    """
    Writes the further students into the run's folder, ``students/<name>/``, with every evaluation and at the end. The
    folder is that of the Monitor files, else that of the evaluations; where there is none, nothing is written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.evaluations: list[StudentsEvalCallback] = []
        self.folder: Path | None = None

    def _on_training_start(self) -> None:
        folders = (each.parent.log_path or each.parent.best_model_save_path for each in self.evaluations)
        named = next((Path(folder) for folder in folders if folder is not None), None)
        # SB3 appends "evaluations" to the log_path that it is given.
        if named is not None and named.name == "evaluations":
            named = named.parent
        self.folder = monitor_folder(self.training_env) or named
        if self.folder is None and isinstance(self.training_env.unwrapped, SubprocVecEnv):
            warnings.warn(
                "The Monitor's folder is not known for environments in other processes, and no EvalCallback has a "
                "log_path: the further students are not written. Save them with student_model(name).save(path)."
            )

    @property
    def keeper(self) -> StudentsEvalCallback | None:
        """The evaluations by which best models are kept."""
        return next((each for each in self.evaluations if each.parent.best_model_save_path is not None), None)

    def write(self, best: Collection[str] = ()) -> None:
        """
        Write all further students as they are now.

        :param best: names of those that are also kept as their best models
        """
        if self.folder is None:
            return
        model: Any = self.model
        for name in model.students:
            path = write_student_run(model, name, self.folder, is_best=name in best)
            for evaluations in self.evaluations[:1]:
                evaluations.save_evaluations(name, path.parent)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.write()


def evaluate_students_too(callbacks: list[BaseCallback]) -> StudentsCallback:
    """
    Let every ``EvalCallback`` evaluate the further students after the first.

    :param callbacks: the run's callbacks
    :return: the callback that writes the students
    """
    writer = StudentsCallback()
    for callback in (found for item in callbacks for found in find_eval_callbacks(item)):
        known = callback.callback
        present = known.callbacks if isinstance(known, CallbackList) else [known] if known is not None else []
        # The same callback may be passed to learn() again: its evaluations go on.
        own = next((each for each in present if isinstance(each, StudentsEvalCallback)), None)
        if own is None:
            own = StudentsEvalCallback(writer)
            callback.callback = CallbackList([own, *present])
            callback.callback.parent = callback
        own.writer, own.parent = writer, callback
        writer.evaluations.append(own)
    return writer


def forget_best(callbacks: Sequence[BaseCallback], heading: str) -> None:
    """
    Let a student's best model be chosen anew, from the evaluations to come: those so far were of another precision.

    :param callbacks: the run's callbacks, and all that they call
    :param heading: under which the student's updates are logged: the name of a further student, "train" for the first
    """
    for callback in callbacks:
        if isinstance(callback, StudentsEvalCallback):
            callback.best_mean_rewards.pop(heading, None)
        elif isinstance(callback, EvalCallback) and heading == "train":
            callback.best_mean_reward = -np.inf
        elif isinstance(callback, StopTrainingOnNoModelImprovement) and heading == "train":
            callback.last_best_mean_reward, callback.no_improvement_evals = -np.inf, 0
