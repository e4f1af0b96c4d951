"""Policies by their names."""

from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy

from sb3_distill.common.utils import unknown_choice


class NamedPoliciesMixin:
    """An algorithm of SB3 whose error for a policy's unknown name lists those that there are."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]]

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(unknown_choice("policy", policy_name, self.policy_aliases))
        policy_class: Any = super()._get_policy_from_name(policy_name)  # type: ignore[misc]
        return policy_class
