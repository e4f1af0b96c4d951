"""Records observations of an agent's episodes, with which the agent is quantized and its exported files are checked."""

from contextlib import closing
from typing import Any

import numpy as np

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.evaluation.environments import make_env_of

N_ENVS = 4
# Share of random actions, so that the observations are not limited to the agent's own trajectories
EPSILON = 0.1


def record_observations(agent: Teacher, env_id: str, n_observations: int, seed: int = 0) -> np.ndarray:
    """
    Let an agent play, with a share ``EPSILON`` of random actions, and record its observations.

    :param agent: a loaded agent
    :param env_id: id of the environment
    :param n_observations: number of observations
    :param seed: seed of the environment and the random actions
    :return: raw observations ``(n_observations, ...)``
    :raises AgentError: the agent's network is not a sequence of layers (see ``chain_of``)
    :raises ValueError: the environment cannot be made or has other spaces than the agent, or ``n_observations`` is
        below 1
    """
    if n_observations < 1:
        raise ValueError(f"n_observations must be at least 1, not {n_observations}: nothing would be recorded.")
    # Raises for Dict and Discrete observations, which cannot be recorded as one array
    chain_of(agent)
    recorded: list[np.ndarray] = []
    with closing(make_env_of(agent, env_id, N_ENVS)) as venv:
        venv.seed(seed)
        venv.action_space.seed(seed)
        rng = np.random.default_rng(seed)
        obs: Any = venv.reset()
        while len(recorded) * N_ENVS < n_observations:
            recorded.append(obs)
            actions, _ = agent.predict(obs)
            for env in np.flatnonzero(rng.random(N_ENVS) < EPSILON):
                actions[env] = venv.action_space.sample()
            obs, *_ = venv.step(actions)
    return np.concatenate(recorded)[:n_observations]
