"""Scores that compare: teacher and students from the same starts, with the same random actions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize, VecTransposeImage

from sb3_distill.common.atari import native_atari
from sb3_distill.common.minatar import register_minatar
from sb3_distill.common.utils import percent_of_teacher

gym.register_envs(ale_py)
register_minatar()


class Player(Protocol):
    """Anything that acts as SB3's models do: a model, a policy, a teacher."""

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

    :param player: who acts
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
        """As SB3's ``predict``; ``deterministic=True`` takes no random actions."""
        actions, state = self.player.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            actions = mix_random_actions(actions, self.n_actions, self.epsilon, self.rng)
        return actions, state


class RandomPlayer:
    """
    Takes uniformly random actions.

    :param n_actions: number of actions
    :param seed: of the actions
    """

    def __init__(self, n_actions: int, seed: int = 0) -> None:
        self.n_actions = n_actions
        self.rng = np.random.default_rng(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, on a batch."""
        return self.rng.integers(self.n_actions, size=len(observation)), None


class BehindVecNormalize:
    """
    Gives a player that takes raw observations those of a normalised environment.

    :param player: who acts
    :param vec_normalize: the environment's wrapper
    """

    def __init__(self, player: Player, vec_normalize: VecNormalize) -> None:
        self.player = player
        self.vec_normalize = vec_normalize

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``."""
        raw = self.vec_normalize.unnormalize_obs(observation)
        return self.player.predict(raw, state, episode_start, deterministic)


def mix_random_actions(
    actions: np.ndarray, n_actions: int | np.ndarray, epsilon: float | np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """
    :param actions: discrete actions, ``(n_envs,)``
    :param n_actions: number of discrete actions, or one for each environment
    :param epsilon: probability with which each of them is replaced by a uniformly random one
    :param rng: source of randomness; draws the same amount whatever epsilon is
    :return: the mixed actions
    """
    is_random = rng.random(np.shape(actions)) < epsilon
    return np.where(is_random, rng.integers(n_actions, size=np.shape(actions)), actions)


def is_atari(env_id: str) -> bool:
    """
    :param env_id: a registered environment
    :return: whether it is an Atari game
    """
    return "AtariEnv" in str(gym.spec(env_id).entry_point)


def make_eval_env(
    env_id: str,
    n_envs: int = 1,
    frame_stack: int = 4,
    env_kwargs: dict[str, Any] | None = None,
    start_wrapper: Callable[[gym.Env], gym.Env] | None = None,
    native: bool = False,
) -> VecEnv:
    """
    The environment on which scores are measured: the Zoo's wrappers; Atari games whole (a lost life does not end the
    episode), with their own scores (rewards are not clipped), up to 30 no-ops at the start and, as registered, at most
    108,000 frames.

    :param env_id: a registered environment
    :param n_envs: how many of them
    :param frame_stack: number of stacked frames (Atari only)
    :param env_kwargs: passed to the environment's constructor
    :param start_wrapper: chooses where episodes of Atari games start, instead of the no-ops
    :param native: step Atari games in C++, where that is possible
    :return: a vector environment whose sub-environments carry a Monitor
    :raises ValueError: the environment does not take the arguments; ``native``, and it has no native counterpart
    """
    atari = is_atari(env_id)

    def make_env() -> gym.Env:
        try:
            env = gym.make(env_id, **(env_kwargs or {}))
        except TypeError as error:
            if not env_kwargs:
                raise
            raise ValueError(
                f"{env_id} does not take the arguments {env_kwargs} ({error}): say with --env-kwargs key:value which "
                "are meant."
            ) from error
        if not atari:
            return Monitor(env)
        noop_max = 30
        if start_wrapper is not None:
            env, noop_max = start_wrapper(env), 0
        return AtariWrapper(Monitor(env), noop_max, terminal_on_life_loss=False, clip_reward=False)

    venv: VecEnv = DummyVecEnv([make_env for _ in range(n_envs)])
    if atari:
        venv = VecTransposeImage(VecFrameStack(venv, frame_stack))
    if not native:
        return venv
    counterpart = native_atari(venv)
    if counterpart is None:
        raise ValueError(f"{env_id} cannot be stepped natively: only Atari games from their own starts can.")
    return counterpart


@dataclass
class Score:
    """
    Episode returns of one player.

    :param returns: undiscounted, unclipped return of each episode
    :param lengths: length of each episode, in steps of the environment (frames for Atari)
    """

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over the episodes."""
        return float(np.std(self.returns))

    def percent_of(self, teacher: "Score") -> float:
        """Mean return as a percentage of a teacher's, see ``percent_of_teacher``."""
        return percent_of_teacher(self.mean, teacher.mean)


def evaluate_paired(
    player: Player,
    make_env: Callable[[int], VecEnv],
    n_eval_episodes: int = 30,
    epsilon: float = 0.0,
    seed: int = 0,
    n_envs: int = 10,
    deterministic: bool = True,
) -> Score:
    """
    Play episodes whose starts and random actions depend on the seed alone, so that the scores of two players are
    paired: episode ``i`` resets its own sub-environment with ``seed + i``. Sampled actions depend on ``n_envs`` too.

    :param player: model, policy or teacher
    :param make_env: from a number of sub-environments to a vector environment with Monitors in it
    :param n_eval_episodes: number of episodes
    :param epsilon: share of uniformly random actions (0.05 in Rusu et al. 2015; discrete actions only)
    :param seed: seed of the first episode
    :param n_envs: episodes played side by side
    :param deterministic: whether the player acts greedily
    :return: the returns and lengths
    """
    score = Score()
    while len(score.returns) < n_eval_episodes:
        first = len(score.returns)
        batch = min(n_envs, n_eval_episodes - first)
        venv = make_env(batch)
        try:
            venv.seed(seed + first)
            # Sampled actions repeat too, and leave the caller's generator as it was.
            with th.random.fork_rng(enabled=not deterministic):
                if not deterministic:
                    th.manual_seed(seed + first)
                episodes = _play_batch(player, venv, epsilon, seed + first, deterministic)
        finally:
            venv.close()
        score.returns += [episode["r"] for episode in episodes]
        score.lengths += [episode["l"] for episode in episodes]
    return score


def _play_batch(player: Player, venv: VecEnv, epsilon: float, seed: int, deterministic: bool) -> list[dict[str, Any]]:
    """One episode in every sub-environment; those that ended early play on unobserved until all have."""
    rngs = [np.random.default_rng([seed + env, 1]) for env in range(venv.num_envs)]
    episodes: dict[int, dict[str, Any]] = {}
    obs = venv.reset()
    episode_starts = np.ones(venv.num_envs, dtype=bool)
    state = None
    while len(episodes) < venv.num_envs:
        actions, state = player.predict(obs, state=state, episode_start=episode_starts, deterministic=deterministic)
        if epsilon > 0:
            if not isinstance(venv.action_space, spaces.Discrete):
                raise ValueError(
                    f"epsilon={epsilon:g} is a share of random discrete actions, but these are {venv.action_space}: "
                    "leave it at 0."
                )
            n_actions = int(venv.action_space.n)
            actions = np.array(
                [mix_random_actions(action, n_actions, epsilon, rng) for action, rng in zip(actions, rngs, strict=True)]
            )
        obs, _, episode_starts, infos = venv.step(actions)
        for env, info in enumerate(infos):
            # Monitor sits below AtariWrapper, so this is the end of the game, not of a life.
            if "episode" in info:
                episodes.setdefault(env, info["episode"])
    return [episodes[env] for env in range(venv.num_envs)]
