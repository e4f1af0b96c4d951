"""Players: objects with the ``predict`` method of SB3's models."""

from typing import Any, Protocol

import numpy as np


class Player(Protocol):
    """Anything with the ``predict`` method of SB3's models: a model, a policy, a teacher."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]: ...


class RandomPlayer:
    """
    Takes uniformly random actions.

    :param n_actions: number of actions
    :param seed: seed of the actions
    """

    def __init__(self, n_actions: int, seed: int = 0) -> None:
        self.n_actions = n_actions
        self.rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, on a batch."""
        return self.rng.integers(self.n_actions, size=len(observation)), None


def mix_random_actions(
    actions: np.ndarray, n_actions: int | np.ndarray, epsilon: float | np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """
    :param actions: discrete actions, ``(n_envs,)``
    :param n_actions: number of discrete actions, or one for each environment
    :param epsilon: probability with which each action is replaced by a uniformly random one
    :param rng: random generator; the number of draws does not depend on epsilon
    :return: the mixed actions
    """
    is_random = rng.random(np.shape(actions)) < epsilon
    return np.where(is_random, rng.integers(n_actions, size=np.shape(actions)), actions)
