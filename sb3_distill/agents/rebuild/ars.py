"""Rebuilds ARS's policies from their weights."""

from functools import partial
from typing import Any

from gymnasium import spaces
from sb3_contrib.ars.policies import ARSPolicy
from torch import nn

from sb3_distill.agents.rebuild.weights import Weights, _load, _widths, read_activation


def build_ars(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> ARSPolicy:
    """ARS's policy with these weights."""
    # Early versions had a single layer where there is a sequence today.
    weights = {name.replace("action_net.weight", "action_net.0.weight"): tensor for name, tensor in weights.items()}
    weights = {name.replace("action_net.bias", "action_net.0.bias"): tensor for name, tensor in weights.items()}
    widths = _widths(weights, "action_net.")[:-1]
    # Files name the module of ARSPolicy and ARSLinearPolicy, which squash by default and do not, but not the class.
    is_linear_policy = not widths and "net_arch" not in kwargs
    make = partial(
        ARSPolicy,
        observation_space,
        action_space,
        net_arch=widths,
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        with_bias=any(name.endswith(".bias") for name in weights),
        squash_output=bool(kwargs.get("squash_output", not is_linear_policy)),
    )
    return _load(make, weights, "ARS")
