"""Schedules: functions of the remaining progress of a run, which goes from 1 to 0."""

import math
from collections.abc import Callable

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from sb3_distill.common.utils import to_number, unknown_choice

RolloutPolicy = str | Callable[[float], float]


def teacher_share_schedule(rollout_policy: RolloutPolicy) -> Callable[[float], float]:
    """
    :param rollout_policy: "teacher", "student", "linear", or a function of the remaining progress (from 1 to 0)
    :return: probability that the teacher acts, as a function of the remaining progress
    :raises ValueError: unknown name
    """
    if callable(rollout_policy):
        return rollout_policy
    schedules: dict[str, Callable[[float], float]] = {
        "teacher": lambda _: 1.0,
        "student": lambda _: 0.0,
        "linear": lambda progress_remaining: max(progress_remaining, 0.0),
    }
    if rollout_policy not in schedules:
        raise ValueError(unknown_choice("rollout_policy", rollout_policy, schedules) + " Or pass a function.")
    return schedules[rollout_policy]


def read_schedule(learning_rate: float | str | Schedule) -> Schedule:
    """
    :param learning_rate: learning rate, a schedule of it, or ``"lin_VALUE"``
    :return: the learning rate, as a function of the remaining progress (from 1 to 0)
    :raises ValueError: the learning rate is none of these, or not positive
    """
    if callable(learning_rate):
        return learning_rate
    falls = isinstance(learning_rate, str) and learning_rate.startswith("lin_")
    value = to_number(str(learning_rate).removeprefix("lin_"))
    if not 0 < value < math.inf:
        raise ValueError(
            "learning_rate must be a positive number, a schedule, or 'lin_VALUE' (linearly from VALUE to 0), "
            f"not {learning_rate!r}."
        )
    return LinearSchedule(value, 0.0, 1.0) if falls else FloatSchedule(value)
