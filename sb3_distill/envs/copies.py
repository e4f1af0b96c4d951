"""A copy of an environment, for somebody else to play in."""

import copy
import dataclasses
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import RecordVideo
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecVideoRecorder,
)

from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.envs.inspection import SpecError, spec_of


class CopyError(ValueError):
    """An environment cannot be copied; the message says why."""


def copy_env(env: VecEnv) -> VecEnv:
    """
    Copy an environment: the same games within the same wrappers. The copy shares nothing with the original: it has no
    Monitor file and records no video, and its ``VecNormalize`` keeps the statistics of this moment.

    Registered games are made anew from their spec, since a copied object could still refer to the original's simulator.
    Wrappers, and games without a spec, are copied by ``copy.deepcopy``.

    :param env: a vector environment
    :return: the copy, which has not been reset
    :raises CopyError: the environment cannot be copied
    """
    try:
        return _copy(env, {})
    except CopyError:
        raise
    except Exception as error:
        # Games and wrappers are anybody's code, and hold anything.
        raise CopyError(f"{type(error).__name__}: {error}") from error


def _copy(env: VecEnv, memo: dict[int, Any]) -> VecEnv:
    if isinstance(env, VecEnvWrapper):
        inner = _copy(env.venv, memo)
        copied = inner if isinstance(env, VecVideoRecorder) else _copy_vec_wrapper(env, inner, memo)
    elif isinstance(env, NativeAtariVecEnv):
        copied = NativeAtariVecEnv(env.settings, env.num_envs, env.observation_space.shape[0])  # type: ignore[index]
    elif isinstance(env, DummyVecEnv):
        for game in env.envs:
            _copy_game(game, memo)
        copied = copy.deepcopy(env, memo)
    elif isinstance(env, SubprocVecEnv):
        copied = DummyVecEnv([partial(_game_of_spec, spec) for spec in _specs_of(env)])
    else:
        raise CopyError(f"a {type(env).__name__} cannot be copied")
    memo[id(env)] = copied
    return copied


def _copy_vec_wrapper(wrapper: VecEnvWrapper, venv: VecEnv, memo: dict[int, Any]) -> VecEnv:
    # Not by deepcopy alone: VecEnvWrapper.__getattr__ does not work before there is a venv.
    copied = object.__new__(type(wrapper))
    own = {name: value for name, value in vars(wrapper).items() if name not in ("venv", "class_attributes")}
    _leave_out_files(own, memo)
    vars(copied).update(copy.deepcopy(own, memo), venv=venv, class_attributes=wrapper.class_attributes)
    if isinstance(copied, VecNormalize):
        copied.training = False
    return copied


def _copy_game(env: gym.Env, memo: dict[int, Any]) -> gym.Env:
    """Copy a game with its wrappers, from the inside out; ``memo`` is that of deepcopy."""
    if not isinstance(env, gym.Wrapper):
        copied = _made_anew(env) or copy.deepcopy(env, memo)
    else:
        inner = _copy_game(env.env, memo)
        _leave_out_files(vars(env), memo)
        copied = inner if isinstance(env, RecordVideo) else copy.deepcopy(env, memo)
        # The original may be in the middle of an episode; the copy begins with a reset.
        if isinstance(copied, Monitor):
            copied.allow_early_resets = True
        if isinstance(copied, EpisodicLifeEnv):
            copied.was_real_done = True
    memo[id(env)] = copied
    return copied


def _leave_out_files(attributes: dict[str, Any], memo: dict[int, Any]) -> None:
    """Have deepcopy put None in the place of what writes Monitor files."""
    memo.update({id(value): None for value in attributes.values() if isinstance(value, ResultsWriter)})


def _made_anew(env: gym.Env) -> gym.Env | None:
    """A new game of the same spec, without wrappers; None if it has none."""
    if env.spec is None:
        return None
    # Nobody looks at the copy.
    hidden = {"render_mode": None} if env.spec.kwargs.get("render_mode") == "human" else {}
    made: gym.Env = gym.make(env.spec, disable_env_checker=True, **hidden).unwrapped
    return made if type(made) is type(env) else None


def _specs_of(env: SubprocVecEnv) -> list[EnvSpec | None]:
    try:
        return [spec_of(env, index) for index in range(env.num_envs)]
    except SpecError as error:
        raise CopyError(
            "they run in other processes, which cannot say how they were made: their entry point or an argument cannot "
            "be pickled, such as a lambda, or they have no wrapper, such as Monitor"
        ) from error


def _game_of_spec(spec: EnvSpec | None) -> gym.Env:
    """A game that runs in another process: its wrappers are known only as far as they have recorded their arguments."""
    if spec is None:
        raise CopyError("games in other processes can be copied only if they are registered with Gymnasium")
    wrappers = tuple(wrapper for wrapper in spec.additional_wrappers if wrapper.name != Monitor.class_name())
    unknown = [wrapper.name for wrapper in wrappers if wrapper.kwargs is None]
    if unknown:
        raise CopyError(f"they run in other processes, and the arguments of {', '.join(unknown)} are not known")
    return Monitor(gym.make(dataclasses.replace(spec, additional_wrappers=wrappers), disable_env_checker=True))
