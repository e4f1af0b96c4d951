"""Scores that compare: teacher and students from the same starts, with the same random actions."""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.log import progress_bar
from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.envs.episodes import EpisodeSchedule
from sb3_distill.envs.inspection import check_masks
from sb3_distill.envs.make import EpisodeWrapper, play_schedule
from sb3_distill.evaluation.players import Player, masks_for, mix_random_actions, needs_masks
from sb3_distill.networks.computing import keep_freed_memory
from sb3_distill.results.statistics import percent_of_teacher, sample_std


@dataclass
class Score:
    """
    Episode returns of one player.

    :param returns: undiscounted, unclipped return of each episode
    :param lengths: length of each episode, in steps of the environment (frames for Atari)
    :param traces: hash of the first observation, the actions and the rewards of each episode: equal ones are the same
        episode
    :param native: whether the games were stepped in C++
    """

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    native: bool = False

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Sample standard deviation of the returns over the episodes; NaN for a single one."""
        return sample_std(self.returns)

    def percent_of(self, teacher: "Score") -> float:
        """Mean return as a percentage of a teacher's: the signed quotient of ``percent_of_teacher``."""
        return percent_of_teacher(self.mean, teacher.mean)


def evaluate_paired(
    player: Player,
    make_env: Callable[[int], VecEnv],
    n_eval_episodes: int = 30,
    epsilon: float = 0.0,
    seed: int = 0,
    n_envs: int = 10,
    deterministic: bool = True,
    progress: str | None = None,
    wrapper: EpisodeWrapper | None = None,
    action_masks: bool = False,
) -> Score:
    """
    Play episodes whose starts and random actions depend on the seed alone, so that the scores of two players are
    paired: episode ``i`` begins with ``seed + i``. Environments are made once, and each begins the next episode when it
    has ended one. What an episode scores does not depend on how many are played beside it, except that the floats of a
    network differ in their last bits between batches of different sizes; sampled actions of a model, which come from
    torch's one generator, do depend on it, those of a teacher do not.

    :param player: model, policy or teacher
    :param make_env: from a number of sub-environments to a vector environment with Monitors in it
    :param n_eval_episodes: number of episodes
    :param epsilon: share of uniformly random actions (0.05 in Rusu et al. 2015; discrete actions only)
    :param seed: seed of the first episode
    :param n_envs: episodes played side by side
    :param deterministic: whether the player acts greedily
    :param progress: text beside a progress bar on a terminal; None: no bar
    :param wrapper: put around each sub-environment, see ``Disturbance``
    :param action_masks: whether a ``Teacher`` (a loaded student, too) takes only actions that the environment allows;
        agents that were trained so always do
    :return: the returns and lengths
    :raises ValueError: a return is not a finite number, or ``epsilon`` is set for actions that are not discrete, or
        ``wrapper`` for games that are stepped in C++, or the environment has no action masks
    """
    venv = make_env(min(n_envs, n_eval_episodes))
    try:
        if epsilon > 0 and not isinstance(venv.action_space, spaces.Discrete):
            raise ValueError(
                f"epsilon={epsilon:g} is a share of random discrete actions, but these are {venv.action_space}: "
                "leave it at 0."
            )
        if action_masks or needs_masks(player):
            check_masks(venv, getattr(player, "source", type(player).__name__))
        schedule = EpisodeSchedule(n_eval_episodes, venv.num_envs, seed)
        play_schedule(venv, schedule, wrapper)
        shown = nullcontext(_nobody) if progress is None else progress_bar(progress, n_eval_episodes)
        # Sampled actions repeat too, and leave the caller's generator as it was.
        with th.random.fork_rng(enabled=not deterministic), shown as tell:
            if not deterministic:
                th.manual_seed(seed)
            return _play(player, venv, schedule, epsilon, deterministic, tell, action_masks)
    finally:
        venv.close()


class _Episode:
    """What an episode in play needs beside its environment: random generators, and the hash of what has happened."""

    def __init__(self, seed: int, obs: Any, env: int) -> None:
        # Of its own for random actions, which are then the same for agents that sample and agents that do not
        self.epsilon_rng = np.random.default_rng([seed, 1])
        self.rng = np.random.default_rng([seed, 2])
        self.hash = hashlib.blake2b(digest_size=16)
        for key in sorted(obs) if isinstance(obs, dict) else ():
            self.hash.update(obs[key][env].tobytes())
        if not isinstance(obs, dict):
            self.hash.update(obs[env].tobytes())


def _nobody(_: float) -> None:
    """Nobody wants to know how many episodes have ended."""


def _play(
    player: Any,
    venv: VecEnv,
    schedule: EpisodeSchedule,
    epsilon: float,
    deterministic: bool,
    tell: Callable[[float], None],
    action_masks: bool,
) -> Score:
    traces: dict[int, str] = {}
    state = None
    if is_image_space(venv.observation_space, check_channels=False):
        keep_freed_memory()
    obs: Any = venv.reset()
    episode_starts = np.ones(venv.num_envs, dtype=bool)
    numbers = list(schedule.playing)
    episodes = [_Episode(schedule.seed + (number or 0), obs, env) for env, number in enumerate(numbers)]
    while not schedule.is_over:
        masks = masks_for(player, venv, action_masks)
        if not deterministic and isinstance(player, Teacher):
            actions, state = player.sample(obs, [episode.rng for episode in episodes], state, episode_starts, **masks)
        else:
            actions, state = player.predict(
                obs, state=state, episode_start=episode_starts, deterministic=deterministic, **masks
            )
        if epsilon > 0:
            n_actions = int(venv.action_space.n)  # type: ignore[attr-defined]
            actions = np.array(
                [
                    mix_random_actions(action, n_actions, epsilon, episode.epsilon_rng, *allowed)
                    for action, episode, *allowed in zip(actions, episodes, *masks.values(), strict=True)
                ]
            )
        obs, rewards, episode_starts, _ = venv.step(actions)
        for env, number in enumerate(numbers):
            episode = episodes[env]
            episode.hash.update(actions[env].tobytes() + rewards[env].tobytes())
            following = schedule.playing[env]
            if following == number and not schedule.is_over:
                continue
            if number in schedule.returns:
                if not np.isfinite(schedule.returns[number]):
                    raise ValueError(
                        f"Episode {number} has the return {schedule.returns[number]}: a reward of the environment is "
                        "not a finite number, so no score can be measured in it. Correct the environment."
                    )
                traces.setdefault(number, episode.hash.hexdigest())
            episodes[env] = _Episode(schedule.seed + (following or 0), obs, env)
            numbers[env] = following
        tell(len(schedule.returns))
    returns, lengths = schedule.returns, schedule.lengths
    order = range(schedule.n_episodes)
    native = isinstance(venv.unwrapped, NativeAtariVecEnv)
    return Score([returns[i] for i in order], [lengths[i] for i in order], [traces[i] for i in order], native)
