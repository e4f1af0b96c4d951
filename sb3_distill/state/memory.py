"""The memory (state) of agents that have one: arrays whose first axis is that of the environments."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th

# None, an array, a tensor, or a tuple or a dictionary of such states
State = Any


def map_state(function: Callable[[Any], Any], state: State) -> State:
    """
    :param function: a function of one array
    :param state: a state
    :return: the state with the function applied to every array
    """
    if isinstance(state, dict):
        return {key: map_state(function, part) for key, part in state.items()}
    if isinstance(state, tuple):
        return tuple(map_state(function, part) for part in state)
    return None if state is None else function(state)


def find_state_problem(state: State, n_envs: int, name: str = "state") -> str | None:
    """
    :param state: what an agent returned as its state
    :param n_envs: number of environments that it was asked about
    :param name: what to call it
    :return: why it is no state of these environments; None if it is
    """
    if state is None:
        return None
    # The state of a run is written with plain tuples and dictionaries, which a named tuple would not come back from.
    if type(state) in (tuple, dict):
        parts = state.items() if isinstance(state, dict) else enumerate(state)
        problems = (find_state_problem(part, n_envs, f"{name}[{key!r}]") for key, part in parts)
        return next((problem for problem in problems if problem is not None), None)
    is_array = isinstance(state, th.Tensor) or (isinstance(state, np.ndarray) and state.dtype.kind in "biuf")
    if not is_array:
        return (
            f"{name} has the type {type(state).__name__}; it must be None, an array or a tensor, or a plain tuple or "
            "dictionary of these"
        )
    if state.ndim < 1 or len(state) != n_envs:
        return (
            f"{name} has the shape {tuple(state.shape)}; its first axis must be that of the {n_envs} environments, so "
            "that the state can be kept for each of them"
        )
    return None


def form_of(state: State) -> Any:
    """
    :param state: a state
    :return: the same with shapes, without the number of environments, in the place of arrays: equal for the states of
        one agent
    """
    return map_state(lambda array: tuple(array.shape[1:]), state)


def begin_anew(state: State, episode_start: np.ndarray | None) -> State:
    """
    :param state: the state that the last call returned
    :param episode_start: where an episode begins ``(n_envs,)``; None: nowhere
    :return: the state with zeros where an episode begins
    """
    if episode_start is None or not np.any(episode_start):
        return state
    starts = np.asarray(episode_start, dtype=bool)

    def reset(array: Any) -> Any:
        own = array.clone() if isinstance(array, th.Tensor) else np.array(array)
        own[starts if isinstance(own, np.ndarray) else th.as_tensor(starts, device=own.device)] = 0
        return own

    return map_state(reset, state)


def rows_of(state: State, rows: np.ndarray) -> State:
    """
    :param state: a state of several environments
    :param rows: the indices of some of them
    :return: their state
    """
    return map_state(lambda array: array[rows], state)


def with_rows(state: State, rows: np.ndarray, new: State, n_envs: int) -> State:
    """
    :param state: a state of several environments; None: zeros
    :param rows: the indices of some of them
    :param new: their new state
    :param n_envs: number of all environments
    :return: the state with these rows replaced
    """
    if isinstance(new, dict):
        return {key: with_rows(None if state is None else state[key], rows, new[key], n_envs) for key in new}
    if isinstance(new, tuple):
        return tuple(with_rows(None if state is None else state[i], rows, new[i], n_envs) for i in range(len(new)))
    if new is None:
        return None
    if isinstance(new, th.Tensor):
        whole = new.new_zeros((n_envs, *new.shape[1:])) if state is None else state.clone()
    else:
        whole = np.zeros((n_envs, *new.shape[1:]), new.dtype) if state is None else np.array(state)
    whole[rows] = new
    return whole


def state_on(state: State, device: th.device) -> State:
    """
    :param state: a state, maybe read from a file
    :param device: the device of the agent's networks
    :return: the same with its tensors there
    """
    return map_state(lambda array: array.to(device) if isinstance(array, th.Tensor) else array, state)
