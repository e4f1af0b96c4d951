"""Rebuilds DQN's policy from its weights."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill.agents.rebuild.students import _student_extractor
from sb3_distill.agents.rebuild.weights import Weights, _extractor, _load, _no_learning_rate, _widths, read_activation


def build_dqn(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> DQNPolicy:
    """DQN's policy with these weights."""
    prefix, normalize_images = "q_net.features_extractor.", kwargs.get("normalize_images", True)
    if f"{prefix}scaler.mean" in weights:
        # DQN that was trained with the policy class of a student
        extractor = _student_extractor(weights, prefix, observation_space)
    else:
        extractor = _extractor(weights, prefix, observation_space, normalize_images)
        extractor["normalize_images"] = normalize_images
    policy = DQNPolicy(
        observation_space,
        action_space,  # type: ignore[arg-type]
        _no_learning_rate,
        net_arch=_widths(weights, "q_net.q_net.")[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        **extractor,
    )
    return _load(policy, weights, "DQN")
