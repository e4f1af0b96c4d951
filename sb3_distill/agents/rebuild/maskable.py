"""Rebuilds the policy of MaskablePPO from its weights."""

from functools import partial
from typing import Any

from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from sb3_distill.agents.rebuild.actor_critic import actor_critic_arguments
from sb3_distill.agents.rebuild.weights import _NOT_LEARNING, Weights, _load

# SB3-contrib's policy has none of these: its actions are never continuous.
_OF_CONTINUOUS = ("use_sde", "full_std", "use_expln", "squash_output")


def build_maskable(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> MaskableActorCriticPolicy:
    """The policy of MaskablePPO with these weights."""
    weights, arguments = actor_critic_arguments(weights, observation_space, action_space, kwargs)
    arguments = {name: value for name, value in arguments.items() if name not in _OF_CONTINUOUS}
    make = partial(MaskableActorCriticPolicy, observation_space, action_space, **_NOT_LEARNING, **arguments)
    return _load(make, weights, "MaskablePPO")
