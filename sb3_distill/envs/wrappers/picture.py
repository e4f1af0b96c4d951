"""A picture that a function of the user's own makes, for teachers that see the game in their own way."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.imports import find_function
from sb3_distill.envs.wrappers.keys import WithHistory, screen_of

SCREEN, ENV = "screen", "env"


def _reset_game(env: gym.Env) -> None:
    """Reset a game, which shows nothing before, but none of the wrappers that count, film or alter its episodes."""
    # It lets nobody look at a game that was not reset through it.
    while isinstance(env, gym.Wrapper) and not isinstance(env, OrderEnforcing):
        env = env.env
    env.reset()


class OwnPicture(WithHistory):
    """
    Adds a picture that a function makes of the game: another crop or size, in colour, or whatever an agent was trained
    on elsewhere. Name its key as ``teacher_keys``, and ``student_keys="state"``.

    :param env: the environment
    :param function: makes the picture of one moment: an array of bytes or floats, of the same shape each time. A
        function, or ``"package.module:function"`` where the package is named with ``--gym-packages``. It is first
        called when the wrapper is made: the game has been reset by then, but not the wrappers inside of this one.
    :param of: what the function gets: "screen", the raw RGB screen ``(height, width, 3)``; or "env", the environment
    :param key: the key of the picture; the environment's observations are under "state"
    :raises ValueError: the function cannot be imported, fails, or makes no such picture; or there is no screen
    """

    def __init__(
        self, env: gym.Env, function: str | Callable[[Any], Any], of: str = SCREEN, key: str = "picture"
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, function=function, of=of, key=key)
        if of not in (SCREEN, ENV):
            raise ValueError(unknown_choice("of", of, (SCREEN, ENV)))
        if of == SCREEN and "rgb_array" not in env.metadata.get("render_modes", ()):
            raise ValueError(
                f"OwnPicture needs an environment that renders RGB arrays; {env} does not. With of='env', the function "
                "gets the environment itself."
            )
        self._function = find_function(function, "function of OwnPicture") if isinstance(function, str) else function
        self._name = function if isinstance(function, str) else getattr(function, "__name__", repr(function))
        self._of_screen = of == SCREEN
        _reset_game(env)
        picture = self._draw(env)
        byte = picture.dtype == np.uint8
        low, high = (0, 255) if byte else (-np.inf, np.inf)
        space = spaces.Box(low, high, picture.shape, picture.dtype.type)
        self._check_order(env.observation_space, space)
        super().__init__(env, key, space, n_stack=1)

    def _draw(self, env: gym.Env) -> np.ndarray:
        seen = screen_of(env) if self._of_screen else env
        try:
            picture = np.asarray(self._function(seen))
        except Exception as error:
            # Whatever the user's code raises
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self._name}, the function of OwnPicture, failed ({reason}).") from error
        if np.issubdtype(picture.dtype, np.floating):
            picture = picture.astype(np.float32)
        if picture.dtype not in (np.uint8, np.float32) or picture.ndim == 0:
            raise ValueError(
                f"{self._name}, the function of OwnPicture, must return an array of bytes (uint8) or floats, not "
                f"{picture.dtype} of the shape {picture.shape}."
            )
        return picture

    def _check_order(self, space: spaces.Space, picture: spaces.Box) -> None:
        """SB3 transposes all images of a Dict, or none."""
        images = [part for part in (space, picture) if is_image_space(part)]
        if len({is_image_space_channels_first(part) for part in images}) > 1:  # type: ignore[arg-type]
            raise ValueError(
                f"{self._name}, the function of OwnPicture, returns images of the shape {picture.shape}, and those of "
                f"the environment are {space.shape}: Stable-Baselines3 needs the channels in the same place. Return "
                "the same order (it transposes channels-last images itself, for teacher and student), or two axes."
            )

    def newest(self, observation: Any) -> np.ndarray:
        """As ``WithHistory.newest``."""
        picture = self._draw(self.env)
        space = self.observation_space[self.key]  # type: ignore[index]
        if picture.shape != space.shape or picture.dtype != space.dtype:
            raise ValueError(
                f"{self._name}, the function of OwnPicture, made a picture of the shape {picture.shape} and the type "
                f"{picture.dtype}; its first one was {space.shape} and {space.dtype}. All must be alike."
            )
        # The function may give the same array each time.
        return picture.copy()
