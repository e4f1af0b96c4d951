"""Observations without bounds reach students normalized: by mean and variance of what their teacher saw in its play."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_distill.agents.agent import Teacher
from sb3_distill.evaluation.environments import make_env_of

# As the Zoo's hyperparameters write it: rewards stay as they are, for they are not learned from.
NORMALIZE = "{'norm_obs': True, 'norm_reward': False}"


def has_no_bounds(teacher: Teacher, env_id: str) -> bool:
    """
    :param teacher: an agent that observes vectors or matrices
    :param env_id: the environment
    :return: whether they are floats of which no entry has bounds, as in MuJoCo. These differ in scale, with long tails
    """
    with closing(make_env_of(teacher, env_id)) as venv:
        space = venv.observation_space
    assert isinstance(space, spaces.Box)
    return np.issubdtype(space.dtype, np.floating) and not (space.bounded_below | space.bounded_above).any()


def statistics_of(observed: np.ndarray) -> dict[str, Any]:
    """
    :param observed: observations of the teacher's play ``(n, ...)``
    :return: mean and variance of each entry, and the number of observations, as JSON can write them
    """
    values = observed.astype(np.float64)
    return {"mean": values.mean(axis=0).tolist(), "var": values.var(axis=0).tolist(), "count": len(values)}


def normalize(venv: VecEnv, statistics: Mapping[str, Any]) -> VecNormalize:
    """
    :param venv: an environment
    :param statistics: see ``statistics_of``
    :return: the environment with normalized observations. Its statistics stay as they are: step sizes of few bits would
        have to follow statistics that move.
    """
    normalized = VecNormalize(venv, training=False, norm_reward=False)
    for name, value in statistics.items():
        setattr(normalized.obs_rms, name, value if name == "count" else np.array(value))
    return normalized
