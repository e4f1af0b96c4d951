"""Players: objects with the ``predict`` method of SB3's models."""

from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.envs.inspection import action_masks_of


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


def needs_masks(player: Any) -> bool:
    """
    :param player: who plays
    :return: whether it acts within action masks: it was trained so
    """
    return getattr(player, "needs_masks", False)


def masks_for(player: Any, venv: VecEnv, always: bool = False) -> dict[str, Any]:
    """
    :param player: who plays
    :param venv: where
    :param always: whether it acts within masks in any case
    :return: the argument ``action_masks`` of its ``predict``, if it acts within masks
    """
    return {"action_masks": action_masks_of(venv)} if always or needs_masks(player) else {}


def mix_random_actions(
    actions: np.ndarray,
    n_actions: int | np.ndarray,
    epsilon: float | np.ndarray,
    rng: np.random.Generator,
    action_masks: np.ndarray | None = None,
) -> np.ndarray:
    """
    :param actions: discrete actions, ``(n_envs,)``
    :param n_actions: number of discrete actions, or one for each environment
    :param epsilon: probability with which each action is replaced by a uniformly random one
    :param rng: random generator; the number of draws does not depend on epsilon
    :param action_masks: which actions are allowed ``(n_envs, n_actions)``; None: all of them
    :return: the mixed actions
    """
    is_random = rng.random(np.shape(actions)) < epsilon
    if action_masks is None:
        return np.where(is_random, rng.integers(n_actions, size=np.shape(actions)), actions)
    drawn = rng.integers(action_masks.sum(axis=-1), size=np.shape(actions))
    # Those that are allowed come first.
    order = np.argsort(~action_masks, axis=-1, kind="stable")
    return np.where(is_random, np.take_along_axis(order, np.asarray(drawn)[..., None], axis=-1)[..., 0], actions)
