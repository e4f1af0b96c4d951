"""Policies that act and never learn: how they are frozen, copied and told apart."""

import copy
import hashlib
from types import SimpleNamespace
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy


def freeze(policy: BasePolicy) -> Any:
    """
    :param policy: a policy that nobody else uses
    :return: the same policy: it acts and never learns, in the layout in which CPU convolutions are fastest
    """
    policy.set_training_mode(False)
    policy.requires_grad_(False)
    return policy.to(memory_format=th.channels_last)  # type: ignore[call-overload]


def hash_weights(policy: BasePolicy) -> str:
    """
    :param policy: a policy
    :return: the sha256 of its weights, which stands for an agent that is no file
    """
    digest = hashlib.sha256()
    for name, tensor in policy.state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def explores_by_state(policy: BasePolicy) -> bool:
    """
    :param policy: a policy
    :return: whether it explores with state-dependent noise (gSDE), whose matrices ``reset_noise`` draws
    """
    return bool(getattr(getattr(policy, "actor", policy), "use_sde", False))


# What SB3's distributions keep of the last observations, with the computation that made it
_LAST_RESULTS = ("distribution", "gaussian_actions", "_latent_sde")


def copy_policy(policy: BasePolicy) -> Any:
    """
    :param policy: a model's policy
    :return: a copy of it
    """
    if explores_by_state(policy):
        # The exploration matrices are sampled with a gradient, which deepcopy refuses; drawn anew without it they pass.
        with th.no_grad():
            policy.reset_noise()  # type: ignore[operator]
    # The last results hang on the computation that made them, which deepcopy refuses too.
    kept = vars(getattr(getattr(policy, "actor", policy), "action_dist", None) or SimpleNamespace())
    last = {name: kept.pop(name) for name in _LAST_RESULTS if name in kept}
    copied = copy.deepcopy(policy)
    kept.update(last)
    return copied
