"""Rollout buffers that also keep the teacher's answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_distill.common.answers import Answers


class _AnswersMixin:
    """Mixin of SB3's rollout buffers, whose samples are pairs: SB3's own, and the teacher's answers to them."""

    answers: Answers

    def keep_answers(self, steps: Sequence[Answers]) -> None:
        """
        :param steps: the teacher's answers at each step of the rollout ``(n_envs, ...)``
        """
        arrays = [step.arrays() for step in steps]
        # In the order in which SB3 flattens steps and environments
        self.answers = Answers.of_arrays(
            {name: th.stack([own[name] for own in arrays]).transpose(0, 1).flatten(0, 1) for name in arrays[0]}
        )

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        return super()._get_samples(batch_inds, env), self.answers.map(lambda rows: rows[batch_inds])  # type: ignore[misc]


class DistillationRolloutBuffer(_AnswersMixin, RolloutBuffer):
    """For observations that are arrays."""


class DictDistillationRolloutBuffer(_AnswersMixin, DictRolloutBuffer):
    """For Dict observations."""
