"""Policies that act and never learn: how they are frozen, copied and told apart."""

import copy
import hashlib
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


def copy_policy(policy: BasePolicy) -> Any:
    """
    :param policy: a model's policy
    :return: a copy of it
    """
    if getattr(policy, "use_sde", False):
        # The exploration matrices are sampled with a gradient, which deepcopy refuses; drawn anew without it they pass.
        with th.no_grad():
            policy.reset_noise()  # type: ignore[operator]
    # The last distribution hangs on the computation that made it, which deepcopy refuses too.
    action_dist = getattr(policy, "action_dist", None)
    last = vars(action_dist).pop("distribution", None) if action_dist is not None else None
    copied = copy.deepcopy(policy)
    if last is not None:
        action_dist.distribution = last  # type: ignore[union-attr]
    return copied
