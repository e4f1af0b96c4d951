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


def read_masks(action_masks: Any, n: int, action_space: spaces.Space) -> np.ndarray:
    """
    :param action_masks: which actions are allowed, as a user passes it to ``predict``
    :param n: number of observations
    :param action_space: the actions
    :return: the same as an array of bool ``(n, n_actions)``
    :raises ValueError: the actions are continuous, the masks have another shape, or one of them allows no action
    """
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(f"action_masks are for Discrete actions, and the agent's are {action_space}: leave them out.")
    shape = n, int(action_space.n)
    try:
        masks = np.asarray(action_masks)
    except (ValueError, TypeError):
        # Lists of different lengths
        masks = np.empty(0, dtype=object)
    if masks.dtype.kind not in "biuf" or not np.isin(masks, (0, 1)).all():
        raise ValueError(
            f"action_masks must be an array of bool {shape}, true for each action that is allowed, not "
            f"{action_masks!r:.200}."
        )
    if masks.shape != shape and (n, *masks.shape) != (1, *shape[1:]):
        raise ValueError(
            f"action_masks have the shape {masks.shape}, and must have {shape}: for each observation, true for each "
            "action that is allowed."
        )
    masks = masks.reshape(shape).astype(bool)
    if not masks.any(axis=1).all():
        row = int((~masks.any(axis=1)).argmax())
        raise ValueError(f"action_masks[{row}] allows no action: at least one must be allowed.")
    return masks


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
        :raises ValueError: the masks are not what they should be, see ``read_masks``
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
        masks = None if action_masks is None else read_masks(action_masks, n_observations(obs), self.action_space)
        answers, state = self.answer(obs, state, episode_start)
        if masks is not None:
            answers = answers.masked(masks)
        if rngs is None:
            return answers.greedy(self.action_space), state
        actions = answers.sample(rngs, self.action_space)
        if isinstance(self.action_space, spaces.Box):
            actions = actions.reshape(-1, *self.action_space.shape)
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return actions, state
