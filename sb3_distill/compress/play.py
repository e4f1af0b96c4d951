"""What a search takes from its teacher's play: a temperature, and statistics by which observations are normalized."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.kinds.acting import n_observations
from sb3_distill.common.finite import has_bounds
from sb3_distill.common.temperature import choose_temperature
from sb3_distill.compress.candidates import kind_of
from sb3_distill.compress.view import StudentView
from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.envs.views import part_of
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.reading.text import has_json, read_json

# Observations that both are from
N_OBSERVATIONS = 1_000
# Version of how a student learns. Raise it with every change, so that a search does not go on with students of another.
RECIPE = 2
# In the folder of the outcome: what was found, so that a search which goes on finds the same
TEACHER = "teacher.json"


def normalize_config(key: str | None) -> str:
    """
    :param key: see ``normalize``
    :return: the same as the Zoo's hyperparameters write it: rewards stay as they are, for they are not learned from
    """
    return str({"norm_obs": True, "norm_reward": False} | ({} if key is None else {"norm_obs_keys": [key]}))


def is_to_normalize(space: spaces.Space, recipe: EnvRecipe) -> bool:
    """
    :param space: vectors or matrices that students observe
    :param recipe: how the environment is made
    :return: whether they are floats of which no entry has bounds, as in MuJoCo: these differ in scale, with long tails.
        Not where they are stacked: the Zoo normalizes before it stacks, and its run folders say no other order. And not
        several keys of a Dict
    """
    if not isinstance(space, spaces.Box) or (recipe.frame_stack or 1) > 1:
        return False
    return np.issubdtype(space.dtype, np.floating) and not has_bounds(space).any()


def statistics_of(observed: np.ndarray) -> dict[str, Any]:
    """
    :param observed: observations of the teacher's play ``(n, ...)``
    :return: mean and variance of each entry, and the number of observations, as JSON can write them
    """
    values = observed.astype(np.float64)
    return {"mean": values.mean(axis=0).tolist(), "var": values.var(axis=0).tolist(), "count": len(values)}


def natural_temperature(teacher: Teacher, observed: Any) -> float:
    """
    :param teacher: an agent with discrete actions
    :param observed: observations of its play
    :return: the temperature of its answers that a search varies, see ``Space``
    """
    if teacher.has_distribution:
        return 1.0
    obs, _ = teacher.policy.obs_to_tensor(observed)
    # A memory is empty, as where episodes begin: what counts is how far the Q-values are apart.
    return choose_temperature(teacher.answer(obs, None, np.ones(n_observations(obs), dtype=bool))[0])


def play_facts(
    teacher: Teacher, env_id: str, seen: StudentView, observation_space: spaces.Space, folder: Path
) -> dict[str, Any]:
    """
    :param teacher: the agent that is compressed
    :param env_id: the environment
    :param seen: what students see
    :param observation_space: the space of it
    :param folder: folder of the outcome, in which a search that was killed has left them
    :return: its ``temperature`` and ``statistics``, each None where it is of no use, and whose they are
    """
    keys = {"teacher_keys": teacher.facts.student_keys, "student_keys": seen.keys}
    whose = {"sha256": teacher.sha256, "env": env_id, "made": str(seen.recipe), **keys, "recipe": RECIPE}
    path = folder / TEACHER
    if has_json(path, [*whose, "temperature", "statistics"]):
        found: dict[str, Any] = read_json(path)
        if {name: found[name] for name in whose} == whose:
            return found
    is_discrete = not isinstance(teacher.action_space, spaces.Box)
    temperature, statistics, observed = (1.0 if is_discrete else None), None, None
    if is_discrete and not teacher.has_distribution:
        observed = record_observations(teacher, env_id, N_OBSERVATIONS).values
        temperature = natural_temperature(teacher, observed)
    if kind_of(observation_space) == "vector" and is_to_normalize(observation_space, seen.recipe):
        own = teacher.facts.student_keys
        if observed is None or (own is not None and seen.keys not in (None, own)):
            observed = record_observations(teacher, env_id, N_OBSERVATIONS, keys=seen.keys).values
        statistics = statistics_of(part_of(observed, seen.keys))
    return {**whose, "temperature": temperature, "statistics": statistics}


def normalize(venv: VecEnv, statistics: Mapping[str, Any], key: str | None = None) -> VecNormalize:
    """
    :param venv: an environment
    :param statistics: see ``statistics_of``
    :param key: the key of Dict observations that is normalized; None: they are no Dict
    :return: the environment with normalized observations. Its statistics stay as they are: step sizes of few bits would
        have to follow statistics that move.
    """
    normalized = VecNormalize(venv, training=False, norm_reward=False, norm_obs_keys=None if key is None else [key])
    running: Any = normalized.obs_rms if key is None else normalized.obs_rms[key]
    for name, value in statistics.items():
        setattr(running, name, value if name == "count" else np.array(value))
    return normalized
