"""Post-training quantization, the baseline of quantization-aware distillation."""

import copy
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import obs_as_tensor

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import load_teacher
from sb3_distill.evaluation.environments import find_env_id
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.networks.frozen import copy_policy, freeze
from sb3_distill.quantization.layers import calibrate, quantize, quantized_layers, set_blend
from sb3_distill.quantization.quantizer import check_bits, has_exact_input


def quantize_agent(
    source: str | Path | BaseAlgorithm | Teacher,
    weight_bits: int,
    activation_bits: int,
    env_id: str | None = None,
    n_observations: int = 1_000,
) -> Teacher:
    """
    Post-training quantization: the baseline that training with quantization must beat. The agent plays whole episodes
    (other ones than those of evaluations), and the step sizes with the least squared error on its weights and its
    observations are chosen; nothing is trained.

    :param source: a student or a teacher of any algorithm (see ``load_teacher``)
    :param weight_bits: precision of all weights, 2 to 8
    :param activation_bits: precision of the inputs of all layers, 2 to 8; frames are exact in any case
    :param env_id: environment in which it plays; None: the one on which it was trained
    :param n_observations: number of observations, drawn from all episodes, from which the step sizes are chosen
    :return: a quantized copy, which plays like every loaded agent
    :raises AgentError: the agent cannot be loaded, is quantized already, or has parts that cannot be quantized
    :raises ValueError: bits out of range, or the environment is not one for this agent
    """
    agent = load_teacher(source, device="cpu")
    check_quantizable(agent, weight_bits, activation_bits)
    observations = record_observations(agent, find_env_id(agent, env_id), n_observations).values
    exact_input = agent.normalization is None and has_exact_input(agent.observation_space)
    return quantize_on(observations, agent, weight_bits, activation_bits, None if exact_input else activation_bits)


def check_quantizable(agent: Teacher, weight_bits: int, activation_bits: int) -> None:
    """
    :param agent: a loaded agent
    :param weight_bits: precision of all weights
    :param activation_bits: precision of the inputs of its layers
    :raises AgentError: the agent is quantized already, or is no chain of layers
    :raises ValueError: bits out of range
    """
    check_bits("weight_bits", weight_bits)
    check_bits("activation_bits", activation_bits)
    if quantized_layers(agent.policy):
        raise AgentError(
            f"{agent.source} is quantized already: distill a student of full precision (without bits), and quantize "
            "that one."
        )
    # Raises where its layers do not form one
    chain_of(agent)


@th.no_grad()
def quantize_on(
    observations: np.ndarray, agent: Teacher, weight_bits: int, activation_bits: int, input_bits: int | None
) -> Teacher:
    """
    Like ``quantize_agent``, with given observations.

    :param observations: raw observations from which the step sizes are chosen
    :param agent: a loaded agent, which is not changed
    :param weight_bits: precision of all weights
    :param activation_bits: precision of the inputs of all layers but the first
    :param input_bits: precision of the observations, None: they are not quantized
    :return: a quantized copy
    :raises AgentError: the agent is quantized already
    :raises ValueError: bits out of range
    """
    check_quantizable(agent, weight_bits, activation_bits)
    quantized = copy.copy(agent)
    quantized.policy = copy_policy(agent.policy)
    quantize(
        quantized.policy,
        quantized.acting_modules,
        lambda position, n_layers, layer: weight_bits,
        lambda position, n_layers, layer: input_bits if position == 0 else activation_bits,
    )
    tensors = obs_as_tensor(observations, quantized.device)
    calibrate(quantized.policy, lambda: quantized.answer(tensors))
    set_blend(quantized.policy, 1.0)
    freeze(quantized.policy)
    return quantized
