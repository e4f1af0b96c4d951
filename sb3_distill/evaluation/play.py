"""Scores that compare: teacher and students from the same starts, with the same random actions."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.evaluation.players import Player, mix_random_actions
from sb3_distill.results.statistics import percent_of_teacher


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
                played = _play_batch(player, venv, epsilon, seed + first, deterministic)
        finally:
            venv.close()
        score.returns += played.returns
        score.lengths += played.lengths
    return score


def _play_batch(player: Player, venv: VecEnv, epsilon: float, seed: int, deterministic: bool) -> Score:
    """One episode in every sub-environment; those that ended early play on unobserved until all have."""
    rngs = [np.random.default_rng([seed + env, 1]) for env in range(venv.num_envs)]
    # Return and length of the first episode of each
    episodes: dict[int, tuple[float, int]] = {}
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
                episodes.setdefault(env, (info["episode"]["r"], info["episode"]["l"]))
    returns, lengths = zip(*(episodes[env] for env in range(venv.num_envs)), strict=True)
    return Score(list(returns), list(lengths))
