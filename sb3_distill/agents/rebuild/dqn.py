"""Rebuilds DQN's policy from its weights."""

from functools import partial
from typing import Any

from gymnasium import spaces
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill.agents.rebuild.weights import (
    _NOT_LEARNING,
    POLICY_MODULE,
    Weights,
    _extractor,
    _load,
    _widths,
    read_activation,
)
from sb3_distill.networks.dqn_policies import DQNGridCnnPolicy


def build_dqn(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> DQNPolicy:
    """DQN's policy with these weights. Under our policies, StudentCNN scales the frames instead of SB3's policy."""
    is_ours = str(kwargs.get(POLICY_MODULE)).startswith("sb3_distill.")
    make = partial(
        DQNGridCnnPolicy if is_ours else DQNPolicy,
        observation_space,
        action_space,  # type: ignore[arg-type]
        **_NOT_LEARNING,
        net_arch=_widths(weights, "q_net.q_net.")[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        **_extractor(weights, "q_net.features_extractor.", observation_space, kwargs),
    )
    return _load(make, weights, "DQN")
