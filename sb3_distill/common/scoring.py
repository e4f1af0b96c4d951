"""Scores of loaded agents, and the rows in which they are written down."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import gymnasium as gym

from sb3_distill.common.evaluation import Score, evaluate_paired, is_atari, make_eval_env
from sb3_distill.common.layers import count_macs
from sb3_distill.common.statistics import summarize
from sb3_distill.common.teachers import Teacher


def score_agent(
    agent: Teacher,
    env_id: str,
    n_episodes: int,
    epsilon: float = 0.0,
    seed: int = 0,
    deterministic: bool = True,
    start_wrapper: Callable[[gym.Env], gym.Env] | None = None,
    native: bool = False,
) -> Score:
    """
    :param agent: a loaded agent
    :param env_id: where it plays
    :param n_episodes: number of episodes
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode: the same starts and random actions for every agent
    :param deterministic: whether the agent acts greedily
    :param start_wrapper: chooses where episodes of Atari games start
    :param native: step Atari games in C++
    :return: the returns
    """
    make_env = partial(
        make_eval_env,
        env_id,
        frame_stack=(agent.frame_stack or 1) if is_atari(env_id) else 1,
        start_wrapper=start_wrapper,
        native=native,
    )
    return evaluate_paired(agent, make_env, n_episodes, epsilon, seed, deterministic=deterministic)


def describe(agent: Teacher, env_id: str, score: Score, reference: Score | None) -> dict[str, Any]:
    """
    :param agent: who played
    :param env_id: where
    :param score: how well
    :param reference: how well the teacher did, where there is one
    :return: one row of results
    """
    return {
        "env": env_id,
        "agent": agent.source,
        "algo": agent.algo,
        "n_parameters": agent.n_parameters,
        "n_bytes": agent.stored_bytes,
        "n_macs": count_macs(agent),
        **asdict(summarize(score.returns)),
        "teacher_mean": None if reference is None else reference.mean,
        "percent_of_teacher": None if reference is None else score.percent_of(reference),
        "returns": score.returns,
        "lengths": score.lengths,
    }
