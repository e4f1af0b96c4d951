"""Rollout buffers that also keep the teacher's answers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_distill.common.answers import Answers


class _AnswersMixin:
    """Mixin of SB3's rollout buffers, whose samples are pairs: SB3's own, and the teacher's answers to them."""

    answers: Answers
    observations: Any
    obs_shape: Any
    buffer_size: int
    n_envs: int
    to_torch: Callable[[np.ndarray], th.Tensor]

    def keep_answers(self, steps: Sequence[Answers]) -> None:
        """
        :param steps: the teacher's answers at each step of the rollout ``(n_envs, ...)``
        """
        arrays = [step.arrays() for step in steps]
        # In the order in which SB3 flattens steps and environments
        self.answers = Answers.of_arrays(
            {name: th.stack([own[name] for own in arrays]).transpose(0, 1).flatten(0, 1) for name in arrays[0]}
        )

    def some_observations(self) -> PyTorchObs:
        """
        :return: up to 1,000 observations of the latest rollout, evenly spread
        """
        n_steps = self.buffer_size * self.n_envs
        rows = np.linspace(0, n_steps - 1, min(n_steps, 1_000)).astype(int)
        parts = self.observations.items() if isinstance(self.observations, dict) else [("", self.observations)]
        shapes = self.obs_shape if isinstance(self.obs_shape, dict) else {"": self.obs_shape}
        found = {key: self.to_torch(part.reshape(n_steps, *shapes[key])[rows]) for key, part in parts}
        return found if isinstance(self.observations, dict) else found[""]

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        return super()._get_samples(batch_inds, env), self.answers.map(lambda rows: rows[batch_inds])  # type: ignore[misc]


class DistillationRolloutBuffer(_AnswersMixin, RolloutBuffer):
    """For observations that are arrays."""


class DictDistillationRolloutBuffer(_AnswersMixin, DictRolloutBuffer):
    """For Dict observations."""
