"""Environments that show a teacher and its student different things, each under a key of its own."""

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces

# Where the observations of the environment itself are
STATE = "state"


def screen_of(env: gym.Env) -> np.ndarray:
    """
    :param env: an environment that renders RGB arrays, whatever its render mode is
    :return: its picture of this moment ``(height, width, 3)``; that of an Atari game is the emulator's screen
    """
    # Where SDL draws, it would catch the signal with which workers are ended, and their parent would wait for ever.
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    game: Any = env.unwrapped
    # Also where the user looks at a window, or at nothing
    mode, game.render_mode = game.render_mode, "rgb_array"
    try:
        picture: np.ndarray = game.render()
    finally:
        game.render_mode = mode
    return picture


class WithHistory(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """
    Gives ``{"state": the environment's observation, key: the newest of something else}``. When an episode begins, the
    first one fills the whole history.

    :param env: the environment
    :param key: the key of what is added
    :param part: its space
    :param n_stack: how many of the newest are seen
    :raises ValueError: the key or the number cannot be
    """

    def __init__(self, env: gym.Env, key: str, part: spaces.Box, n_stack: int) -> None:
        if n_stack < 1:
            raise ValueError(f"n_stack must be at least 1, not {n_stack}.")
        if key == STATE:
            raise ValueError(
                f"key must be another name than {STATE!r}, under which the environment's observations are."
            )
        gym.Wrapper.__init__(self, env)
        self.key = key
        self._history: deque[np.ndarray] = deque(maxlen=n_stack)
        self.observation_space = spaces.Dict({STATE: env.observation_space, key: part})

    def newest(self, observation: Any) -> np.ndarray:
        """
        :param observation: the environment's observation
        :return: what is remembered of this moment
        """
        raise NotImplementedError

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        newest = self.newest(observation)
        self._history.extend([newest] * (self._history.maxlen or 1))
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._history.append(self.newest(observation))
        return self._observe(observation), reward, terminated, truncated, info

    def _observe(self, observation: Any) -> dict[str, Any]:
        return {STATE: observation, self.key: np.concatenate(self._history)}


class StackedEntries(WithHistory):
    """
    Adds the last values of some entries of a vector, such as positions without velocities.

    :param env: an environment with vector observations
    :param entries: indices of the entries
    :param n_stack: for how many steps they are seen, the newest last
    :param key: the key of these values; the whole vector is under "state"
    :raises ValueError: the observations are no vector, or have no such entries
    """

    def __init__(self, env: gym.Env, entries: Sequence[int], n_stack: int = 4, key: str = "positions") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, entries=entries, n_stack=n_stack, key=key)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"StackedEntries needs observations that are a vector, not {space}.")
        wrong = [entry for entry in entries if entry not in range(space.shape[0])]
        if wrong or not entries:
            raise ValueError(f"entries must be indices from 0 to {space.shape[0] - 1}, not {list(entries)}.")
        self.entries = list(entries)
        low, high = (np.tile(bound[self.entries], n_stack) for bound in (space.low, space.high))
        super().__init__(env, key, spaces.Box(low, high, dtype=space.dtype.type), n_stack)

    def newest(self, observation: Any) -> np.ndarray:
        return np.asarray(observation)[self.entries]


class RenderedFrames(WithHistory):
    """
    Adds the last pictures of the environment, as square grey images.

    :param env: an environment that renders RGB arrays, whatever its render mode is
    :param size: height and width of the images
    :param n_stack: number of images, the newest last
    :param key: the key of the images ``(n_stack, size, size)``; the environment's observations are under "state"
    :raises ValueError: the environment renders no pictures
    """

    def __init__(self, env: gym.Env, size: int = 84, n_stack: int = 4, key: str = "pixels") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, size=size, n_stack=n_stack, key=key)
        if "rgb_array" not in env.metadata.get("render_modes", ()):
            raise ValueError(f"RenderedFrames needs an environment that renders RGB arrays; {env} does not.")
        self.size = size
        super().__init__(env, key, spaces.Box(0, 255, (n_stack, size, size), np.uint8), n_stack)

    def newest(self, observation: Any) -> np.ndarray:
        grey = cv2.cvtColor(screen_of(self), cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, (self.size, self.size), interpolation=cv2.INTER_AREA)[None]
