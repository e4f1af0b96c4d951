"""The students of real-time policy distillation, and their updates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update, update_learning_rate
from torch import nn
from torch.nn import functional as F

from sb3_distill.base.several.spec import naming
from sb3_distill.base.students import Student
from sb3_distill.common.answers import Answers
from sb3_distill.common.losses import DistillationLoss, compare_actions
from sb3_distill.common.schedules import read_schedule
from sb3_distill.networks.optimizers import align_states
from sb3_distill.networks.policies import STUDENT_POLICIES, StudentPolicy
from sb3_distill.rtpd.spec import StudentSpec, check_student_arguments


@dataclass(frozen=True)
class SharedBatch:
    """
    The data that all students share in one update: a minibatch, and the teacher's outputs for it.

    :param replay_data: the minibatch
    :param discounts: gamma, or, for n-step transitions, gamma to the power of each one's number of steps ``(batch, 1)``
    :param answers: the teacher's answers to the observations
    :param teacher_next_actions: the greedy actions of the teacher's target network at the next observations,
        ``(batch, 1)``
    """

    replay_data: ReplayBufferSamples
    discounts: float | th.Tensor
    answers: Answers
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
        :param q_values: the teacher's Q-values of the observations, without gradient
        :param next_q_values: the Q-values of the next observations, from the teacher's target network
        :return: the shared batch
        """
        return cls(replay_data, discounts, Answers(q_values=q_values), next_q_values.argmax(dim=1, keepdim=True))


class RealTimeStudent(Student):
    """
    A student that also has a DQN loss and a target network.

    :param spec: the student's settings, from ``complete_spec``
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: device on which the student is trained
    """

    def __init__(
        self,
        spec: StudentSpec,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        device: th.device,
    ) -> None:
        assert spec.learning_rate is not None and spec.self_learning is not None and spec.teacher_source is not None
        assert spec.loss is not None and spec.temperature is not None and spec.student_temperature is not None
        check_student_arguments(spec.temperature, spec.teacher_source, spec.self_learning)
        loss = DistillationLoss(spec.loss, spec.temperature, spec.student_temperature)
        lr_schedule = read_schedule(spec.learning_rate)
        policy_class = STUDENT_POLICIES[spec.policy] if isinstance(spec.policy, str) else spec.policy
        policy = policy_class(observation_space, action_space, lr_schedule, **spec.policy_kwargs).to(device)
        super().__init__(policy, loss, spec.bf16)
        self.spec = spec
        self.lr_schedule = lr_schedule
        self.q_net_target = policy.make_q_net()
        self.q_net_target.set_training_mode(False)
        self.q_net_target.requires_grad_(False)
        self.copy_to_target()

    def go_on_from(self, policy: StudentPolicy) -> None:
        """Copy the weights of a policy with the same network."""
        self.policy.load_state_dict(policy.state_dict())
        self.copy_to_target()

    def copy_to_target(self) -> None:
        """Copy the student's weights into the target network."""
        self.q_net_target.load_state_dict(self.policy.q_net.state_dict())

    def update_target(self, tau: float) -> None:
        """Move the target network towards the student, as in DQN."""
        polyak_update(self.policy.q_net.parameters(), self.q_net_target.parameters(), tau)

    def prepare(self, progress_remaining: float) -> None:
        """Switch to training mode and set the learning rate; the progress goes from 1 to 0."""
        if not self.policy.training:
            self.policy.set_training_mode(True)
        update_learning_rate(self.optimizer, self.lr_schedule(progress_remaining))
        align_states(self.optimizer)

    def td_losses(self, batch: SharedBatch, q_values: th.Tensor) -> th.Tensor:
        """
        :param batch: the shared minibatch
        :param q_values: the student's Q-values of the observations, ``(batch, n_actions)``
        :return: the student's DQN losses ``(batch,)``
        """
        replay_data = batch.replay_data
        with th.no_grad():
            next_q_values = self.q_net_target(replay_data.next_observations)
            if self.spec.imitation:
                # Sun & Fazli 2019, Eq. 5: the teacher chooses the action, the student's target network values it
                next_values = next_q_values.gather(1, batch.teacher_next_actions)
            else:
                # Sun & Fazli 2019, Eq. 4: the student's target network chooses the action and values it
                next_values = next_q_values.max(dim=1, keepdim=True).values
            target = replay_data.rewards + (1 - replay_data.dones) * batch.discounts * next_values
        current = q_values.gather(1, replay_data.actions.long())
        return F.smooth_l1_loss(current, target, reduction="none").squeeze(1)

    def learn(self, batch: SharedBatch, max_grad_norm: float) -> dict[str, th.Tensor]:
        """
        One update.

        :param batch: the shared minibatch
        :param max_grad_norm: The maximum value for the gradient clipping
        :return: the losses, and the share of observations in which student and teacher have the same greedy action
        """
        answers = self.answer(batch.replay_data.observations)
        distill_loss = self.loss(batch.answers, answers).mean()
        losses = {"distill_loss": distill_loss.detach()}
        loss = distill_loss
        assert self.spec.self_learning is not None
        if self.spec.self_learning > 0:
            assert answers.q_values is not None
            td_loss = self.td_losses(batch, answers.q_values).mean()
            losses["td_loss"] = td_loss.detach()
            # Sun & Fazli 2019, Eq. 3
            loss = distill_loss + self.spec.self_learning * td_loss
        self.update(loss, max_grad_norm)
        losses["loss"] = loss.detach()
        with th.no_grad():
            losses |= compare_actions(batch.answers, answers)
        return losses

    def fit_frame_scalers(self, observations: PyTorchObs) -> None:
        super().fit_frame_scalers(observations)
        self.copy_to_target()


class StudentGroup(nn.Module):
    """
    All students of a run, by name. The students do not influence each other.

    :param specs: by name, the settings of each student, from ``complete_spec``
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: device on which the students are trained
    :param seed: student i gets the initial weights of seed ``seed + 1 + i``; None: do not set seeds
    :raises ValueError: the settings of a student are invalid; the message names the student
    """

    def __init__(
        self,
        specs: Mapping[str, StudentSpec],
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        assert isinstance(action_space, spaces.Discrete)
        self.by_name = nn.ModuleDict()
        for index, (name, spec) in enumerate(specs.items()):
            if seed is not None:
                th.manual_seed(seed + 1 + index)
            with naming(name):
                self.by_name[name] = RealTimeStudent(spec, observation_space, action_space, device)

    def __getitem__(self, name: str) -> RealTimeStudent:
        student = self.by_name[name]
        assert isinstance(student, RealTimeStudent)
        return student

    def each(self) -> Iterator[tuple[str, RealTimeStudent]]:
        """The students with their names."""
        for name in self.by_name:
            yield name, self[name]

    @property
    def follow_best(self) -> bool:
        """Whether any student learns from the teacher's best network (``teacher_source="best"``)."""
        return any(student.spec.teacher_source == "best" for _, student in self.each())

    def prepare(self, progress_remaining: float) -> None:
        """Switch all students to training mode and set their learning rates; the progress goes from 1 to 0."""
        for _, student in self.each():
            student.prepare(progress_remaining)

    def learn(self, batches: Mapping[str, SharedBatch], max_grad_norm: float) -> dict[str, dict[str, th.Tensor]]:
        """
        Do one update of each student.

        :param batches: by ``teacher_source``, the minibatch with the outputs of this network; "best" is missing before
            the first evaluation
        :param max_grad_norm: The maximum value for the gradient clipping
        :return: by name, the result of the student's ``learn``; students whose ``teacher_source`` is missing do not
            learn and have no entry
        """
        return {
            name: student.learn(batches[str(student.spec.teacher_source)], max_grad_norm)
            for name, student in self.each()
            if student.spec.teacher_source in batches
        }

    def update_targets(self, tau: float) -> None:
        """Move all target networks towards their students, as in DQN."""
        for _, student in self.each():
            student.update_target(tau)

    def fit_frame_scalers(self, observations: PyTorchObs) -> None:
        """Set the pixel statistics of image students (see ``FrameScaler``)."""
        for _, student in self.each():
            student.fit_frame_scalers(observations)
