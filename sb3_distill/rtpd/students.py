"""The students of real-time policy distillation: what the user says of them, and how one learns."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples, Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule, polyak_update, update_learning_rate
from torch import nn
from torch.nn import functional as F

from sb3_distill.common.losses import DistillationLoss
from sb3_distill.common.utils import to_number, unknown_choice
from sb3_distill.envs.inspection import describe_space_mismatch
from sb3_distill.networks.extractors import set_train_dtype
from sb3_distill.networks.policies import STUDENT_POLICIES, StudentPolicy
from sb3_distill.pd import PolicyDistillation
from sb3_distill.results.curves import TEACHER

TEACHER_SOURCES = ("latest", "best")

StudentsArgument = Mapping[str, Any] | Sequence[str]


@dataclass
class StudentSpec:
    """
    What is said of one student. None means: as the algorithm's argument of the same name.

    :param policy: name or class of its policy (see ``STUDENT_POLICIES``)
    :param policy_kwargs: additional arguments of the policy
    :param learning_rate: learning rate, a schedule of it, or ``"lin_VALUE"``, as the Zoo writes one that falls to 0
    :param loss: "kl", "reverse_kl", "nll" or "mse"
    :param temperature: of the teacher's softmax
    :param student_temperature: of the student's softmax
    :param self_learning: coefficient of the student's own DQN loss
    :param imitation: whether the DQN loss bootstraps with the teacher's choice of action
    :param teacher_source: "latest" or "best"
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


def read_students(
    students: StudentsArgument, observation_space: spaces.Space, action_space: spaces.Space
) -> tuple[dict[str, dict[str, Any]], dict[str, PolicyDistillation]]:
    """
    Check what the user says of the students.

    :param students: from names to policies, to ``PolicyDistillation`` models to go on with, or to the entries of
        ``StudentSpec``; or a list of names of policies
    :param observation_space: the teacher's
    :param action_space: the teacher's
    :return: the entries of each student's ``StudentSpec``, and the models among them
    :raises ValueError: a name that is taken or impossible, an unknown policy or entry, other spaces
    """
    if isinstance(students, str) or not isinstance(students, (Mapping, Sequence)):
        raise ValueError(
            f"students maps names to policies, such as {{'small': 'Net3Policy'}}, or lists policies; not {students!r}."
        )
    if not isinstance(students, Mapping):
        for name in students:
            if not isinstance(name, str):
                raise ValueError(
                    f"A list of students names policies, such as 'Net3Policy'; {name!r} needs a name of its own, in a "
                    "dictionary such as {'small': ...}."
                )
        twice = [name for name, count in Counter(students).items() if count > 1]
        if twice:
            raise ValueError(f"students names {twice[0]!r} twice: give the two different names, in a dictionary.")
        students = {name.removesuffix("Policy").lower(): name for name in students}
    models = {name: entry for name, entry in students.items() if isinstance(entry, PolicyDistillation)}
    for name, model in models.items():
        _check_spaces(name, model, observation_space, action_space)
    return {name: _read_student(name, entry) for name, entry in students.items()}, models


def _check_spaces(
    name: str, model: PolicyDistillation, observation_space: spaces.Space, action_space: spaces.Space
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
    if not isinstance(name, str) or not name.isidentifier() or name == TEACHER or hasattr(nn.ModuleDict, name):
        raise ValueError(f"students: {name!r} cannot be a name; take letters, digits and _, and not 'teacher'.")
    if isinstance(entry, PolicyDistillation):
        entry = {"policy": type(entry.policy), "policy_kwargs": dict(entry.policy_kwargs)}
    spec = dict(entry) if isinstance(entry, Mapping) else {"policy": entry}
    known = [item.name for item in dataclasses.fields(StudentSpec)]
    for key in spec:
        if key not in known:
            raise ValueError(f"students[{name!r}]: " + unknown_choice("entry", key, known))
    policy = spec.get("policy")
    if not (isinstance(policy, type) and issubclass(policy, StudentPolicy)) and policy not in STUDENT_POLICIES:
        raise ValueError(f"students[{name!r}]: " + unknown_choice("policy", policy, STUDENT_POLICIES))
    return spec


def check_student_arguments(teacher_source: str, self_learning: float) -> None:
    """
    :param teacher_source: see ``StudentSpec``
    :param self_learning: see ``StudentSpec``
    :raises ValueError: an unknown source, or a coefficient that cannot be
    """
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


def read_schedule(learning_rate: float | str | Schedule) -> Schedule:
    """
    :param learning_rate: learning rate, a schedule of it, or ``"lin_VALUE"``
    :return: from the remaining progress, which goes from 1 to 0, to the learning rate
    :raises ValueError: none of these, or not positive
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


@dataclass(frozen=True)
class SharedBatch:
    """
    What all students learn from in one update: one minibatch, and one forward pass of the teacher.

    :param replay_data: the minibatch
    :param discounts: gamma, or gamma to the number of steps of each transition ``(batch, 1)``
    :param teacher_q_values: of the observations, ``(batch, n_actions)``
    :param teacher_next_actions: the greedy actions of the teacher's target network at the next observations,
        ``(batch, 1)``
    """

    replay_data: ReplayBufferSamples
    discounts: float | th.Tensor
    teacher_q_values: th.Tensor
    teacher_next_actions: th.Tensor

    @classmethod
    def of(
        cls,
        replay_data: ReplayBufferSamples,
        discounts: float | th.Tensor,
        q_values: th.Tensor,
        next_q_values: th.Tensor,
    ) -> "SharedBatch":
        """
        :param replay_data: the minibatch
        :param discounts: see the class
        :param q_values: the teacher's, of the observations, without gradient
        :param next_q_values: the teacher's, of the next observations
        :return: the shared batch
        """
        return cls(replay_data, discounts, q_values, next_q_values.argmax(dim=1, keepdim=True))


class Student(nn.Module):
    """
    One student: a policy with an optimizer and a target network of its own.

    :param spec: what the user says of it, without open entries
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: where it is trained
    """

    def __init__(
        self, spec: StudentSpec, observation_space: spaces.Space, action_space: spaces.Discrete, device: th.device
    ) -> None:
        super().__init__()
        assert spec.learning_rate is not None and spec.self_learning is not None
        assert spec.loss is not None and spec.temperature is not None and spec.student_temperature is not None
        self.spec = spec
        self.distillation_loss = DistillationLoss(spec.loss, spec.temperature, spec.student_temperature)
        assert spec.teacher_source is not None
        check_student_arguments(spec.teacher_source, spec.self_learning)
        self.lr_schedule = read_schedule(spec.learning_rate)
        policy_class = STUDENT_POLICIES[spec.policy] if isinstance(spec.policy, str) else spec.policy
        self.policy = policy_class(observation_space, action_space, self.lr_schedule, **spec.policy_kwargs).to(device)
        self.q_net_target = self.policy.make_q_net()
        self.q_net_target.set_training_mode(False)
        self.q_net_target.requires_grad_(False)
        set_train_dtype(self.policy, device)
        self.to(device)
        self.trained = list(self.policy.parameters())
        self.copy_to_target()

    @property
    def optimizer(self) -> th.optim.Optimizer:
        """The student's own optimizer."""
        return self.policy.optimizer

    def copy_to_target(self) -> None:
        """Make the target network the same as the student."""
        self.q_net_target.load_state_dict(self.policy.q_net.state_dict())

    def update_target(self, tau: float) -> None:
        """Move the target network towards the student, as DQN does."""
        polyak_update(self.policy.q_net.parameters(), self.q_net_target.parameters(), tau)

    def prepare(self, progress_remaining: float) -> None:
        """Switch to training mode and set the learning rate; the progress goes from 1 to 0."""
        if not self.policy.training:
            self.policy.set_training_mode(True)
        update_learning_rate(self.optimizer, self.lr_schedule(progress_remaining))

    def td_loss(self, batch: SharedBatch, q_values: th.Tensor) -> th.Tensor:
        """
        :param batch: the shared minibatch
        :param q_values: the student's own, ``(batch, n_actions)``
        :return: the student's DQN loss, a scalar
        """
        replay_data = batch.replay_data
        with th.no_grad():
            next_q_values = self.q_net_target(replay_data.next_observations)
            if self.spec.imitation:
                # Sun & Fazli 2019, Eq. 5: the teacher chooses the action, the student's target network values it
                next_values = next_q_values.gather(1, batch.teacher_next_actions)
            else:
                # Eq. 4
                next_values = next_q_values.max(dim=1, keepdim=True).values
            target = replay_data.rewards + (1 - replay_data.dones) * batch.discounts * next_values
        current = q_values.gather(1, replay_data.actions.long())
        return F.smooth_l1_loss(current, target)

    def learn(self, batch: SharedBatch, max_grad_norm: float) -> dict[str, th.Tensor]:
        """
        One update.

        :param batch: the shared minibatch
        :param max_grad_norm: The maximum value for the gradient clipping
        :return: the losses, and the share of observations in which student and teacher prefer the same action
        """
        q_values = self.policy.logits(batch.replay_data.observations)
        distill_loss = self.distillation_loss(batch.teacher_q_values, q_values)
        losses = {"distill_loss": distill_loss.detach()}
        loss = distill_loss
        assert self.spec.self_learning is not None
        if self.spec.self_learning > 0:
            td_loss = self.td_loss(batch, q_values)
            losses["td_loss"] = td_loss.detach()
            # Sun & Fazli 2019, Eq. 3
            loss = distill_loss + self.spec.self_learning * td_loss
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, max_grad_norm)
        self.optimizer.step()
        losses["loss"] = loss.detach()
        with th.no_grad():
            losses["agreement"] = (q_values.argmax(1) == batch.teacher_q_values.argmax(1)).float().mean()
        return losses

    def fit_frame_scalers(self, observations: PyTorchObs) -> None:
        """Estimate the pixel statistics of an image student, once."""
        self.policy.fit_frame_scalers(observations)
        self.copy_to_target()
