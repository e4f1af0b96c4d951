"""Rebuilds the policy of RecurrentPPO from its weights."""

import re
from functools import partial
from typing import Any

from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.actor_critic import actor_critic_arguments
from sb3_distill.agents.rebuild.weights import _NOT_LEARNING, Weights, _load
from sb3_distill.reading.limits import MAX_LAYERS, check_size

_LAYER = re.compile(r"lstm_actor\.weight_hh_l\d+")


def build_recurrent(
    weights: Weights, observation_space: spaces.Space, action_space: spaces.Space, kwargs: dict[str, Any]
) -> RecurrentActorCriticPolicy:
    """The policy of RecurrentPPO with these weights."""
    layers = [name for name in weights if _LAYER.fullmatch(name)]
    if "lstm_actor.weight_hh_l0" not in layers or weights["lstm_actor.weight_hh_l0"].ndim != 2:
        raise AgentError("This RecurrentPPO agent has no LSTM in its weights (lstm_actor): save it again.")
    check_size("The LSTM", len(layers), MAX_LAYERS, "layers")
    weights, arguments = actor_critic_arguments(weights, observation_space, action_space, kwargs)
    has_own = any(name.startswith("lstm_critic.") for name in weights)
    make = partial(
        RecurrentActorCriticPolicy,
        observation_space,
        action_space,
        **_NOT_LEARNING,
        lstm_hidden_size=weights["lstm_actor.weight_hh_l0"].shape[1],
        n_lstm_layers=len(layers),
        # The critic has an LSTM of its own, else a linear layer in its place, else the actor's.
        enable_critic_lstm=has_own,
        shared_lstm=not has_own and "critic.weight" not in weights,
        lstm_kwargs=None if "lstm_actor.bias_hh_l0" in weights else {"bias": False},
        **arguments,
    )
    return _load(make, weights, "RecurrentPPO")
