"""Policies by their names."""

from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy

from sb3_distill.common.utils import unknown_choice


class NamedPoliciesMixin:
    """Mixin of SB3 algorithms: the error for an unknown policy name lists the known names."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]]

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(unknown_choice("policy", policy_name, self.policy_aliases))
        policy_class: Any = super()._get_policy_from_name(policy_name)  # type: ignore[misc]
        return policy_class
