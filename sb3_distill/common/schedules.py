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
        return _checked(rollout_policy, "rollout_policy", "a probability from 0 to 1", 1.0)
    schedules: dict[str, Callable[[float], float]] = {
        "teacher": lambda _: 1.0,
        "student": lambda _: 0.0,
        "linear": lambda progress_remaining: max(progress_remaining, 0.0),
    }
    if rollout_policy not in schedules:
        raise ValueError(unknown_choice("rollout_policy", rollout_policy, schedules) + " Or pass a function.")
    return schedules[rollout_policy]


def read_schedule(setting: float | str | Schedule, field: str = "learning_rate", may_be_zero: bool = False) -> Schedule:
    """
    :param setting: a number, a schedule of it, or ``"lin_VALUE"``
    :param field: the argument's name
    :param may_be_zero: whether the number may be 0
    :return: the number, as a function of the remaining progress (from 1 to 0)
    :raises ValueError: the setting is none of these, or not positive
    """
    kind = "number of at least 0" if may_be_zero else "positive number"
    if callable(setting):
        # Those of learning rates are called by SB3, as they are.
        return _checked(setting, field, f"a {kind}", math.inf) if may_be_zero else setting
    falls = isinstance(setting, str) and setting.startswith("lin_")
    value = to_number(str(setting).removeprefix("lin_"))
    if not (0 < value < math.inf or (may_be_zero and value == 0)):
        raise ValueError(
            f"{field} must be a {kind}, a schedule, or 'lin_VALUE' (linearly from VALUE to 0), not {setting!r}."
        )
    return LinearSchedule(value, 0.0, 1.0) if falls else FloatSchedule(value)


def _checked(function: Schedule, field: str, kind: str, most: float) -> Schedule:
    """A user's function, whose values are checked. The last steps of a run can lie behind its end: they count as it."""

    def value_at(progress_remaining: float) -> float:
        progress = max(progress_remaining, 0.0)
        value = function(progress)
        number = to_number(value)
        if not 0 <= number <= most or number == math.inf:
            raise ValueError(
                f"{field} must return {kind}, not {value!r}, which it returned for a remaining progress of "
                f"{progress:g}."
            )
        return number

    return value_at
