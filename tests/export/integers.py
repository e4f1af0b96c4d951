"""Small quantized agents with random weights, of every kind that can be written in integers."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from torch import nn

from sb3_distill import load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.base.students import student_model
from sb3_distill.quantization.layers import calibrate, quantize, set_blend
from sb3_distill.quantization.quantizer import has_exact_input

VECTOR = spaces.Box(-np.inf, np.inf, (6,), np.float32)
FRAMES = spaces.Box(0, 255, (4, 36, 36), np.uint8)
GRID = spaces.Box(0, 1, (6, 5, 3), bool)
# Scales of the entries of a vector: far apart
SCALES = np.array([0.01, 1, 2, 30, 0.5, 100], np.float32)


def observations_of(space: spaces.Box, n: int = 100, seed: int = 0) -> np.ndarray:
    """Observations, of vectors with ends and borders between levels among them."""
    rng = np.random.default_rng(seed)
    if space.dtype == np.float32:
        values = rng.standard_normal((n, *space.shape)).astype(np.float32)
        return values * SCALES if space.shape == (6,) else values
    return rng.integers(0, 256 if space.dtype == np.uint8 else 2, (n, *space.shape)).astype(space.dtype)


@th.no_grad()
def quantize_randomly(agent: Teacher, weights: Any = 8, inputs: Any = 8, seed: int = 0) -> Teacher:
    """Random weights and biases, rounded to these bits (a number, or one for each layer)."""
    generator = th.Generator().manual_seed(seed)
    for name, parameter in agent.policy.named_parameters():
        if name.endswith("bias"):
            parameter.copy_(th.rand(parameter.shape, generator=generator) - 0.5)
        elif parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.copy_(th.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
    exact = agent.normalization is None and has_exact_input(agent.observation_space)

    def bits(of: Any, position: int) -> int:
        return of if isinstance(of, int) else of[position]

    quantize(
        agent.policy,
        agent.acting_modules,
        lambda position, n_layers, layer: bits(weights, position),
        lambda position, n_layers, layer: None if exact and position == 0 else bits(inputs, position),
    )
    observations = th.as_tensor(observations_of(agent.observation_space, 50, seed=1))
    calibrate(agent.policy, lambda: agent.answer(observations))
    set_blend(agent.policy, 1.0)
    # Outputs around 0, so that actions differ
    layers = chain_of(agent)
    values = agent.normalize(observations).float()
    for layer in layers:
        values = layer(values)
    last = [layer for layer in layers if hasattr(layer, "bias") and layer.bias is not None][-1]
    last.bias.sub_(values.mean(dim=0).repeat(len(last.bias) // values.shape[1]))
    return agent


def student(policy: str, space: spaces.Box, kwargs: dict[str, Any], n_actions: int = 4) -> Teacher:
    """A student of ``pd``."""
    th.manual_seed(0)
    return load_teacher(student_model(policy, kwargs, space, spaces.Discrete(n_actions), "cpu"), device="cpu")


def vector_agent(activation: type[nn.Module] = nn.ReLU, widths: tuple[int, ...] = (8, 5), **bits: Any) -> Teacher:
    """A student on vectors."""
    kwargs = {"net_arch": list(widths), "activation_fn": activation}
    return quantize_randomly(student("MlpPolicy", VECTOR, kwargs), **bits)


def frame_agent(policy: str = "Net5Policy", **bits: Any) -> Teacher:
    """A student on frames that it standardises."""
    agent = student(policy, FRAMES, {})
    scaler = agent.acting_modules[0].scaler
    scaler.mean.fill_(83.0)
    scaler.scale.fill_(61.0)
    return quantize_randomly(agent, **bits)


def continuous_agent(squashes: bool = False, **bits: Any) -> Teacher:
    """PPO on Pendulum, without training."""
    kwargs: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}
    if squashes:
        kwargs["use_sde"] = True
        kwargs["policy_kwargs"]["squash_output"] = True
    return quantize_randomly(load_teacher(PPO("MlpPolicy", "Pendulum-v1", **kwargs), device="cpu"), **bits)


AGENTS = {
    "relu": lambda: vector_agent(),
    "tanh": lambda: vector_agent(nn.Tanh),
    "sigmoid": lambda: vector_agent(nn.Sigmoid),
    "tanh of few bits": lambda: vector_agent(nn.Tanh, weights=4, inputs=5),
    "sigmoid of few bits": lambda: vector_agent(nn.Sigmoid, weights=6, inputs=6),
    "few bits": lambda: vector_agent(weights=(4, 2, 3), inputs=(5, 3, 2)),
    "one layer": lambda: vector_agent(widths=()),
    "frames": lambda: frame_agent(),
    "few bits of frames": lambda: frame_agent(weights=(8, 3, 2, 5, 8), inputs=4),
    "max-pool": lambda: frame_agent("MaxPoolCnnPolicy"),
    "grid": lambda: quantize_randomly(student("GridCnnPolicy", GRID, {"features_extractor_kwargs": {"channels": 4}})),
    "pooled grid": lambda: quantize_randomly(
        student("GridCnnPolicy", GRID, {"features_extractor_kwargs": {"channels": 4, "pool": "max"}})
    ),
    "bytes": lambda: quantize_randomly(student("MlpPolicy", spaces.Box(0, 255, (12,), np.uint8), {"net_arch": [6]})),
    "continuous": lambda: continuous_agent(),
    "squashed": lambda: continuous_agent(squashes=True),
}
