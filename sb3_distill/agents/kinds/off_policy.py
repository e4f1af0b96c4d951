"""Agents whose actor has a critic of observations and actions: SAC, TQC and CrossQ; TD3 and DDPG."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.answers import Answers, Gaussian


class OffPolicyTeacher(Teacher):
    """An agent with an actor for continuous actions, and a critic that values observations and actions."""

    kind = "actor-critic"

    @property
    def network(self) -> nn.Module:
        # Without target networks
        return nn.ModuleDict(
            {"actor": self.policy.actor, **({"critic": self.policy.critic} if self.has_critic else {})}
        )

    @property
    def has_critic(self) -> bool:
        return getattr(self.policy, "critic", None) is not None

    @abstractmethod
    def _act(self, obs: PyTorchObs) -> tuple[dict[str, Any], th.Tensor]:
        """The actor's answer, by the field of ``Answers``, and the greedy actions scaled to [-1, 1]."""

    def _values(self, obs: PyTorchObs, scaled_actions: th.Tensor) -> th.Tensor:
        values = self.policy.critic(obs, scaled_actions)
        # TQC's quantiles (batch, n_critics, n_quantiles), or one value from each critic
        return values.mean(dim=(1, 2)) if isinstance(values, th.Tensor) else th.cat(values, dim=1).amin(dim=1)

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: Any = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, Any]:
        """
        As ``Teacher.answer``. The critic values the agent's own greedy actions: the smaller value of two critics; the
        mean of all quantiles of TQC.
        """
        obs = self.normalize(obs)
        answer, greedy = self._act(obs)
        return Answers(**answer, values=self._values(obs, greedy) if with_values and self.has_critic else None), None


class SquashedGaussianTeacher(OffPolicyTeacher):
    """An agent that draws its actions from a squashed Gaussian: SAC, TQC, CrossQ."""

    has_distribution = True

    @property
    def acting_modules(self) -> list[nn.Module]:
        actor = self.policy.actor
        return [actor.features_extractor, actor.latent_pi, actor.mu]

    def _act(self, obs: PyTorchObs) -> tuple[dict[str, Any], th.Tensor]:
        actor = self.policy.actor
        mean, log_std, keywords = actor.get_action_dist_params(obs)
        normal = actor.action_dist.proba_distribution(mean, log_std, **keywords).distribution
        return {"gaussian": Gaussian(normal.mean, normal.stddev, squashed=True)}, mean.tanh()


class DeterministicTeacher(OffPolicyTeacher):
    """An agent whose actor gives one action: TD3, DDPG."""

    @property
    def acting_modules(self) -> list[nn.Module]:
        # The last one squashes, as SB3's policies of other algorithms do behind their networks.
        return [self.policy.actor.features_extractor, self.policy.actor.mu[:-1]]

    def _act(self, obs: PyTorchObs) -> tuple[dict[str, Any], th.Tensor]:
        actions = self.policy.actor(obs)
        return {"point": actions}, actions
