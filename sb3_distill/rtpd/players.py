"""The players (teacher and students) of a run of real-time distillation, and students as separate models."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.dqn.dqn import DQN

from sb3_distill.base.several.spec import StudentsArgument
from sb3_distill.base.students import student_model
from sb3_distill.common.utils import unchanged_randomness, unknown_choice
from sb3_distill.envs.inspection import env_id_of
from sb3_distill.networks.frozen import hash_weights
from sb3_distill.results.curves import TEACHER
from sb3_distill.rtpd.spec import read_students
from sb3_distill.rtpd.students import StudentGroup


class DQNWithStudents(DQN):
    """A DQN with students. ``act_with`` names the player whose actions ``predict`` returns."""

    act_with: str
    # By name: the user's entries for each student, and the students themselves
    students: Any
    student_nets: StudentGroup
    # The teacher's best network so far, None if no student follows it
    best_q_net: Any

    @classmethod
    def read_students(cls, students: StudentsArgument) -> dict[str, dict[str, Any]]:
        """See ``spec.read_students``."""
        return read_students(students)

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # During training, always the teacher acts: act_with applies only to calls of predict by others.
        act_with, self.act_with = self.act_with, TEACHER
        try:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        finally:
            self.act_with = act_with

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Get the action of the player that ``act_with`` names.

        :param observation: the input observation
        :param state: unused (recurrent policies only)
        :param episode_start: unused (recurrent policies only)
        :param deterministic: False: the teacher explores as in DQN; students always act greedily
        :return: the model's action and the next state
        """
        if self.act_with == TEACHER:
            return super().predict(observation, state, episode_start, deterministic)
        return self.player(self.act_with).predict(observation, state, episode_start, deterministic=True)

    def player(self, name: str) -> BasePolicy:
        """
        :param name: "teacher" or the name of a student
        :return: its policy
        :raises ValueError: there is no such player
        """
        if name == TEACHER:
            return self.policy
        if name not in self.students:
            raise ValueError(unknown_choice("player", name, [TEACHER, *self.students]))
        policy: BasePolicy = self.student_nets[name].policy
        return policy

    def student_model(self, name: str) -> BaseAlgorithm:
        """
        Wrap a student in a model of its own.

        :param name: the student
        :return: a ``PolicyDistillation`` with a copy of its weights
        :raises ValueError: there is no such student
        """
        policy = self.player(name)
        spec: Mapping[str, Any] = self.students[name]
        with unchanged_randomness():
            model: Any = student_model(
                spec["policy"],
                dict(spec.get("policy_kwargs", {})),
                self.observation_space,
                self.action_space,
                self.device,
                None if self.env is None else env_id_of(self.env),
            )
        model.policy.load_state_dict(policy.state_dict())
        model.num_timesteps, model._n_updates = self.num_timesteps, self._n_updates
        # A model in memory taught this student: if it is trained further, the user must name a teacher (TeacherMixin).
        follows_best = self.student_nets[name].spec.teacher_source == "best"
        model.teacher_sha256 = hash_weights(self.best_q_net if follows_best else self.policy)
        return model
