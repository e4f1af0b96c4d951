"""Reads properties of an environment: its id, its arguments, the folder of its Monitor files."""

import re
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import FrameStackObservation
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecFrameStack

from sb3_distill.envs.atari import NativeAtariVecEnv


def monitor_folder(env: VecEnv) -> Path | None:
    """
    :param env: a vector environment
    :return: the folder of its Monitor files (in the Zoo, the run folder); None if it writes none, or if other processes
        write them
    """
    base = env.unwrapped
    if isinstance(base, NativeAtariVecEnv):
        writers = base.writers or [None]
        return None if writers[0] is None else Path(writers[0].file_handler.name).parent
    # Open files cannot be read from the processes of a SubprocVecEnv.
    if not isinstance(base, DummyVecEnv):
        return None
    try:
        writer = base.get_attr("results_writer", indices=0)[0]
    except AttributeError:
        return None
    return None if writer is None else Path(writer.file_handler.name).parent


def vec_frame_stack_of(env: VecEnv) -> int | None:
    """
    :param env: a vector environment
    :return: how many observations it stacks itself, with ``VecFrameStack`` or in C++; None if it stacks none
    """
    n_stack = None
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecFrameStack):
            n_stack = (n_stack or 1) * env.stacked_obs.n_stack
        env = env.venv
    return (n_stack or 1) * env._stacks.shape[1] if isinstance(env, NativeAtariVecEnv) else n_stack


def frame_stack_of(env: VecEnv) -> int | None:
    """
    :param env: a vector environment
    :return: how many observations are stacked in each; None if nothing says it
    """
    n_stack = vec_frame_stack_of(env)
    try:
        if env.env_is_wrapped(FrameStackObservation, 0)[0]:
            n_stack = (n_stack or 1) * int(env.get_attr("stack_size", 0)[0])
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        # A vector environment may know nothing of wrappers, and another wrapper may have an attribute of this name.
        pass
    return n_stack


def describe_space_mismatch(expected: spaces.Space, actual: spaces.Space) -> str:
    """
    :param expected: the teacher's observation space
    :param actual: the environment's observation space
    :return: how they differ in shape or type; the empty string if they do not differ
    """
    if isinstance(expected, spaces.Dict) or isinstance(actual, spaces.Dict):
        if not (isinstance(expected, spaces.Dict) and isinstance(actual, spaces.Dict)):
            return f"{expected} against {actual}."
        if set(expected.spaces) != set(actual.spaces):
            return f"the keys {sorted(expected.spaces)} against {sorted(actual.spaces)}."
        problems = {key: describe_space_mismatch(expected.spaces[key], actual.spaces[key]) for key in expected.spaces}
        return " ".join(f"Key {key!r}: {problem}" for key, problem in problems.items() if problem)
    if type(expected) is not type(actual):
        return f"{expected} against {actual}."
    if expected.shape != actual.shape:
        hint = ""
        mine, its = expected.shape or (), actual.shape or ()
        if len(mine) == 3 and mine[0] > 1 and mine[1:] == its[1:]:
            hint = (
                f" The teacher sees a stack of {mine[0]} frames: stack as many with VecFrameStack, or "
                f"`frame_stack: {mine[0]}` in the Zoo's hyperparameters."
            )
        return f"the shape {expected.shape} against {actual.shape}.{hint}"
    if expected.dtype != actual.dtype:
        return f"the type {expected.dtype} against {actual.dtype}."
    return ""


def check_masks(env: VecEnv, who: str) -> None:
    """
    :param env: a vector environment
    :param who: who acts within its action masks, for the message
    :raises ValueError: it has none
    """
    if not env.has_attr("action_masks"):
        raise ValueError(
            f"{who} needs to know which actions are allowed, but {env_id_of(env) or 'the environment'} has no method "
            "action_masks(): wrap it in sb3_contrib.common.wrappers.ActionMasker (env_wrapper in the Zoo), or take an "
            "environment with masks."
        )


def action_masks_of(env: VecEnv) -> np.ndarray:
    """
    :param env: a vector environment with action masks
    :return: which actions are allowed now ``(n_envs, n_actions)``
    :raises ValueError: it has none, or they are of another shape, or allow no action
    """
    shape = env.num_envs, int(getattr(env.action_space, "n", 0))
    try:
        masks = np.stack(env.env_method("action_masks")).astype(bool)
    except AttributeError:
        check_masks(env, "An agent with action masks (MaskablePPO)")
        raise
    except ValueError as error:
        raise ValueError(f"action_masks() of the environment must give an array of bool, not: {error}.") from error
    if masks.shape != shape or not masks.any(axis=1).all():
        raise ValueError(
            f"action_masks() of the environment must give True for each action that is allowed, of {shape[1]}, and "
            f"allow one at least; together they are of shape {masks.shape}, with {masks.sum(axis=-1)} allowed."
        )
    return masks


def check_kind(space: spaces.Space) -> None:
    """
    :param space: an environment's observations
    :raises ValueError: they are of a kind that Stable-Baselines3 does not know, such as a Tuple
    """
    for part in space.spaces.values() if isinstance(space, spaces.Dict) else [space]:
        if not isinstance(part, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            raise ValueError(
                f"The environment's observations are {space}: Stable-Baselines3 takes Box, Discrete, MultiDiscrete and "
                "MultiBinary spaces, and a Dict of these. Wrap the environment, for example in "
                "gymnasium.wrappers.FlattenObservation (env_wrapper in the Zoo)."
            )


def check_counts_from_zero(space: spaces.Space, what: str) -> None:
    """
    :param space: a space of an environment, or a part of one
    :param what: what the space is, for the error message
    :raises ValueError: its numbers do not count from 0, which SB3 does not support
    """
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            check_counts_from_zero(part, f"{what}[{key!r}]")
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and np.any(space.start):
        raise ValueError(
            f"{what[0].upper()}{what[1:]} is {space}, which does not count from 0: Stable-Baselines3 takes every "
            "Discrete and MultiDiscrete to begin there, whatever its start. Wrap the environment so that it does, with "
            "gymnasium.wrappers.TransformAction or TransformObservation."
        )


class SpecError(ValueError):
    """An environment in another process cannot say how it was made."""


class _SpecCanBeSent:
    """
    Stands for a wrapper's class in ``VecEnv.env_is_wrapped``, which asks it inside the environment's process. A process
    ends when it is asked for what it cannot pickle, so this is asked first.
    """

    def __instancecheck__(self, env: gym.Wrapper) -> bool:
        try:
            ForkingPickler.dumps(env.spec)
        except Exception:
            # Arguments are objects of any kind.
            return False
        return True


def spec_of(env: VecEnv, index: int = 0) -> EnvSpec | None:
    """
    :param env: a vector environment
    :param index: index of a sub-environment
    :return: how this sub-environment was made; None if it does not say
    :raises SpecError: it is in another process, which cannot send this
    """
    asks_process = isinstance(env.unwrapped, SubprocVecEnv)
    if asks_process and not env.env_is_wrapped(_SpecCanBeSent(), indices=index)[0]:  # type: ignore[arg-type]
        raise SpecError(
            "The environments are in other processes, which cannot say with which arguments they were made: their "
            "entry point or an argument cannot be pickled, such as a lambda, or they have no wrapper, such as Monitor. "
            "Name a function of a module instead and wrap them in Monitor, or use DummyVecEnv."
        )
    try:
        return env.get_attr("spec", indices=index)[0]
    except (AttributeError, NotImplementedError):
        return None


def env_id_of(env: VecEnv) -> str | None:
    """
    :param env: a vector environment
    :return: the registered id of its first sub-environment; None if it has none, or cannot say it
    """
    if isinstance(env.unwrapped, SubprocVecEnv):
        # As text, because a process cannot send every specification.
        text = str(env.env_method("__str__", indices=0)[0])
        found = re.fullmatch(r"(?:<\w+)+<(?P<id>[^<>]+)>+", text)
        if found is not None and found["id"] in gym.registry:
            return found["id"]
    try:
        spec = spec_of(env)
    except SpecError:
        return None
    return None if spec is None else spec.id


def env_arguments_of(env: VecEnv) -> dict[str, Any]:
    """
    :param env: a vector environment
    :return: the arguments with which its first sub-environment was made, except the render mode and values that equal
        the registered ones
    :raises SpecError: it is in another process, which cannot send them
    """
    spec = spec_of(env)
    if spec is None:
        return {}
    registered = gym.registry.get(spec.id)
    known: dict[str, Any] = {"max_episode_steps": None}
    if registered is not None:
        known = {**registered.kwargs, "max_episode_steps": registered.max_episode_steps}
    arguments = {**spec.kwargs, "max_episode_steps": spec.max_episode_steps}
    return {
        name: value
        for name, value in arguments.items()
        if name != "render_mode" and (name not in known or not _equal(known[name], value))
    }


def _equal(first: Any, second: Any) -> bool:
    """Whether two arguments are equal; False also where they cannot be compared, such as lists of arrays."""
    try:
        return bool(np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second)
    except (ValueError, RuntimeError):
        return False
