"""The user's settings for the students of real-time policy distillation."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_distill.base.distillation import DistillationAlgorithm
from sb3_distill.base.several.spec import StudentsArgument, check_policy, name_students, read_entries
from sb3_distill.common.temperature import check_number
from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.inspection import describe_space_mismatch
from sb3_distill.networks.policies import STUDENT_POLICIES, StudentPolicy

TEACHER_SOURCES = ("latest", "best")


@dataclass
class StudentSpec:
    """
    The settings of one student. None: use the algorithm's argument of the same name.

    :param policy: name or class of the student's policy (see ``STUDENT_POLICIES``)
    :param policy_kwargs: additional arguments of the policy
    :param learning_rate: learning rate, a schedule of it, or ``"lin_VALUE"`` (the Zoo's notation for a linear decrease
        from VALUE to 0)
    :param loss: "kl", "reverse_kl", "nll" or "mse"
    :param temperature: temperature of the teacher's softmax
    :param student_temperature: temperature of the student's softmax
    :param self_learning: coefficient of the student's own DQN loss
    :param imitation: whether the target of the DQN loss uses the teacher's greedy action
    :param teacher_source: "latest" or "best"
    :param bf16: see ``PolicyDistillation``
    """

    policy: str | type[StudentPolicy]
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    learning_rate: float | str | Schedule | None = None
    loss: str | None = None
    temperature: float | None = None
    student_temperature: float | None = None
    self_learning: float | None = None
    imitation: bool | None = None
    teacher_source: str | None = None
    bf16: bool | None = None


def read_students(students: StudentsArgument) -> dict[str, dict[str, Any]]:
    """
    Check the ``students`` argument, and bring it into one form.

    :param students: a dictionary from names to policies, to ``PolicyDistillation`` models to train further, or to
        entries of ``StudentSpec``; or a list of names of policies
    :return: by name, the entries of each student's ``StudentSpec``
    :raises ValueError: a student's name occurs twice or is not allowed, or a policy or an entry is unknown
    """
    return {name: _read_student(name, entry) for name, entry in name_students(students).items()}


def models_among(
    students: StudentsArgument, observation_space: spaces.Space, action_space: spaces.Space
) -> dict[str, DistillationAlgorithm]:
    """
    :param students: see ``read_students``
    :param observation_space: the teacher's observation space
    :param action_space: the teacher's action space
    :return: by name, the students that are models to train further
    :raises ValueError: the spaces of a model differ from the teacher's
    """
    items = name_students(students).items()
    models = {name: entry for name, entry in items if isinstance(entry, DistillationAlgorithm)}
    for name, model in models.items():
        _check_spaces(name, model, observation_space, action_space)
    return models


def _check_spaces(
    name: str, model: DistillationAlgorithm, observation_space: spaces.Space, action_space: spaces.Space
) -> None:
    problem = describe_space_mismatch(observation_space, model.observation_space)
    if problem:
        raise ValueError(f"The teacher and the student {name!r} differ in their observations: {problem}")
    if model.action_space != action_space:
        raise ValueError(
            f"The teacher and the student {name!r} differ in their actions: {action_space} against "
            f"{model.action_space}."
        )


def _read_student(name: Any, entry: Any) -> dict[str, Any]:
    if isinstance(entry, DistillationAlgorithm):
        entry = {"policy": type(entry.policy), "policy_kwargs": dict(entry.policy_kwargs)}
    known = [item.name for item in dataclasses.fields(StudentSpec)]
    spec = read_entries(name, entry, known)
    check_policy(name, spec.get("policy"), STUDENT_POLICIES, StudentPolicy)
    return spec


def check_student_arguments(temperature: Any, teacher_source: str, self_learning: float) -> None:
    """
    :param temperature: see ``StudentSpec``
    :param teacher_source: see ``StudentSpec``
    :param self_learning: see ``StudentSpec``
    :raises ValueError: the temperature is "auto", the source is unknown, or the coefficient is not a finite number of
        at least 0
    """
    check_number(
        temperature,
        "the teacher's Q-values grow while it learns, so what fits its first ones is wrong for later ones. Pass a "
        "number (see docs/rtpd.md).",
    )
    if teacher_source not in TEACHER_SOURCES:
        raise ValueError(unknown_choice("teacher_source", teacher_source, TEACHER_SOURCES))
    if (
        isinstance(self_learning, bool)
        or not isinstance(self_learning, (int, float))
        or not 0 <= self_learning < math.inf
    ):
        raise ValueError(
            f"self_learning is a coefficient and must be a finite number of at least 0, not {self_learning!r}."
        )


def complete_spec(entries: Mapping[str, Any], defaults: Mapping[str, Any]) -> StudentSpec:
    """
    :param entries: the user's entries for a student
    :param defaults: the algorithm's arguments, used for entries that are missing or None
    :return: the student's settings, in which no entry is None
    """
    own = {name: value for name, value in entries.items() if value is not None}
    # If only one temperature is given, for this student or for all, it applies to both softmaxes (Sun & Fazli 2019,
    # Eq. 1).
    if "temperature" in own or defaults["student_temperature"] is None:
        own.setdefault("student_temperature", own.get("temperature", defaults["temperature"]))
    return StudentSpec(**{**defaults, **own})
