"""Scores loaded agents, and writes the scores as rows of results."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import count_macs
from sb3_distill.envs.make import is_atari, make_eval_env
from sb3_distill.evaluation.play import Score, evaluate_paired
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import summarize


def frame_stack_of(agent: Teacher, env_id: str) -> int:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment
    :return: number of frames that are stacked in the agent's observations
    """
    return (agent.frame_stack or 1) if is_atari(env_id) else 1


def env_kwargs_of(agent: Teacher, env_id: str) -> dict[str, Any]:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment in which the agent plays
    :return: arguments of the environment: if the agent was trained on it, those of its training; otherwise none
    """
    return dict(agent.env_kwargs or {}) if agent.env_id == env_id else {}


def architecture_of(agent: Teacher) -> tuple[Any, ...]:
    """
    :param agent: a loaded agent
    :return: the architecture, equal for agents that differ only in their game: the algorithm, the shapes of the layers
        (without the input size of the first layer and the output size of the last one, which depend on the game), and
        the precision of quantized layers
    """
    layers = {name: layer for name, layer in agent.network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    (first, *_), last = layers, list(layers)[-1]
    shapes = []
    for name, layer in layers.items():
        n_out, n_in, *kernel = layer.weight.shape
        is_output = name in (last, "action_net")
        quantizer = getattr(layer, "weight_quantizer", None)
        bits = None if quantizer is None else int(quantizer.bits)
        shapes.append((None if is_output else n_out, None if name == first else n_in, *kernel, bits))
    return agent.algo, *shapes


def check_fits(agent: Teacher, env_id: str, venv: VecEnv) -> None:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment in which it is to play
    :param venv: this environment
    :raises ValueError: the agent was trained with other spaces
    """
    own = agent.observation_space, agent.action_space
    there = venv.observation_space, venv.action_space
    for kind, mine, its in zip(("observations", "actions"), own, there, strict=True):
        # SB3 transposes images with the channels last, so the order of the axes may differ.
        same_shape = sorted(mine.shape or ()) == sorted(its.shape or ())
        if not same_shape or getattr(mine, "n", None) != getattr(its, "n", None):
            raise ValueError(
                f"{agent.source} cannot play {env_id}: it was trained with {kind} {mine}"
                f"{'' if agent.env_id is None else f' on {agent.env_id}'}, not {its}. Name the environment it was "
                "trained on."
            )


def score_agent(
    agent: Teacher,
    env_id: str,
    n_episodes: int,
    epsilon: float = 0.0,
    seed: int = 0,
    deterministic: bool = True,
    start_wrapper: Callable[[gym.Env], gym.Env] | None = None,
    native: bool = False,
    env_kwargs: dict[str, Any] | None = None,
) -> Score:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment in which it plays
    :param n_episodes: number of episodes
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode; with the same seed, all agents get the same starts and random actions
    :param deterministic: whether the agent acts greedily
    :param start_wrapper: wrapper that chooses the states in which episodes of Atari games start
    :param native: step Atari games in C++
    :param env_kwargs: passed to the environment's constructor
    :return: the returns
    :raises ValueError: the agent was trained with other spaces
    """
    plain_env = partial(
        make_eval_env,
        env_id,
        frame_stack=frame_stack_of(agent, env_id),
        env_kwargs=env_kwargs,
        start_wrapper=start_wrapper,
        native=native,
    )

    def make_env(n_envs: int) -> VecEnv:
        venv = plain_env(n_envs)
        check_fits(agent, env_id, venv)
        return venv

    return evaluate_paired(agent, make_env, n_episodes, epsilon, seed, deterministic=deterministic)


def row_of(agent: Teacher, env_id: str, score: Score, reference: Score | None, teacher: Teacher | None = None) -> Row:
    """
    :param agent: the agent that played
    :param env_id: id of the environment
    :param score: the agent's score
    :param reference: the teacher's score, None if there is no teacher
    :param teacher: the teacher, if the sizes are to be compared too
    :return: one row of results
    """
    return Row(
        env=env_id,
        agent=agent.source,
        algo=agent.algo,
        n_parameters=agent.n_parameters,
        n_bytes=agent.n_bytes,
        percent_of_teacher_bytes=None if teacher is None else 100.0 * agent.n_bytes / teacher.n_bytes,
        n_macs=count_macs(agent),
        **asdict(summarize(score.returns)),
        taught_by=None if teacher is None else teacher.source,
        teacher_mean=None if reference is None else reference.mean,
        # A percentage of 0 is not defined.
        percent_of_teacher=None if reference is None or reference.mean == 0 else score.percent_of(reference),
        returns=score.returns,
        lengths=score.lengths,
    )
