"""Rebuilds the policies of SAC, TQC, CrossQ, TD3 and DDPG from their weights."""

import re
from functools import partial
from typing import Any

from gymnasium import spaces
from sb3_contrib.crossq.policies import CrossQPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.weights import _NOT_LEARNING, Weights, _extractor, _load, _widths, read_activation
from sb3_distill.common.finite import has_bounds

_CRITIC = re.compile(r"critic\.(?P<name>qf\d+)\.")


def _build(
    policy_class: type[BasePolicy],
    weights: Weights,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    kwargs: dict[str, Any],
    actor_widths: list[int],
    name: str,
    **own: Any,
) -> Any:
    """A policy with an actor of these hidden layers, and critics as the weights have them."""
    if not isinstance(action_space, spaces.Box) or not has_bounds(action_space).all():
        raise AgentError(f"{name} has continuous actions with finite bounds, but this file states {action_space}.")
    critics = {found["name"] for found in map(_CRITIC.match, weights) if found}
    if not critics:
        raise AgentError(f"The weights of the critic are missing: save the whole {name} agent, not its actor alone.")
    make = partial(
        policy_class,
        observation_space,
        action_space,
        **_NOT_LEARNING,
        net_arch={"pi": actor_widths, "qf": _widths(weights, "critic.qf0.")[:-1]},
        activation_fn=read_activation(kwargs.get("activation_fn"), nn.ReLU),
        n_critics=len(critics),
        **_extractor(weights, "actor.features_extractor.", observation_space, kwargs),
        **own,
    )
    return _load(make, weights, name)


def _gaussian_keywords(weights: Weights, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for the distribution of SAC, TQC and CrossQ. With gSDE, the deviations are no layer but a matrix."""
    is_clipped = "actor.mu.0.weight" in weights
    return {
        "use_sde": "actor.log_std" in weights,
        "use_expln": bool(kwargs.get("use_expln", False)),
        "clip_mean": float(kwargs.get("clip_mean", 2.0)) if is_clipped else 0.0,
    }


def build_sac(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> SACPolicy:
    """SAC's policy with these weights."""
    widths, own = _widths(weights, "actor.latent_pi."), _gaussian_keywords(weights, kwargs)
    return _build(SACPolicy, weights, observation_space, action_space, kwargs, widths, "SAC", **own)


def build_tqc(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> TQCPolicy:
    """TQC's policy with these weights."""
    widths, own = _widths(weights, "actor.latent_pi."), _gaussian_keywords(weights, kwargs)
    own["n_quantiles"] = _widths(weights, "critic.qf0.")[-1]
    return _build(TQCPolicy, weights, observation_space, action_space, kwargs, widths, "TQC", **own)


def build_crossq(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> CrossQPolicy:
    """CrossQ's policy with these weights."""
    widths, own = _widths(weights, "actor.latent_pi."), _gaussian_keywords(weights, kwargs)
    own["batch_norm"] = any(name.endswith(".ra_mean") for name in weights)
    own["batch_norm_eps"] = float(kwargs.get("batch_norm_eps", 0.001))
    return _build(CrossQPolicy, weights, observation_space, action_space, kwargs, widths, "CrossQ", **own)


def build_td3(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> TD3Policy:
    """The policy of TD3 and DDPG with these weights."""
    widths = _widths(weights, "actor.mu.")[:-1]
    return _build(TD3Policy, weights, observation_space, action_space, kwargs, widths, "TD3")
