"""Rebuilds the students of this library from their weights."""

from functools import partial
from typing import Any

from gymnasium import spaces
from torch import nn

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.weights import _NOT_LEARNING, Weights, _extractor, _load, _widths, read_activation
from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy
from sb3_distill.networks.policies import StudentPolicy
from sb3_distill.quantization.layers import MARK, of_format_1, replace_layers
from sb3_distill.quantization.quantizer import check_bits


def build_actor_critic_student(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> ActorCriticMlpPolicy:
    """A student of ``QPD`` or PPD with these weights, in float32 or quantized."""
    make = partial(
        ActorCriticMlpPolicy,
        observation_space,
        action_space,
        **_NOT_LEARNING,
        net_arch={
            "pi": _widths(weights, "mlp_extractor.policy_net."),
            "vf": _widths(weights, "mlp_extractor.value_net."),
        },
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.Tanh),
        share_features_extractor=bool(kwargs.get("share_features_extractor", True)),
        squash_output=bool(kwargs.get("squash_output", False)) and isinstance(action_space, spaces.Box),
        **_extractor(weights, "pi_features_extractor.", observation_space, kwargs),
    )
    for name, tensor in weights.items():
        if name.endswith(("_quantizer.bits", "_quantizer.final_bits")):
            check_bits(name, int(tensor))

    def make_quantized() -> ActorCriticMlpPolicy:
        policy = make()
        settings: dict[str, tuple[int, int | None, bool]] = {}
        for name, _ in policy.named_modules():
            bits, steps = weights.get(f"{name}.weight_quantizer.bits"), weights.get(f"{name}.input_quantizer.step")
            if bits is not None:
                input_bits = None if steps is None else int(weights[f"{name}.input_quantizer.bits"])
                settings[name] = int(bits), input_bits, steps is not None and len(steps) > 1
                if settings[name][2] and f"{name}.{MARK}" not in weights:
                    raise AgentError(of_format_1(name))
        if settings:
            replace_layers(policy, settings)
        return policy

    return _load(make_quantized, weights, "student")


def build_student(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> StudentPolicy:
    """A student of this library with these weights."""
    make = partial(
        StudentPolicy,
        observation_space,
        action_space,  # type: ignore[arg-type]
        **_NOT_LEARNING,
        net_arch=_widths(weights, "q_net.q_net.")[:-1],
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        **_extractor(weights, "q_net.features_extractor.", observation_space, kwargs),
    )
    return _load(make, weights, "student")
