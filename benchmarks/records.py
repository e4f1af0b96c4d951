"""Steps for memories that are filled without playing."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from sb3_distill.buffers.record import StepRecord
from sb3_distill.common.answers import Answers, TaskAnswers

FRAMES, ACTIONS = spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6)


def step_record(obs: Any, answers: Answers | TaskAnswers) -> StepRecord:
    """A step of which a memory keeps observations and answers; everything else is zero."""
    n_envs = len(obs["task"] if isinstance(obs, dict) else obs)
    nothing = np.zeros(n_envs, dtype=bool)
    return StepRecord(obs, nothing, answers, np.zeros(n_envs, int), np.zeros(n_envs), nothing, [{}] * n_envs)


def fill_with_frames(model: Any, n_outputs: int, as_answers: Callable[[np.ndarray], Answers], batch_size: int) -> None:
    """
    Set up a model for frames and six actions, put 500 random ones in its replay buffer, and do its first updates.

    :param model: a model of pd or qpd that was made without an environment, not set up yet
    :param n_outputs: numbers that the teacher gives for an observation
    :param as_answers: makes answers of them
    :param batch_size: observations of an update
    """
    model.observation_space, model.action_space, model.n_envs = FRAMES, ACTIONS, 1
    model._setup_model()
    rng = np.random.default_rng(0)
    for _ in range(500):
        frames = rng.integers(0, 255, size=(1, *FRAMES.shape), dtype=np.uint8)
        outputs = rng.normal(size=(1, n_outputs)).astype(np.float32)
        model.replay_buffer.add(step_record(frames, as_answers(outputs)))
    model.set_logger(Logger(None, []))
    model.train(2, batch_size)
