"""The teacher's score, with which its students' scores are compared: played elsewhere, by the rule of that score."""

import warnings
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.utils import counted, setting, unchanged_randomness
from sb3_distill.envs.copies import CopyError, copy_env
from sb3_distill.envs.inspection import env_id_of
from sb3_distill.envs.views import Keys, ObservationView
from sb3_distill.evaluation.players import masks_for, mix_random_actions

# Mean and standard deviation of the returns
TeacherScore = tuple[float, float]


@dataclass(frozen=True)
class PlayRule:
    """
    How actions are chosen while a score is made.

    :param sampled: whether actions are drawn from the player's distribution, and not greedy
    :param epsilon: share of uniformly random actions
    """

    sampled: bool
    epsilon: float

    def __str__(self) -> str:
        chosen = "sampled actions" if self.sampled else "greedy actions"
        return f"{chosen}, {100 * self.epsilon:g}% random" if self.epsilon > 0 else chosen


class TeacherReferences:
    """
    The scores of a model's teacher: one for each environment, rule, number of episodes and seed, played once, in a copy
    of the environment.

    :param verbose: Verbosity level
    :param teacher_keys: the keys of a Dict observation that the teacher sees; None: all of them
    """

    def __init__(self, verbose: int = 0, teacher_keys: Keys = None) -> None:
        # Number of episodes for each score (0: nothing is played), and the seed of the starts and of the actions
        self.n_episodes = 0
        self.seed = 0
        self.verbose = verbose
        self.teacher_keys = teacher_keys
        self._scores: dict[Hashable, TeacherScore | None] = {}

    def protocol(self, rule: PlayRule) -> dict[str, Any]:
        """
        :param rule: how actions are chosen
        :return: everything on which a score depends, besides the teacher and the environment
        """
        return {"n_episodes": self.n_episodes, "seed": self.seed, **asdict(rule)}

    @staticmethod
    def describe(env: VecEnv, rule: PlayRule) -> str:
        """
        :param env: the environment
        :param rule: how actions are chosen
        :return: both in a few words
        """
        return f"{env_id_of(env) or type(_game_of(env).unwrapped).__name__}, {rule}"

    def score(self, teacher: Teacher, env: VecEnv, rule: PlayRule) -> TeacherScore | None:
        """
        :param teacher: the teacher
        :param env: where the student's score is made; the teacher plays in a copy of it
        :param rule: how the student's score is made
        :return: the teacher's score; None if it is not played, or the environment cannot be copied
        :raises ValueError: the score is not a finite number
        """
        key = self._key(teacher, env, rule)
        if key not in self._scores:
            if self.n_episodes == 0:
                return None
            described = self.describe(env, rule)
            self._scores[key] = score = self._play(teacher, env, rule, described)
            if score is not None and self.verbose > 0:
                print(
                    f"Teacher ({teacher.source}): mean reward {score[0]:.2f} +/- {score[1]:.2f} "
                    f"({counted(self.n_episodes, 'episode')} of {described})"
                )
        return self._scores[key]

    def keep(self, teacher: Teacher, env: VecEnv, rule: PlayRule, score: TeacherScore) -> None:
        """
        Keep a score that was played earlier, so that it is not played again.

        :param teacher: the teacher
        :param env: where it was played: this environment and no other
        :param rule: how it was played
        :param score: the score
        """
        self._scores[self._key(teacher, env, rule)] = score

    def _key(self, teacher: Teacher, env: VecEnv, rule: PlayRule) -> Hashable:
        return teacher.sha256, _game_of(env), rule, self.n_episodes, self.seed

    def _play(self, teacher: Teacher, env: VecEnv, rule: PlayRule, described: str) -> TeacherScore | None:
        try:
            copied = ObservationView(copy_env(env), teacher_keys=self.teacher_keys)
        except CopyError as error:
            warnings.warn(
                f"The teacher's score is not measured, since {described.partition(',')[0]} cannot be "
                f"copied for it ({error}): register the environment with Gymnasium, or make it one that copy.deepcopy "
                f"copies, in a DummyVecEnv; or pass {setting('n_teacher_episodes', '0')}."
            )
            return None
        try:
            copied.show_teacher(teacher.observation_space)
            copied.seed(self.seed)
            player = ReferencePlayer(teacher, copied, rule, self.seed)
            with unchanged_randomness(), th.random.fork_rng():
                th.manual_seed(self.seed)
                mean, std = evaluate_policy(player, copied, self.n_episodes, warn=False)
        finally:
            copied.close()
        if not np.isfinite(mean):
            raise ValueError(
                f"The teacher's mean reward over {counted(self.n_episodes, 'episode')} is {mean}: a reward of the "
                "environment is not a finite number, so no score can be measured in it. Correct the environment."
            )
        return float(mean), float(std)  # type: ignore[arg-type]


class ReferencePlayer:
    """
    The teacher, acting by a rule.

    :param teacher: the teacher
    :param view: the environment in which it plays
    :param rule: how it acts
    :param seed: seed of the random actions
    """

    def __init__(self, teacher: Teacher, view: ObservationView, rule: PlayRule, seed: int) -> None:
        self.teacher = teacher
        self.view = view
        self.rule = rule
        self.rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, but the rule decides how actions are chosen."""
        masks = masks_for(self.teacher, self.view)
        seen = self.view.teacher_obs(observation)
        actions, state = self.teacher.predict(seen, state, episode_start, not self.rule.sampled, **masks)
        if isinstance(self.view.action_space, spaces.Discrete):
            n_actions = int(self.view.action_space.n)
            actions = mix_random_actions(actions, n_actions, self.rule.epsilon, self.rng, **masks)
        return actions, state


def _game_of(env: VecEnv) -> Any:
    """What stays the same where the same game is wrapped again, as EvalCallback does."""
    base = env.unwrapped
    return base.envs[0] if isinstance(base, DummyVecEnv) else base
