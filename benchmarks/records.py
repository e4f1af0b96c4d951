"""Steps for memories that are filled without playing."""

from typing import Any

import numpy as np

from sb3_distill.buffers.record import StepRecord
from sb3_distill.common.answers import Answers, TaskAnswers


def step_record(obs: Any, answers: Answers | TaskAnswers) -> StepRecord:
    """A step of which a memory keeps observations and answers; everything else is zero."""
    n_envs = len(obs["task"] if isinstance(obs, dict) else obs)
    nothing = np.zeros(n_envs, dtype=bool)
    return StepRecord(obs, nothing, answers, np.zeros(n_envs, int), np.zeros(n_envs), nothing, [{}] * n_envs)
