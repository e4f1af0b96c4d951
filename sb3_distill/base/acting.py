"""Actions of students with discrete actions: epsilon-greedy, or drawn from a softmax."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sb3_distill.base.reference import PlayRule
from sb3_distill.common.answers import Answers
from sb3_distill.common.utils import check_probability, unknown_choice
from sb3_distill.evaluation.players import mix_random_actions

EPSILON_GREEDY, SOFTMAX = "epsilon_greedy", "softmax"


class EpsilonGreedyMixin:
    """
    Mixin of algorithms whose teacher and student act epsilon-greedily on discrete actions. With
    ``student_exploration="softmax"``, the student samples its policy instead while it collects steps.
    """

    policy: Any
    action_space: Any
    teacher_eps: float
    student_eps: float
    student_exploration: str
    student_temperature: float
    _rollout_rng: np.random.Generator
    _student_actions: Callable[[Any, np.ndarray | None], np.ndarray]
    _own_part: Callable[[Any], Any]

    def _check_acting(self) -> None:
        """Check the arguments that say how the student acts."""
        check_probability("student_eps", self.student_eps)
        choices = [EPSILON_GREEDY, SOFTMAX]
        if self.student_exploration not in choices:
            raise ValueError(unknown_choice("student_exploration", self.student_exploration, choices))

    def _student_rule(self) -> PlayRule:
        """How the student acts in training episodes."""
        # A teacher with Q-values has no distribution to draw from: a student that samples is compared with greedy play.
        return PlayRule(False, 0.0 if self.student_exploration == SOFTMAX else self.student_eps)

    def _choose_actions(self, answers: Any, obs: Any, teacher_acts: np.ndarray) -> np.ndarray:
        actions, allowed = answers.preferences.cpu().numpy().argmax(axis=1), answers.allowed
        if not teacher_acts.all():
            actions = np.where(teacher_acts, actions, self._student_actions(obs, allowed))
        epsilon = np.where(teacher_acts, self.teacher_eps, self._student_rule().epsilon)
        return mix_random_actions(actions, self._n_actions_of(obs), epsilon, self._rollout_rng, allowed)

    def _policy_actions(self, obs: Any, rng: np.random.Generator, allowed: np.ndarray | None = None) -> np.ndarray:
        is_greedy = self.student_exploration == EPSILON_GREEDY
        if is_greedy and allowed is None:
            return self.policy.predict(obs, deterministic=True)[0]
        answers = self.policy.answer(self.policy.obs_to_tensor(obs)[0])
        if allowed is not None:
            answers = answers.masked(allowed)
        if is_greedy:
            return answers.greedy(self.action_space)
        outputs = answers.preferences / self.student_temperature
        return Answers(log_probs=outputs).sample([rng] * len(outputs))

    def _n_actions_of(self, obs: Any) -> int | np.ndarray:
        """Number of available actions: one number for all observations, or one for each observation."""
        return int(self.action_space.n)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Get the student's action. With ``deterministic=False``, the action is uniformly random with probability
        ``student_eps`` (Rusu et al. 2015 evaluate with 5%).

        :param observation: the input observation
        :param state: unused (recurrent policies only)
        :param episode_start: unused (recurrent policies only)
        :param deterministic: Whether or not to return deterministic actions
        :return: the model's action and the next state
        """
        observation = self._own_part(observation)
        actions, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            is_random = np.random.random_sample(np.shape(actions)) < self.student_eps
            random_actions = np.random.randint(self._n_actions_of(observation), size=np.shape(actions))
            actions = np.where(is_random, random_actions, actions)
        return actions, state
