"""One step of the vector environment, in the form in which replay buffer and recorder receive it."""

from typing import Any, NamedTuple

import numpy as np

from sb3_distill.common.answers import Answers, TaskAnswers

Obs = np.ndarray | dict[str, np.ndarray]


class StepRecord(NamedTuple):
    """
    One step of a vector environment with ``n_envs`` environments.

    :param observations: the student's observations before the step ``(n_envs, ...)``, not normalized
    :param episode_starts: whether each observation is the first of its episode ``(n_envs,)``
    :param answers: the teacher's answers to the observations, as arrays; grouped by task if there are several teachers
    :param actions: the actions taken in the environment; continuous ones before they are clipped to its bounds
    :param rewards: the rewards of the step
    :param dones: whether the step ended the episode
    :param infos: the infos of the step
    """

    observations: Obs
    episode_starts: np.ndarray
    answers: Answers | TaskAnswers
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]
