"""Students: networks that are fitted to a teacher's answers."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_distill.algorithms import resolve
from sb3_distill.common.answers import Answers
from sb3_distill.networks.computing import keep_freed_memory
from sb3_distill.networks.extractors import StudentCNN, set_train_dtype
from sb3_distill.networks.policies import StudentPolicy


class Student(nn.Module):
    """
    A policy with its optimizer and its distillation loss.

    :param policy: the policy, on the device where it is trained
    :param loss: compares the policy's output with the teacher's: a ``DistillationLoss``, or one for every task
    :param bf16: see ``set_train_dtype``
    """

    def __init__(self, policy: Any, loss: Any, bf16: bool | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.loss = loss
        set_train_dtype(policy, policy.device, bf16)
        # In a list, it is no module of this one
        self._cnns = [module for module in policy.modules() if isinstance(module, StudentCNN)]
        if self._cnns:
            keep_freed_memory()
        self._trained = list(policy.parameters())

    @property
    def optimizer(self) -> th.optim.Optimizer:
        """The optimizer of the policy."""
        return self.policy.optimizer

    def answer(self, obs: PyTorchObs) -> Answers:
        """
        What the policy answers while it is trained. Images are brought into the memory layout of the convolutions while
        they are bytes: otherwise each layer would copy them as floats, once forward and once backward.

        :param obs: batch of observations, as the environment returns them
        :return: the outputs that the distillation losses compare with the teacher's
        """
        if self._cnns and isinstance(obs, dict):
            obs = {key: self._lay_out(part) for key, part in obs.items()}
        elif self._cnns and isinstance(obs, th.Tensor):
            obs = self._lay_out(obs)
        answers: Answers = self.policy.answer(obs)
        return answers

    def _lay_out(self, part: th.Tensor) -> th.Tensor:
        return part.contiguous(memory_format=self._cnns[0].memory_format) if part.ndim == 4 else part

    def update(self, loss: th.Tensor, max_grad_norm: float | None = None) -> None:
        """
        One step of the optimizer.

        :param loss: the loss to minimize, a scalar
        :param max_grad_norm: The maximum value for the gradient clipping, None: no clipping
        """
        self.optimizer.zero_grad()
        loss.backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._trained, max_grad_norm)
        self.optimizer.step()

    def fit_frame_scalers(self, observations: PyTorchObs) -> None:
        """
        Set the pixel statistics of an image student, once per run (see ``FrameScaler``).

        :param observations: batch of observations, as the environment returns them
        """
        self.policy.fit_frame_scalers(observations)


def student_model(
    policy: str | type[StudentPolicy],
    policy_kwargs: dict[str, Any],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    device: th.device | str = "auto",
    env_id: str | None = None,
) -> BaseAlgorithm:
    """
    Wrap a single student, e.g. one of several that were trained together, in a ``PolicyDistillation`` model. The model
    can predict and save, and can learn after ``set_env``.

    :param policy: name or class of the student's policy
    :param policy_kwargs: arguments of the policy
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: Device (cpu, cuda, ...)
    :param env_id: id of the environment that the student was trained on, if known; it is saved with the model
    :return: the model
    """
    model: Any = resolve("pd")(policy, None, policy_kwargs=policy_kwargs, device=device, _init_setup_model=False)
    model.observation_space, model.action_space, model.n_envs = observation_space, action_space, 1
    model._setup_model()
    model.env_id = env_id
    return model
