"""The ``students`` argument of algorithms that train several students: names, policies, and settings of each."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from sb3_distill.common.utils import setting, unknown_choice
from sb3_distill.results.curves import TEACHER
from sb3_distill.results.row import student_name

StudentsArgument = Mapping[str, Any] | Sequence[str]


def name_students(students: StudentsArgument) -> Mapping[str, Any]:
    """
    :param students: a dictionary from names to students, or a list of names of policies
    :return: the students by name; those of a list are named after their policies
    :raises ValueError: it is neither a dictionary nor a list of names of policies, or a name occurs twice
    """
    if isinstance(students, str) or not isinstance(students, (Mapping, Sequence)):
        raise ValueError(
            "students must be a dictionary from names to policies, such as {'small': 'Net3Policy'}, or a list of "
            f"policies, not {students!r}."
        )
    if not isinstance(students, Mapping):
        for name in students:
            if not isinstance(name, str):
                raise ValueError(
                    f"A list of students holds names of policies, such as 'Net3Policy', not {name!r}: name this "
                    "student in a dictionary such as {'small': ...}."
                )
        twice = [name for name, count in Counter(students).items() if count > 1]
        if twice:
            raise ValueError(
                f"students names {twice[0]!r} twice: give the two students different names, in a dictionary."
            )
        return {student_name(name): name for name in students}
    return students


def read_entries(name: Any, entry: Any, known: Collection[str], of_the_run: Collection[str] = ()) -> dict[str, Any]:
    """
    :param name: name of a student
    :param entry: its policy, or a dictionary with its settings
    :param known: names of the settings that it can have
    :param of_the_run: names of the settings that all students of a run share
    :return: its settings by name
    :raises ValueError: the name is not allowed, or a setting is unknown
    """
    if not isinstance(name, str) or not name.isidentifier() or name == TEACHER or hasattr(nn.ModuleDict, name):
        raise ValueError(
            f"students: {name!r} cannot be the name of a student: use letters, digits and _, and neither 'teacher' nor "
            "a method of torch's ModuleDict."
        )
    entries = dict(entry) if isinstance(entry, Mapping) else {"policy": entry}
    for key in entries:
        if key in of_the_run:
            raise ValueError(
                f"students[{name!r}]: {key} belongs to the run, which all students share: pass it as an argument of "
                "the algorithm."
            )
        if key not in known:
            raise ValueError(f"students[{name!r}]: " + unknown_choice("entry", key, known))
    return entries


def check_policy(name: str, policy: Any, aliases: Mapping[str, type], base: type) -> None:
    """
    :param name: name of a student
    :param policy: its policy
    :param aliases: the policies that have names
    :param base: what a class of the user's own must be
    :raises ValueError: it is none of them
    """
    if not (isinstance(policy, type) and issubclass(policy, base)) and policy not in aliases:
        raise ValueError(f"students[{name!r}]: " + unknown_choice("policy", policy, aliases))


@contextmanager
def naming(name: str) -> Iterator[None]:
    """
    What is refused in here is refused of one of several students.

    :param name: the student's name
    :raises ValueError: something was refused; the message names the student
    """
    try:
        yield
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"students[{name!r}]: {error}") from error


def check_shares(rollout_policy: Any, n_students: int, n_envs: int) -> None:
    """
    :param rollout_policy: who acts, see ``DistillationAlgorithm``
    :param n_students: number of students of the run, the first one too
    :param n_envs: number of environments
    :raises ValueError: students act, and there is no environment for each
    """
    if rollout_policy != "teacher" and n_students > 1 and n_envs < n_students:
        raise ValueError(
            f"With rollout_policy={rollout_policy!r} each student plays in environments of its own, but there are "
            f"{n_students} students and n_envs={n_envs}: make at least {n_students} environments, or pass "
            f"{setting('rollout_policy', repr('teacher'))}."
        )
