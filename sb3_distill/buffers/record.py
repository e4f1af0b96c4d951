"""One step of the vector environment, in the form in which replay buffer and recorder receive it."""

from typing import Any, NamedTuple

import numpy as np

from sb3_distill.common.answers import Answers, TaskAnswers
from sb3_distill.envs.atari import FrameStep

Obs = np.ndarray | dict[str, np.ndarray]


class StepRecord(NamedTuple):
    """
    One step of ``n_envs`` environments side by side.

    :param observations: what the teacher saw before the step ``(n_envs, ...)``, not normalised
    :param episode_starts: where an episode begins with that observation ``(n_envs,)``
    :param frame_step: what is known of the frames in it, where the environment stacks them itself
    :param answers: the teacher's answers to it, as arrays; of several tasks' teachers by task
    :param actions: what was played
    :param rewards: what came of it
    :param dones: where an episode ended
    :param infos: what the environment said
    """

    observations: Obs
    episode_starts: np.ndarray
    frame_step: FrameStep | None
    answers: Answers | TaskAnswers
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]
