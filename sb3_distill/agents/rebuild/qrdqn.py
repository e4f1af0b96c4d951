"""Rebuilds QR-DQN's policy from its weights."""

from functools import partial
from typing import Any

from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from torch import nn

from sb3_distill.agents.rebuild.weights import _NOT_LEARNING, Weights, _extractor, _load, _widths, read_activation


def build_qrdqn(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> QRDQNPolicy:
    """QR-DQN's policy with these weights."""
    widths = _widths(weights, "quantile_net.quantile_net.")
    n_actions = int(action_space.n)  # type: ignore[attr-defined]
    make = partial(
        QRDQNPolicy,
        observation_space,
        action_space,  # type: ignore[arg-type]
        **_NOT_LEARNING,
        n_quantiles=widths[-1] // n_actions,
        net_arch=widths[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        **_extractor(weights, "quantile_net.features_extractor.", observation_space, kwargs),
    )
    return _load(make, weights, "QR-DQN")
