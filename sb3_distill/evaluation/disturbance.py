"""What a device brings to a game: noise of sensors, few bits of an observation, actions that come late."""

import argparse
import copy
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_distill.common.arguments import share, whole_number
from sb3_distill.common.finite import has_bounds
from sb3_distill.common.utils import counted
from sb3_distill.envs.episodes import EpisodeSchedule
from sb3_distill.envs.make import EpisodeWrapper

MAX_DELAY, MAX_OBS_BITS = 1_000, 16
# The episodes from which the range of unbounded entries is taken begin here, where no others do.
RANGE_SEED, N_RANGE_EPISODES = 60_000_000, 10
# Full scale of a sensor: lowest and highest value of each entry, by key of a Dict observation ("": there are no keys)
Ranges = dict[str, tuple[np.ndarray, np.ndarray]]


def add_disturbance_options(parser: argparse.ArgumentParser) -> None:
    """
    Add the options ``obs_noise``, ``action_delay`` and ``obs_bits``.

    :param parser: the parser
    """
    group = parser.add_argument_group("what a device brings", "It is the same for all agents, episode by episode.")
    group.add_argument(
        "--obs-noise",
        type=share,
        default=0.0,
        help="standard deviation of Gaussian noise on observations, as a share of the range of each entry: the bounds "
        "of the environment, or the range in the play of the first agent, widened by half of it at both ends (0.01: "
        "one per cent)",
    )
    group.add_argument(
        "--action-delay",
        type=whole_number(0),
        default=0,
        help="steps by which actions are delayed; before the first one the action is 0",
    )
    group.add_argument(
        "--obs-bits",
        type=whole_number(1, MAX_OBS_BITS),
        help=f"round observations to 2^bits levels of the range (1 to {MAX_OBS_BITS}; default: they are not rounded)",
    )


class Disturbance:
    """
    Disturbs the observations and actions of one environment. What it does in an episode depends on the seed of the
    episode and on the step alone, so that all agents meet the same.

    :param obs_noise: standard deviation of Gaussian noise on observations, as a share of the range of each entry
    :param action_delay: steps by which an action comes late; before the first one the action is 0 (continuous: the
        value nearest to 0)
    :param obs_bits: observations are rounded to 2^bits levels of the range, after the noise; None: they are not
    :raises ValueError: a value is out of range
    """

    def __init__(self, obs_noise: float = 0.0, action_delay: int = 0, obs_bits: int | None = None) -> None:
        if not 0.0 <= obs_noise <= 1.0:
            raise ValueError(f"obs_noise is a share of an observation's range, between 0 and 1, not {obs_noise}.")
        if not 0 <= action_delay <= MAX_DELAY:
            raise ValueError(f"action_delay must be 0 to {MAX_DELAY:,} steps, not {action_delay}.")
        if obs_bits is not None and not 1 <= obs_bits <= MAX_OBS_BITS:
            raise ValueError(f"obs_bits must be 1 to {MAX_OBS_BITS}, not {obs_bits}.")
        self.obs_noise, self.action_delay, self.obs_bits = obs_noise, action_delay, obs_bits
        # By the space of the observations that are disturbed
        self._ranges: dict[str, Ranges] = {}

    def __bool__(self) -> bool:
        return bool(self.facts)

    @property
    def facts(self) -> dict[str, Any]:
        """What is disturbed, without what is not."""
        facts = {"obs_noise": self.obs_noise, "action_delay": self.action_delay, "obs_bits": self.obs_bits}
        return {name: value for name, value in facts.items() if value}

    def describe(self) -> list[str]:
        """
        :return: the same in words
        """
        words = {
            "obs_noise": f"observation noise {self.obs_noise:.3g} of the range",
            "action_delay": f"actions {counted(self.action_delay, 'step')} late",
            "obs_bits": f"observations of {counted(self.obs_bits or 0, 'bit')}",
        }
        return [words[name] for name in self.facts]

    def ranges(self) -> list[dict[str, Any]]:
        """
        :return: for each space of observations that was disturbed, the range of each entry, as JSON has it
        """
        return [
            {"observation_space": space, "key": key or None, "low": _short(low), "high": _short(high)}
            for space, ranges in self._ranges.items()
            for key, (low, high) in ranges.items()
        ]

    def wrapper(self, play: Callable[..., Any]) -> EpisodeWrapper | None:
        """
        :param play: plays episodes in the environment, with the arguments ``n_eval_episodes``, ``seed`` and ``wrapper``
            of ``evaluate_paired``; called where entries of observations have no bounds, and their range is not known
            yet from an agent that played before
        :return: the ``wrapper`` of ``evaluate_paired``; None: nothing is disturbed
        """

        def wrap(env: gym.Env, schedule: EpisodeSchedule, index: int) -> gym.Env:
            has_sensor = self.obs_noise > 0 or self.obs_bits is not None
            ranges = self._ranges_of(env.observation_space, play) if has_sensor else {}
            return DisturbedEnv(env, self, ranges, schedule, index)

        return wrap if self else None

    def _ranges_of(self, space: spaces.Space, play: Callable[..., Any]) -> Ranges:
        known = self._ranges.get(str(space))
        if known is None:
            boxes = _boxes(space)
            known = {key: (box.low.astype(float), box.high.astype(float)) for key, box in boxes.items()}
            if not all(map(_bounded, boxes.values())):
                seen = {key: (np.full(box.shape, np.inf), np.full(box.shape, -np.inf)) for key, box in boxes.items()}
                play(N_RANGE_EPISODES, seed=RANGE_SEED, wrapper=lambda env, *_: RangeRecorder(env, seen))
                known = {key: widened(boxes[key], *seen[key]) for key in boxes}
            self._ranges[str(space)] = known
        return known


def _bounded(box: spaces.Box) -> bool:
    return bool(has_bounds(box).all())


def widened(box: spaces.Box, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    :param box: a space
    :param low: the lowest value that was seen of each entry
    :param high: the highest one
    :return: the bounds of the space and, where it has none, those of what was seen, widened by half of it at both ends
    """
    margin = (high - low) / 2
    bounded = has_bounds(box)
    return np.where(bounded, box.low, low - margin), np.where(bounded, box.high, high + margin)


def _boxes(space: spaces.Space) -> dict[str, spaces.Box]:
    """The parts of observations, which must be numbers on a scale."""
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    for key, part in parts.items():
        if not isinstance(part, spaces.Box) or part.dtype == np.bool_:
            raise ValueError(
                f"Observations are {part}{f' (key {key})' if key else ''}, which are no numbers on a scale: noise and "
                "bits are for Box spaces of numbers. Leave out --obs-noise and --obs-bits (obs_noise, obs_bits)."
            )
    return parts  # type: ignore[return-value]


def _parts(observation: Any) -> Mapping[str, Any]:
    return observation if isinstance(observation, dict) else {"": observation}


def _short(values: np.ndarray) -> Any:
    return float(values.flat[0]) if (values == values.flat[0]).all() else values.tolist()


class RangeRecorder(gym.Wrapper):
    """
    Records the lowest and highest value of each entry of an environment's observations.

    :param env: the environment
    :param seen: what was seen so far, which grows
    """

    def __init__(self, env: gym.Env, seen: Ranges) -> None:
        super().__init__(env)
        self.seen = seen

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        observation, info = self.env.reset(**kwargs)
        return self._recorded(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As Gymnasium's."""
        observation, *others = self.env.step(action)
        return self._recorded(observation), *others

    def _recorded(self, observation: Any) -> Any:
        for key, values in _parts(observation).items():
            low, high = self.seen[key]
            np.minimum(low, values, out=low)
            np.maximum(high, values, out=high)
        return observation


class DisturbedEnv(gym.Wrapper):
    """
    An environment behind sensors and actuators. A new episode of the schedule begins with a new stream of noise and no
    action on its way; where a wrapper below ends an episode at a lost life, the game goes on, and so do they.

    :param env: the environment
    :param disturbance: what is disturbed
    :param ranges: range of each entry of its observations
    :param schedule: the episodes that it plays
    :param index: its index in the schedule
    """

    def __init__(
        self, env: gym.Env, disturbance: Disturbance, ranges: Ranges, schedule: EpisodeSchedule, index: int
    ) -> None:
        super().__init__(env)
        self.disturbance, self.ranges, self.schedule, self.index = disturbance, ranges, schedule, index
        self._episode: int | None = -1
        self._neutral = _neutral_action(env.action_space) if disturbance.action_delay else None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        observation, info = self.env.reset(**kwargs)
        episode = self.schedule.playing[self.index]
        if episode != self._episode:
            self._episode = episode
            # Another stream than those of random and of sampled actions
            self._rng = np.random.default_rng([self.schedule.seed + (episode or 0), 3])
            self._coming = deque([self._neutral] * self.disturbance.action_delay)
        return self._sensed(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As Gymnasium's."""
        self._coming.append(copy.copy(action))
        observation, *others = self.env.step(self._coming.popleft())
        return self._sensed(observation), *others

    def _sensed(self, observation: Any) -> Any:
        if not self.ranges:
            return observation
        parts = {
            key: self._measure(np.asarray(values), *self.ranges[key]) for key, values in _parts(observation).items()
        }
        return parts if isinstance(observation, dict) else parts[""]

    def _measure(self, values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        measured, span = values.astype(float), high - low
        if self.disturbance.obs_noise:
            measured += self.disturbance.obs_noise * span * self._rng.standard_normal(values.shape)
        if self.disturbance.obs_bits is not None:
            # What never changes has no range, and stays as it is.
            step = span / (2**self.disturbance.obs_bits - 1)
            levels = np.rint((np.clip(measured, low, high) - low) / np.where(step > 0, step, 1.0))
            measured = np.where(step > 0, low + step * levels, measured)
        if np.issubdtype(values.dtype, np.integer):
            measured = np.clip(np.rint(measured), low, high)
        return measured.astype(values.dtype)


def _neutral_action(space: spaces.Space) -> Any:
    """The action before any has come: 0, and of continuous ones the nearest to 0."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros_like(space.low), space.low, space.high)
    return space.start if isinstance(space, spaces.Discrete) else np.zeros_like(space.sample())
