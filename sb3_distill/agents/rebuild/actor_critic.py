"""Rebuilds the policy of PPO, A2C and TRPO from its weights."""

from functools import partial
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from torch import nn

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.weights import _NOT_LEARNING, Weights, _extractor, _load, _widths, read_activation


def build_actor_critic(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> ActorCriticPolicy:
    """The policy of PPO, A2C and TRPO with these weights."""
    weights, arguments = actor_critic_arguments(weights, observation_space, action_space, kwargs)
    make = partial(ActorCriticPolicy, observation_space, action_space, **_NOT_LEARNING, **arguments)
    return _load(make, weights, "actor-critic")


def actor_critic_arguments(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> tuple[Weights, dict[str, Any]]:
    """
    :param weights: the weights in the file
    :param observation_space: the agent's observations
    :param action_space: its actions
    :param kwargs: what the files say of the policy
    :return: the weights by the names that they have today, and the arguments of the policy
    :raises AgentError: the agent is of a kind that SB3 does not have any more
    """
    if any(name.startswith("mlp_extractor.shared_net.") for name in weights):
        raise AgentError(
            "This agent's actor and critic share hidden layers (shared_net), which Stable-Baselines3 does not support "
            "since version 1.8: train the agent again with a newer version."
        )
    weights = dict(weights)
    shared = not any(
        not th.equal(tensor, weights.get(name.replace("vf_", "pi_", 1), th.empty(0)))
        for name, tensor in weights.items()
        if name.startswith("vf_features_extractor.")
    )
    for name in [name for name in weights if name.startswith("features_extractor.")]:
        # Before SB3 1.7, the state dict had only features_extractor; since then it also has pi_features_extractor and
        # vf_features_extractor.
        for owner in ("pi_", "vf_"):
            weights.setdefault(owner + name, weights[name])
    log_std = weights.get("log_std")
    return weights, {
        "net_arch": {
            "pi": _widths(weights, "mlp_extractor.policy_net."),
            "vf": _widths(weights, "mlp_extractor.value_net."),
        },
        "activation_fn": read_activation(kwargs.get("activation_fn"), nn.Tanh),
        "ortho_init": False,
        # With state-dependent exploration (gSDE), log_std is a matrix instead of a vector.
        "use_sde": log_std is not None and log_std.ndim == 2,
        "full_std": log_std is None or log_std.ndim == 1 or log_std.shape[1] == get_action_dim(action_space),
        "use_expln": bool(kwargs.get("use_expln", False)),
        "squash_output": bool(kwargs.get("squash_output", False)),
        "share_features_extractor": shared,
        **_extractor(weights, "pi_features_extractor.", observation_space, kwargs),
    }
