"""Step records that several test files make."""

from typing import Any

import numpy as np

from sb3_distill.buffers.record import StepRecord
from sb3_distill.common.answers import Answers


def step_record(obs: Any, answers: Any = None, n_actions: int = 2, **changes: Any) -> StepRecord:
    """A step in which nothing ended; the answers are Q-values, or what ``Answers`` there are."""
    n_envs = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
    if answers is None:
        answers = np.zeros((n_envs, n_actions), np.float32)
    if isinstance(answers, np.ndarray):
        answers = Answers(q_values=answers)
    nowhere = np.zeros(n_envs, dtype=bool)
    infos: list[dict[str, Any]] = [{} for _ in range(n_envs)]
    rewards = np.ones(n_envs, np.float32)
    record = StepRecord(obs, nowhere, answers, np.zeros(n_envs, int), rewards, nowhere, infos)
    return record._replace(**changes)
