"""What a search takes from its teacher's play: a temperature, and statistics by which observations are normalized."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.finite import has_bounds
from sb3_distill.common.temperature import choose_temperature
from sb3_distill.evaluation.environments import make_env_of, recipe_of
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.reading.text import has_json, read_json

# Observations that both are from
N_OBSERVATIONS = 1_000
# Version of how a student learns. Raise it with every change, so that a search does not go on with students of another.
RECIPE = 2
# In the folder of the outcome: what was found, so that a search which goes on finds the same
TEACHER = "teacher.json"
# As the Zoo's hyperparameters write it: rewards stay as they are, for they are not learned from.
NORMALIZE = "{'norm_obs': True, 'norm_reward': False}"


def is_to_normalize(teacher: Teacher, env_id: str) -> bool:
    """
    :param teacher: an agent that observes vectors or matrices
    :param env_id: the environment
    :return: whether they are floats of which no entry has bounds, as in MuJoCo: these differ in scale, with long tails.
        Not where they are stacked: the Zoo normalizes before it stacks, and its run folders say no other order
    """
    with closing(make_env_of(teacher, env_id)) as venv:
        space = venv.observation_space
    assert isinstance(space, spaces.Box)
    is_stacked = (recipe_of(teacher, env_id).frame_stack or 1) > 1
    return np.issubdtype(space.dtype, np.floating) and not has_bounds(space).any() and not is_stacked


def statistics_of(observed: np.ndarray) -> dict[str, Any]:
    """
    :param observed: observations of the teacher's play ``(n, ...)``
    :return: mean and variance of each entry, and the number of observations, as JSON can write them
    """
    values = observed.astype(np.float64)
    return {"mean": values.mean(axis=0).tolist(), "var": values.var(axis=0).tolist(), "count": len(values)}


def natural_temperature(teacher: Teacher, observed: np.ndarray) -> float:
    """
    :param teacher: an agent with discrete actions
    :param observed: observations of its play
    :return: the temperature of its answers that a search varies, see ``Space``
    """
    if teacher.has_distribution:
        return 1.0
    obs, _ = teacher.policy.obs_to_tensor(observed)
    return choose_temperature(teacher.answer(obs)[0])


def play_facts(teacher: Teacher, env_id: str, kind: str, folder: Path) -> dict[str, Any]:
    """
    :param teacher: the agent that is compressed
    :param env_id: the environment
    :param kind: see ``Space``
    :param folder: folder of the outcome, in which a search that was killed has left them
    :return: its ``temperature`` and ``statistics``, each None where it is of no use, and whose they are
    """
    whose = {"sha256": teacher.sha256, "env": env_id, "made": str(recipe_of(teacher, env_id)), "recipe": RECIPE}
    path = folder / TEACHER
    if has_json(path, [*whose, "temperature", "statistics"]):
        found: dict[str, Any] = read_json(path)
        if {name: found[name] for name in whose} == whose:
            return found
    normalizes = kind == "vector" and is_to_normalize(teacher, env_id)
    is_discrete = not isinstance(teacher.action_space, spaces.Box)
    temperature, statistics = (1.0 if is_discrete else None), None
    if normalizes or (is_discrete and not teacher.has_distribution):
        observed = record_observations(teacher, env_id, N_OBSERVATIONS).values
        temperature = natural_temperature(teacher, observed) if is_discrete else None
        statistics = statistics_of(observed) if normalizes else None
    return {**whose, "temperature": temperature, "statistics": statistics}


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
