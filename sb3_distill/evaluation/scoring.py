"""Scores loaded agents, and writes the scores as rows of results."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import count_macs
from sb3_distill.evaluation.disturbance import Disturbance
from sb3_distill.evaluation.environments import make_env_of
from sb3_distill.evaluation.play import Score, evaluate_paired
from sb3_distill.results.comparison import MARGIN, Pairs, percent_interval, verdict
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import summarize


def architecture_of(agent: Teacher) -> tuple[Any, ...]:
    """
    :param agent: a loaded agent
    :return: the architecture, equal for agents that differ only in their game: the algorithm, the shapes of the layers
        that act (without the input size of the first layer and the output size of the last one, which depend on the
        game), and the precision of quantized layers
    """
    layers: list[Any] = [
        layer
        for module in agent.acting_modules
        for layer in module.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.LSTM))
    ]
    shapes: list[tuple[Any, ...]] = []
    for layer in layers:
        if isinstance(layer, nn.LSTM):
            shapes.append(("LSTM", layer.hidden_size, layer.num_layers))
            continue
        n_out, n_in, *kernel = layer.weight.shape
        quantizer = getattr(layer, "weight_quantizer", None)
        bits = None if quantizer is None else quantizer.bits
        shapes.append((None if layer is layers[-1] else n_out, None if layer is layers[0] else n_in, *kernel, bits))
    return agent.algo, *shapes


def score_agent(
    agent: Teacher,
    env_id: str,
    n_episodes: int,
    epsilon: float = 0.0,
    seed: int = 0,
    deterministic: bool = True,
    start_wrapper: Callable[[gym.Env], gym.Env] | None = None,
    native: bool | None = False,
    env_kwargs: Mapping[str, Any] | None = None,
    progress: bool = False,
    disturbance: Disturbance | None = None,
    action_masks: bool = False,
) -> Score:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment in which it plays
    :param n_episodes: number of episodes
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode; with the same seed, all agents get the same starts and random actions
    :param deterministic: whether the agent acts greedily
    :param start_wrapper: wrapper that chooses the states in which episodes of Atari games start
    :param native: step Atari games in C++; None: those whose scores were shown to agree
    :param env_kwargs: passed to the environment's constructor; None: those of the agent's own run
    :param progress: show a progress bar on a terminal
    :param disturbance: noise, bits and delays; given to several agents, it is the same for all
    :param action_masks: let the agent take only actions that the environment allows; one that was trained so always
        does
    :return: the returns
    :raises ValueError: the environment cannot be made or cannot be disturbed, it has no action masks where they are
        needed, or the agent was trained with other spaces
    """

    def make_env(n_envs: int) -> VecEnv:
        return make_env_of(agent, env_id, n_envs, env_kwargs, start_wrapper, native)

    play = partial(evaluate_paired, agent, make_env, action_masks=action_masks)
    return play(
        n_episodes,
        epsilon,
        seed,
        deterministic=deterministic,
        progress=agent.source if progress else None,
        wrapper=None if disturbance is None else disturbance.wrapper(play),
    )


def compare(pairs: Pairs, margin: float = MARGIN) -> dict[str, Any]:
    """
    :param pairs: episodes of a student and its teacher
    :param margin: per cent of the teacher by which the student may be worse
    :return: the fields of a row that compare the student with the teacher
    """
    if np.isnan(pairs.percent):
        return {"percent_of_teacher": None, "percent_definition": pairs.definition}
    interval = percent_interval(pairs)
    return {
        "percent_of_teacher": pairs.percent,
        "percent_definition": pairs.definition,
        "percent_interval": interval or (),
        "n_distinct_pairs": pairs.n_distinct,
        "margin": margin,
        "verdict": verdict(interval, margin),
    }


def row_of(
    agent: Teacher,
    env_id: str,
    score: Score,
    reference: Score | None,
    teacher: Teacher | None = None,
    margin: float = MARGIN,
) -> Row:
    """
    :param agent: the agent that played
    :param env_id: id of the environment
    :param score: the agent's score
    :param reference: the teacher's score, from the same starts; None if there is no teacher
    :param teacher: the teacher, if the sizes are to be compared too
    :param margin: per cent of the teacher by which the agent may be worse
    :return: one row of results
    """
    comparison: dict[str, Any] = {}
    if reference is not None:
        comparison = compare(Pairs.of(score, reference), margin)
        if teacher is not None and teacher.sha256 == agent.sha256:
            # Nothing is compared.
            comparison = {name: comparison[name] for name in ("percent_of_teacher", "percent_definition")}
    return Row(
        env=env_id,
        agent=agent.source,
        algo=agent.algo,
        n_parameters=agent.n_parameters,
        n_bytes=agent.n_bytes,
        percent_of_teacher_bytes=None
        if teacher is None or not teacher.n_bytes
        else 100.0 * agent.n_bytes / teacher.n_bytes,
        n_macs=count_macs(agent),
        **asdict(summarize(score.returns, score.traces)),
        agent_sha256=agent.sha256,
        taught_by=None if teacher is None else teacher.source,
        teacher_sha256=None if teacher is None else teacher.sha256,
        teacher_mean=None if reference is None else reference.mean,
        **comparison,
        returns=score.returns,
        lengths=score.lengths,
        traces=score.traces,
        statistics_note=agent.facts.statistics_note,
    )
