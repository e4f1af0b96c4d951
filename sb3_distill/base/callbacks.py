"""The callback that logs every score of a student as a percentage of its teacher's score."""

from collections.abc import Iterator

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    ConvertCallback,
    EvalCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean

from sb3_distill.agents.agent import Teacher
from sb3_distill.envs.views import ObservationView, frozen_statistics
from sb3_distill.evaluation.players import EpsilonGreedy, Player, SeesAsTeacher
from sb3_distill.results.statistics import percent_of_teacher


def list_callbacks(callback: MaybeCallback) -> list[BaseCallback]:
    """
    :param callback: None, a callback, a function, or a list of them
    :return: the callbacks
    """
    callbacks = callback if isinstance(callback, list) else [] if callback is None else [callback]
    return [item if isinstance(item, BaseCallback) else ConvertCallback(item) for item in callbacks]


def find_eval_callbacks(callback: BaseCallback) -> Iterator[EvalCallback]:
    """
    :param callback: a callback or a list of them
    :return: the evaluation callbacks in it
    """
    if isinstance(callback, EvalCallback):
        yield callback
    elif isinstance(callback, CallbackList):
        for child in callback.callbacks:
            yield from find_eval_callbacks(child)


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


class TeacherReferenceCallback(BaseCallback):
    """
    Scores the teacher before the student's first step, and logs the student's later scores as a percentage of the
    teacher's.

    The teacher plays where the student will be evaluated: on the environment of the run's ``EvalCallback``, with the
    student's share of random actions. Without an ``EvalCallback`` it plays on the training environment.

    Logs ``teacher/{mean_reward,std_reward}``, ``eval/percent_of_teacher`` and ``rollout/percent_of_teacher``.

    :param teacher: the teacher
    :param epsilon: the student's share of random actions when it is evaluated with ``deterministic=False``
    :param n_eval_episodes: number of episodes that the teacher plays
    :param siblings: the run's other callbacks
    :param known_score: mean and standard deviation of the teacher's return, if known: then the teacher does not play
    :param verbose: Verbosity level
    """

    def __init__(
        self,
        teacher: Teacher,
        epsilon: float,
        n_eval_episodes: int,
        siblings: list[BaseCallback],
        known_score: tuple[float, float] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.teacher = teacher
        self.epsilon = epsilon
        self.n_eval_episodes = n_eval_episodes
        self.siblings = siblings
        self.score = known_score

    @property
    def mean_reward(self) -> float | None:
        """The teacher's mean return, None if it has not been measured."""
        return None if self.score is None else self.score[0]

    def _on_training_start(self) -> None:
        self.eval_callbacks = [found for sibling in self.siblings for found in find_eval_callbacks(sibling)]
        if self.score is None and self.n_eval_episodes > 0:
            self.score = self._play()
        if self.score is not None:
            self.logger.record("teacher/mean_reward", self.score[0])
            self.logger.record("teacher/std_reward", self.score[1])
            if self.verbose > 0:
                print(f"Teacher ({self.teacher.source}): mean reward {self.score[0]:.2f} +/- {self.score[1]:.2f}")

    def _play(self) -> tuple[float, float]:
        if self.eval_callbacks:
            env, deterministic = self.eval_callbacks[0].eval_env, self.eval_callbacks[0].deterministic
        else:
            env, deterministic = self.training_env, True
        player: Player = self.teacher
        if isinstance(self.model.action_space, spaces.Discrete):
            n_actions = int(self.model.action_space.n)
            player = EpsilonGreedy(self.teacher, n_actions, self.epsilon, self.model.seed)
        with frozen_statistics(env):
            mean_reward, std_reward = evaluate_policy(
                SeesAsTeacher(player, ObservationView(env)),
                env,
                self.n_eval_episodes,
                deterministic=deterministic,
                warn=False,
            )
        if not self.eval_callbacks:
            # The teacher has played in the training environment: reset it for the student.
            self.model._last_obs = self.training_env.reset()  # type: ignore[assignment]
            self.model._last_episode_starts = np.ones(self.training_env.num_envs, dtype=bool)
        if not np.isfinite(mean_reward):
            raise ValueError(
                f"The teacher's mean reward over {self.n_eval_episodes} episodes is {mean_reward}: a reward of the "
                "environment is not a finite number, so no score can be measured in it. Correct the environment."
            )
        return float(mean_reward), float(std_reward)  # type: ignore[arg-type]

    def _on_step(self) -> bool:
        if self.mean_reward is None:
            return True
        for callback in self.eval_callbacks:
            if callback.eval_freq > 0 and callback.n_calls % callback.eval_freq == 0:
                percent = percent_of_teacher(callback.last_mean_reward, self.mean_reward)
                self.logger.record("eval/percent_of_teacher", percent)
                if self.verbose > 0:
                    print(f"Eval num_timesteps={self.num_timesteps}, {percent:.1f}% of the teacher")
        return True

    def log_rollout(self) -> None:
        """Record the mean return of the last training episodes as a percentage of the teacher's."""
        episodes = self.model.ep_info_buffer
        if self.mean_reward is not None and episodes:
            mean_return = safe_mean([episode["r"] for episode in episodes])
            self.logger.record("rollout/percent_of_teacher", percent_of_teacher(mean_return, self.mean_reward))
