"""Actions that follow from an agent's answers, within masks of what is allowed if there are some."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_distill.common.answers import Answers


def n_observations(obs: PyTorchObs) -> int:
    """
    :param obs: a batch of observations
    :return: how many they are
    """
    return len(next(iter(obs.values())) if isinstance(obs, dict) else obs)


class ActingByAnswers(ABC):
    """Mixin of agents: how actions are chosen from ``answer``."""

    policy: Any

    @property
    @abstractmethod
    def action_space(self) -> spaces.Space:
        """The agent's actions."""

    @abstractmethod
    def answer(
        self, obs: PyTorchObs, state: Any = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, Any]:
        """See ``Teacher.answer``."""

    def sample(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        rngs: Sequence[np.random.Generator],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """
        Draw actions as ``predict(deterministic=False)`` does, but those of each environment with a generator of its
        own: they do not depend on the other environments.

        :param observation: a batch of raw observations
        :param rngs: one generator for each observation
        :param state: the state that the last call returned; None for an agent without memory
        :param episode_start: where an episode begins
        :param action_masks: which discrete actions are allowed ``(batch, n_actions)``; None: all of them
        :return: the actions and the next state
        """
        return self._choose(self.policy.obs_to_tensor(observation)[0], rngs, state, episode_start, action_masks)

    def _act_by_answers(
        self, observation: Any, state: Any, episode_start: Any, deterministic: bool, action_masks: Any = None
    ) -> tuple[np.ndarray, Any]:
        """As ``predict``, with actions that follow from ``answer``."""
        obs, is_batch = self.policy.obs_to_tensor(observation)
        rngs = None
        if not deterministic:
            rngs = [np.random.default_rng(int(th.randint(2**31, (1,))))] * n_observations(obs)
        actions, state = self._choose(obs, rngs, state, episode_start, action_masks)
        return actions if is_batch else actions[0], state

    def _choose(
        self, obs: PyTorchObs, rngs: Any, state: Any, episode_start: Any, action_masks: Any
    ) -> tuple[np.ndarray, Any]:
        answers, state = self.answer(obs, state, episode_start)
        if action_masks is not None:
            answers = answers.masked(action_masks)
        if rngs is None:
            return answers.greedy(self.action_space), state
        actions = answers.sample(rngs, self.action_space)
        if isinstance(self.action_space, spaces.Box):
            actions = actions.reshape(-1, *self.action_space.shape)
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return actions, state
