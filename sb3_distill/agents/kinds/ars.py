"""Agents of ARS, which searches the weights of a policy: there is no critic, and no distribution over actions."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.ars.policies import ARSPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.answers import Answers, Gaussian


class ARSTeacher(Teacher):
    """An agent of ARS, with discrete or continuous actions."""

    policy: ARSPolicy
    kind = "policy search"

    @property
    def network(self) -> nn.Module:
        return self.policy.action_net

    @property
    def acting_modules(self) -> list[nn.Module]:
        # Without the layer that squashes
        net = self.policy.action_net
        return [self.policy.features_extractor, net[:-1] if self.policy.squash_output else net]

    @th.no_grad()
    def answer(
        self, obs: PyTorchObs, state: Any = None, episode_start: np.ndarray | None = None, with_values: bool = False
    ) -> tuple[Answers, Any]:
        outputs = self.policy.action_net(
            self.policy.extract_features(self.normalize(obs), self.policy.features_extractor)
        )
        if isinstance(self.action_space, spaces.Discrete):
            return Answers(q_values=outputs), None
        if not self.policy.squash_output:
            # Clipped to the bounds, as the mean of a Gaussian is
            assert isinstance(self.action_space, spaces.Box)
            outputs = Answers(gaussian=Gaussian(outputs, th.zeros_like(outputs))).scaled_actions(self.action_space)
        return Answers(point=outputs), None
