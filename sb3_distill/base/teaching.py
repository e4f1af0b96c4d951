"""The teacher of an algorithm: its argument, its loading, its checks."""

import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.checks import check_teacher, warn_of_missing_statistics
from sb3_distill.agents.kinds.own import TeacherLike, refuse_function_name
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.sources import ZOO_ALGORITHMS, find_zoo_teacher
from sb3_distill.algorithms import arguments_of
from sb3_distill.base.refusals import RefusalsMixin
from sb3_distill.common.log import shown_messages
from sb3_distill.common.utils import check_count, setting
from sb3_distill.envs.inspection import env_id_of
from sb3_distill.envs.views import ObservationView

SelfTeacherMixin = TypeVar("SelfTeacherMixin", bound="TeacherMixin")
TeacherSource = str | Path | BaseAlgorithm | Teacher | TeacherLike


class TeacherMixin(RefusalsMixin):
    """
    Mixin of SB3 algorithms with a teacher. The teacher is named at construction and loaded there or when ``learn``
    begins. ``save`` writes only the student.
    """

    # Name of the constructor's argument for the teacher
    teacher_argument: ClassVar[str] = "teacher"
    # The source of the teacher (path, "zoo:...", model), and the teacher itself once it is loaded
    teacher: Any = None
    # The source from which a resumed run loads the teacher again (None for a model in memory), and the teacher's
    # hash (None before the teacher is loaded); of several tasks, both by task
    taught_by: Any = None
    teacher_sha256: Any = None
    # The environment that the student was trained on; its zip alone says it to load_teacher
    env_id: str | None = None
    # What agents need that are not searched but can be named, for messages
    other_teachers: ClassVar[str] = ""
    # What the file of a teacher does not say of itself, see ``load_teacher``
    teacher_kwargs: Any = None
    allow_env_mismatch: bool = False
    n_teacher_episodes: int = 0
    # The teacher that was checked last, and its memory, for each environment
    _teacher: Any = None
    _teacher_state: Any = None

    verbose: int
    device: th.device

    def __init__(self, *args: Any, teacher_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher_kwargs = teacher_kwargs

    @classmethod
    def load(cls: type[SelfTeacherMixin], *args: Any, **kwargs: Any) -> SelfTeacherMixin:
        """
        SB3's ``load``, with its arguments. It unpickles the file, so a file from a stranger can run any code here: load
        only what you trust. ``load_teacher`` reads students and teachers of strangers without that.

        :param args: as SB3's ``load``
        :param kwargs: as SB3's ``load``
        :return: the model, without its teacher
        """
        return super().load(*args, **kwargs)  # type: ignore[misc]

    def _setup_teacher(self) -> Any:
        """Load the teacher if it is only named, and check that it fits the environment."""
        check_count("n_teacher_episodes", self.n_teacher_episodes, "the teacher's play is not scored")
        self.env_id = env_id = env_id_of(self._known_env())
        named = getattr(self, self.teacher_argument)
        if named is None and self.taught_by is None and self.teacher_sha256 is not None:
            raise ValueError(
                f"This student's teacher was a model in memory, not a file: pass {setting('teacher', '...')} to go on."
            )
        if named is None:
            refuse_function_name(self.taught_by, "taught_by in the student's file")
        with shown_messages(sys.stdout) if self.verbose > 0 else nullcontext():
            teacher = self._load_teacher(named or self.taught_by or self._find_teacher(env_id))
        self._check_teacher(teacher, env_id)
        if teacher is not self._teacher:
            self._check_statistics(teacher)
        if self._teacher is not None and teacher.sha256 != self._teacher.sha256:
            # Another one cannot go on with it.
            self._teacher_state = None
        if self.teacher_sha256 is not None:
            self._warn_of_another(teacher)
        setattr(self, self.teacher_argument, teacher)
        self._teacher = teacher
        self.taught_by, self.teacher_sha256 = teacher.saved_source, teacher.sha256
        return teacher

    def _warn_of_another(self, teacher: Any) -> None:
        """Say where the teacher is not the one from which this student has learned so far."""
        if not teacher.is_agent(self.teacher_sha256):
            warnings.warn(
                f"This student learned from a teacher with sha256 {self.teacher_sha256}; it goes on with another one: "
                f"{teacher.source}, sha256 {teacher.sha256}."
            )

    def _find_teacher(self, env_id: str | None) -> Any:
        """The source of the default teacher, used if the user names none."""
        own: Any = self
        algos = self.teacher_algorithms(own.action_space, own.policy.squash_output)
        return find_zoo_teacher(env_id, algos, other_algos=self.other_teachers)

    @classmethod
    def teacher_algorithms(cls, action_space: spaces.Space | None, squashes: bool | None = None) -> tuple[str, ...]:
        """
        :param action_space: the environment's actions; None: not known
        :param squashes: whether the student squashes its actions; None: not known
        :return: the algorithms among whose agents a teacher is searched, in the order of preference where no scores are
            recorded
        """
        return ZOO_ALGORITHMS

    def _load_teacher(self, source: Any) -> Any:
        env = self.env.of_teacher() if isinstance(self.env, ObservationView) else self.env
        return load_teacher(source, device=self.device, env=env, teacher_kwargs=self._kwargs_of(source))

    def _kwargs_of(self, source: Any) -> Any:
        """The ``teacher_kwargs`` of a teacher that is not loaded yet."""
        return None if isinstance(source, Teacher) else self.teacher_kwargs

    def _check_teacher(self, teacher: Any, env_id: str | None) -> None:
        """Refuse a teacher that does not fit the environment or the algorithm."""
        env = self._shown_to(teacher)
        has_keys = "teacher_keys" in arguments_of(type(self))
        check_teacher(teacher, env, env_id, self.allow_env_mismatch, has_keys)

    def _shown_to(self, teacher: Any) -> VecEnv:
        """The environment, of which the teacher sees the newest of stacked observations if it knows no others."""
        env = self._known_env()
        view = env if isinstance(env, ObservationView) else ObservationView(env)
        n_stacked = view.show_teacher(teacher.observation_space)
        if n_stacked > 1 and self.verbose > 0 and teacher is not self._teacher:
            print(f"The student sees {n_stacked} stacked observations, the teacher {teacher.source} the newest alone.")
        return view

    def _check_statistics(self, teacher: Any) -> None:
        """Say where the environment normalises observations, and the teacher does not."""
        assert self.env is not None
        warn_of_missing_statistics(teacher, self.env)

    def _excluded_save_params(self) -> list[str]:
        # Only the student is saved.
        return [*super()._excluded_save_params(), self.teacher_argument, "_teacher", "_teacher_state"]  # type: ignore[misc]
