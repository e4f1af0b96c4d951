"""Players: objects with the ``predict`` method of SB3's models."""

from typing import Any, Protocol

import numpy as np

from sb3_distill.envs.views import ObservationView


class Player(Protocol):
    """Anything with the ``predict`` method of SB3's models: a model, a policy, a teacher."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]: ...


class EpsilonGreedy:
    """
    Replaces a share of a player's greedy actions by uniformly random ones.

    :param player: the player
    :param n_actions: number of discrete actions
    :param epsilon: probability of a random action, drawn for each environment and step
    :param seed: seed of the random actions
    """

    def __init__(self, player: Player, n_actions: int, epsilon: float, seed: int | None = None) -> None:
        self.player = player
        self.n_actions = n_actions
        self.epsilon = epsilon
        self.rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``; with ``deterministic=True``, no action is random."""
        actions, state = self.player.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            actions = mix_random_actions(actions, self.n_actions, self.epsilon, self.rng)
        return actions, state


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


class SeesAsTeacher:
    """
    Wraps a player that takes the teacher's observations, so that it can play in the student's environment.

    :param player: the player
    :param view: the environment in which it plays
    """

    def __init__(self, player: Player, view: ObservationView) -> None:
        self.player = player
        self.view = view

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``."""
        return self.player.predict(self.view.teacher_obs(observation), state, episode_start, deterministic)


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
