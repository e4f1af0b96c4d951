"""Records observations of an agent's episodes, with which the agent is quantized and its exported files are checked."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.scoring import check_fits, env_kwargs_of, frame_stack_of

N_ENVS = 4
# Share of random actions, so that the observations are not limited to the agent's own trajectories
EPSILON = 0.1


def find_env_id(agent: Teacher, env_id: str | None) -> str:
    """
    :param agent: a loaded agent
    :param env_id: the id that the user names; None: the id of the environment on which the agent was trained
    :return: the environment's id
    :raises AgentError: the user names no id, and the agent's files do not tell it
    """
    env_id = env_id or agent.env_id
    if env_id is None:
        raise AgentError(f"{agent.source} does not say its environment: name it with --env (in Python, env_id=).")
    return env_id


def make_env_of(agent: Teacher, env_id: str) -> VecEnv:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment
    :return: a vector environment with ``N_ENVS`` copies of the environment
    :raises AgentError: the environment does not exist
    :raises ValueError: the environment has other spaces than the agent
    """
    try:
        venv = make_eval_env(env_id, N_ENVS, frame_stack_of(agent, env_id), env_kwargs_of(agent, env_id))
    except gym.error.Error as error:
        raise AgentError(
            f"The environment {env_id} of {agent.source} cannot be made: {error} Name another one with --env, such as "
            "a newer version (in Python, env_id=)."
        ) from error
    try:
        check_fits(agent, env_id, venv)
    except ValueError:
        venv.close()
        raise
    return transpose_for(venv, agent.observation_space.shape)


def transpose_for(venv: VecEnv, shape: Sequence[int] | None) -> VecEnv:
    """
    :param venv: an environment that fits an agent
    :param shape: shape of the agent's observations
    :return: the environment; if the agent's images are channels-first and the environment's are not, transposed
    """
    return venv if venv.observation_space.shape == tuple(shape or ()) else VecTransposeImage(venv)


def record_observations(agent: Teacher, env_id: str, n_observations: int, seed: int = 0) -> np.ndarray:
    """
    Let an agent play, with a share ``EPSILON`` of random actions, and record its observations.

    :param agent: a loaded agent
    :param env_id: id of the environment
    :param n_observations: number of observations
    :param seed: seed of the environment and the random actions
    :return: raw observations ``(n_observations, ...)``
    :raises AgentError: the agent's network is not a sequence of layers (see ``chain_of``), or the environment cannot be
        made
    :raises ValueError: the environment has other spaces than the agent, or ``n_observations`` is below 1
    """
    if n_observations < 1:
        raise ValueError(f"n_observations must be at least 1, not {n_observations}: nothing would be recorded.")
    # Raises for Dict and Discrete observations, which cannot be recorded as one array
    chain_of(agent)
    venv = make_env_of(agent, env_id)
    venv.seed(seed)
    venv.action_space.seed(seed)
    rng = np.random.default_rng(seed)
    obs: Any = venv.reset()
    recorded: list[np.ndarray] = []
    while len(recorded) * N_ENVS < n_observations:
        recorded.append(obs)
        actions, _ = agent.predict(obs)
        for env in np.flatnonzero(rng.random(N_ENVS) < EPSILON):
            actions[env] = venv.action_space.sample()
        obs, *_ = venv.step(actions)
    venv.close()
    return np.concatenate(recorded)[:n_observations]
