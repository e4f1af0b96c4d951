"""Agents that see a Dict of vectors, as a device sees it: one vector with the parts in a row."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.normalization import Normalization
from sb3_distill.envs.recipe import NamedWrapper
from sb3_distill.envs.views import FlatView, ObservationView, space_in_a_row


def flattened(agent: Teacher) -> Teacher:
    """
    :param agent: a loaded agent
    :return: the same agent with the parts of its Dict observations in a row, in the order of its network; the agent
        itself, if its observations are none of vectors in floating point
    :raises AgentError: VecNormalize normalizes some of its keys alone
    """
    space = agent.policy.observation_space
    if not isinstance(space, spaces.Dict) or not all(map(_is_vector, space.spaces.values())):
        return agent
    policy = copy.deepcopy(agent.policy)
    extractors = [module for module in policy.modules() if isinstance(module, CombinedExtractor)]
    if not extractors or any(type(each) is not CombinedExtractor for each in extractors):
        return agent
    keys = list(extractors[0].extractors)
    flat = space_in_a_row(space, keys)
    for module in policy.modules():
        if isinstance(getattr(module, "observation_space", None), spaces.Dict):
            module.observation_space = flat
    # One extractor can have several names.
    for name, child in list(policy.named_modules(remove_duplicate=False)):
        if isinstance(child, CombinedExtractor):
            owner, _, own_name = name.rpartition(".")
            setattr(policy.get_submodule(owner), own_name, FlattenExtractor(flat))
    facts = replace(agent.facts, normalization=_normalization_in_a_row(agent, keys), flat_keys=tuple(keys))
    return type(agent)(policy, facts)


def _is_vector(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)


def _normalization_in_a_row(agent: Teacher, keys: list[str]) -> Normalization | None:
    normalization = agent.normalization
    if normalization is None:
        return None
    missing = [key for key in keys if key not in normalization.parts]
    if missing:
        raise AgentError(
            f"{agent.source} cannot be exported: VecNormalize normalizes some keys of its observations, but not "
            f"{', '.join(map(repr, missing))}. Train it with all keys normalized (norm_obs_keys), or with none."
        )
    mean, var = (np.concatenate([normalization.parts[key][index].ravel() for key in keys]) for index in (0, 1))
    return replace(normalization, mean=mean, var=var)


def sizes_of(space: spaces.Space, keys: tuple[str, ...] | None) -> dict[str, int] | None:
    """
    :param space: the observations of an agent
    :param keys: their keys in the order in which they stand in a row; None: they do not
    :return: the number of entries of each part
    """
    if keys is None or not isinstance(space, spaces.Dict):
        return None
    return {key: math.prod(space[key].shape or ()) for key in keys}


def parts_of(rows: np.ndarray, space: spaces.Space, sizes: Mapping[str, int]) -> dict[str, Any]:
    """
    :param rows: observations whose parts stand in a row ``(n, size)``
    :param space: their space
    :param sizes: see ``sizes_of``
    :return: the parts
    """
    assert isinstance(space, spaces.Dict)
    ends = np.cumsum(list(sizes.values()))
    parts = zip(sizes, np.split(rows, ends[:-1], axis=1), strict=True)
    return {key: part.reshape(-1, *(space[key].shape or ())).astype(space[key].dtype) for key, part in parts}


def views_of(agent: Teacher) -> list[Any]:
    """
    :param agent: an agent, see ``flattened``
    :return: what stands around the environment where it sees keys of a Dict observation, or its parts in a row, as the
        Zoo's configurations name it
    """
    keys, flat_keys = agent.facts.student_keys, agent.facts.flat_keys
    views: list[tuple[type, dict[str, Any]]] = []
    if keys is not None:
        views.append((ObservationView, {"student_keys": keys}))
    if flat_keys is not None:
        views.append((FlatView, {"keys": list(flat_keys)}))
    return [NamedWrapper(f"{view.__module__}.{view.__name__}", kwargs).to_config() for view, kwargs in views]
