"""Rebuilds the students of this library from their weights."""

from typing import Any

from gymnasium import spaces
from torch import nn

from sb3_distill.agents.rebuild.weights import Weights, _extractor, _load, _no_learning_rate, _widths, read_activation
from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy, actor_modules
from sb3_distill.networks.policies import StudentPolicy
from sb3_distill.quantization.layers import quantize


def build_actor_critic_student(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> ActorCriticMlpPolicy:
    """A student of ``QPD`` with these weights, in float32 or quantized."""
    policy = ActorCriticMlpPolicy(
        observation_space,
        action_space,
        _no_learning_rate,
        net_arch={
            "pi": _widths(weights, "mlp_extractor.policy_net."),
            "vf": _widths(weights, "mlp_extractor.value_net."),
        },
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.Tanh),
        share_features_extractor=bool(kwargs.get("share_features_extractor", True)),
        **_extractor(weights, "pi_features_extractor.", observation_space, kwargs),
    )
    bits = {
        name: (int(weights[f"{name}.weight_quantizer.bits"]), weights.get(f"{name}.input_quantizer.bits"))
        for name, module in policy.named_modules()
        if f"{name}.weight_quantizer.bits" in weights
    }
    if bits:
        layers = {policy.get_submodule(name): choice for name, choice in bits.items()}
        quantize(
            policy,
            actor_modules(policy),
            lambda position, n_layers, layer: layers[layer][0],
            lambda position, n_layers, layer: None if layers[layer][1] is None else int(layers[layer][1]),  # type: ignore[arg-type]
        )
    return _load(policy, weights, "student")


def build_student(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> StudentPolicy:
    """A student of this library with these weights."""
    policy = StudentPolicy(
        observation_space,
        action_space,  # type: ignore[arg-type]
        _no_learning_rate,
        net_arch=_widths(weights, "q_net.q_net.")[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        **_extractor(weights, "q_net.features_extractor.", observation_space, kwargs),
    )
    return _load(policy, weights, "student")
