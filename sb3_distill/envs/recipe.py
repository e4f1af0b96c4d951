"""How the environments of a run were made: arguments, wrappers, stacked frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from sb3_distill.envs.imports import find_wrapper, registered_spec
from sb3_distill.envs.native import NativeAtari

ATARI_WRAPPER = "stable_baselines3.common.atari_wrappers.AtariWrapper"


def is_atari(env_id: str) -> bool:
    """
    :param env_id: a registered environment
    :return: whether it is an Atari game
    """
    return "AtariEnv" in str(registered_spec(env_id).entry_point)


@dataclass(frozen=True)
class NamedWrapper:
    """
    A wrapper as a configuration of the Zoo names it.

    :param name: full name of its class
    :param kwargs: its arguments
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def to_config(self) -> str | dict[str, Any]:
        """
        :return: the wrapper as ``read_wrappers`` reads it
        """
        return {self.name: dict(self.kwargs)} if self.kwargs else self.name


@dataclass(frozen=True)
class EnvRecipe:
    """
    How the environments of a run were made. The Zoo writes all of it into ``config.yml`` and ``args.yml``.

    :param env_kwargs: arguments of the environment
    :param wrappers: ``env_wrapper``, from the inside out; None: not known
    :param vec_wrappers: ``vec_env_wrapper`` likewise
    :param frame_stack: number of stacked frames, 1 where none are stacked; None: not known
    :param gym_packages: modules that the run imported first
    """

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: Sequence[NamedWrapper] | None = None
    vec_wrappers: Sequence[NamedWrapper] = ()
    frame_stack: int | None = None
    gym_packages: Sequence[str] = ()

    def wrap(self, env: gym.Env, **atari_kwargs: Any) -> gym.Env:
        """
        :param env: the environment
        :param atari_kwargs: arguments of ``AtariWrapper`` that take precedence
        :return: the environment in its wrappers
        :raises ValueError: a wrapper is not trusted, does not exist, or does not fit
        """
        for wrapper in self.wrappers or ():
            own = atari_kwargs if wrapper.name == ATARI_WRAPPER else {}
            env = _put_on(env, wrapper, gym.Wrapper, "env_wrapper of the run's config.yml", own)
        return env

    def wrap_vec(self, venv: VecEnv) -> VecEnv:
        """
        :param venv: the vector environment
        :return: the vector environment in its wrappers
        :raises ValueError: a wrapper is not trusted, does not exist, or does not fit
        """
        for wrapper in self.vec_wrappers:
            venv = _put_on(venv, wrapper, VecEnvWrapper, "vec_env_wrapper of the run's config.yml", {})
        return venv


def _put_on(env: Any, wrapper: NamedWrapper, base: type, where: str, kwargs: dict[str, Any]) -> Any:
    found = find_wrapper(wrapper.name, base, where)
    if found is NativeAtari:
        # It changes no game. Whoever makes the environment says how the games are stepped.
        return env
    try:
        return found(env, **{**wrapper.kwargs, **kwargs})
    except Exception as error:
        # Wrappers of any kind, with arguments of any kind
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{where} names {wrapper.name}, which cannot be put on the environment ({reason}).") from error


def atari_recipe(frame_stack: int = 4, **wrapper_kwargs: Any) -> EnvRecipe:
    """
    :param frame_stack: number of stacked frames
    :param wrapper_kwargs: arguments of ``AtariWrapper``
    :return: the Zoo's own recipe for Atari games
    """
    return EnvRecipe(wrappers=[NamedWrapper(ATARI_WRAPPER, wrapper_kwargs)], frame_stack=frame_stack)


def default_recipe(env_id: str, observation_space: spaces.Space | None = None) -> EnvRecipe:
    """
    :param env_id: a registered environment
    :param observation_space: observations of the agent that is to play; None: whatever the environment gives
    :return: what the Zoo does where a run says nothing: in Atari games ``AtariWrapper`` and stacked frames, of the size
        and number of the agent's
    """
    if not is_atari(env_id):
        return EnvRecipe(wrappers=(), frame_stack=1)
    if observation_space is None:
        return atari_recipe()
    if not is_image_space(observation_space, check_channels=False):
        # Such as the emulator's RAM
        return EnvRecipe(wrappers=(), frame_stack=1)
    assert observation_space.shape is not None
    n_frames, height, _ = observation_space.shape
    return atari_recipe(n_frames, **({} if height == 84 else {"screen_size": height}))


def read_wrappers(value: Any, where: str) -> tuple[NamedWrapper, ...]:
    """
    :param value: ``env_wrapper`` or ``vec_env_wrapper`` of a ``config.yml``: a name, a mapping of a name to arguments,
        a list of both, or None
    :param where: the place of the value, for the message
    :return: the wrappers, from the inside out
    :raises ValueError: the value is of another form
    """
    wrappers = []
    for entry in [] if value is None else value if isinstance(value, list) else [value]:
        if isinstance(entry, str):
            wrappers.append(NamedWrapper(entry))
        elif isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry.values())), dict | None):
            ((name, kwargs),) = entry.items()
            wrappers.append(NamedWrapper(str(name), dict(kwargs or {})))
        else:
            raise ValueError(f"{where} must be the name of a wrapper, or a name with arguments, not {entry!r}.")
    return tuple(wrappers)
