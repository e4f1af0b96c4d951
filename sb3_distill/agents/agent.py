"""A trained agent that answers and never learns."""

import copy
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import get_device

from sb3_distill.agents.errors import TeacherError
from sb3_distill.agents.normalization import Normalization
from sb3_distill.networks.actor_critic_policies import actor_modules
from sb3_distill.quantization.packing import count_parameters, stored_bytes


def freeze(policy: BasePolicy) -> Any:
    """
    :param policy: a policy that nobody else uses
    :return: the same policy: it acts and never learns, in the layout in which CPU convolutions are fastest
    """
    policy.set_training_mode(False)
    policy.requires_grad_(False)
    return policy.to(memory_format=th.channels_last)  # type: ignore[call-overload]


def copy_policy(policy: BasePolicy) -> Any:
    """
    :param policy: a model's policy
    :return: a copy of it
    """
    if getattr(policy, "use_sde", False):
        # The exploration matrices are sampled with a gradient, which deepcopy refuses; drawn anew without it they pass.
        with th.no_grad():
            policy.reset_noise()  # type: ignore[operator]
    # The last distribution hangs on the computation that made it, which deepcopy refuses too.
    action_dist = getattr(policy, "action_dist", None)
    last = vars(action_dist).pop("distribution", None) if action_dist is not None else None
    copied = copy.deepcopy(policy)
    if last is not None:
        action_dist.distribution = last  # type: ignore[union-attr]
    return copied


SelfTeacher = TypeVar("SelfTeacher", bound="Teacher")


class Teacher(ABC):
    """
    A trained agent that answers and never learns.

    Observations are raw ones, as the environment gives them: a teacher that was trained behind VecNormalize applies
    its own statistics.

    :param policy: the SB3 policy, which the teacher freezes
    :param algo: key of the algorithm in the Zoo, e.g. "dqn"
    :param source: where the agent was found
    :param sha256: of its zip, or of its weights where there is no zip
    :param env_id: the environment it was trained on, if known
    :param normalization: VecNormalize's statistics, if it was trained with them
    :param n_bytes: size of its zip
    :param recorded_score: the score that its run folder records
    :param teacher_source: where the teacher of a student was found
    :param frame_stack: number of stacked frames; None: as many as an image has channels
    :param env_kwargs: arguments of the environment it was trained on; None where they are not known
    """

    def __init__(
        self,
        policy: Any,
        algo: str,
        source: str,
        sha256: str,
        env_id: str | None = None,
        normalization: Normalization | None = None,
        n_bytes: int | None = None,
        recorded_score: dict[str, Any] | None = None,
        teacher_source: str | None = None,
        frame_stack: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if normalization is not None and normalization.mean.shape != policy.observation_space.shape:
            raise TeacherError(
                f"The VecNormalize statistics of {source} are of shape {normalization.mean.shape}, its observations of "
                f"shape {policy.observation_space.shape}: they belong to another agent, or frames were stacked after "
                "normalisation, which is not supported."
            )
        self.policy = freeze(policy)
        self.algo = algo
        self.source = source
        self.sha256 = sha256
        self.env_id = env_id
        self.normalization = normalization
        self.n_bytes = n_bytes
        self.recorded_score = recorded_score
        self.teacher_source = teacher_source
        self._frame_stack = frame_stack
        self.env_kwargs = env_kwargs
        self._set_normalization_tensors()

    @property
    @abstractmethod
    def network(self) -> th.nn.Module:
        """What is asked for answers: the Q-network, or actor and critic."""

    @property
    @abstractmethod
    def acting_modules(self) -> list[th.nn.Module]:
        """The parts of its policy that act, in the order in which an observation passes them."""

    @property
    def observation_space(self) -> spaces.Space:
        """Space of the raw observations."""
        space = self.policy.observation_space
        if self.normalization is not None and isinstance(space, spaces.Box):
            # Statistics say nothing of the raw bounds.
            return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)
        return space

    @property
    def action_space(self) -> spaces.Space:
        """The agent's actions."""
        return self.policy.action_space

    @property
    def n_actions(self) -> int | None:
        """Number of discrete actions, None for other action spaces."""
        return int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else None

    @property
    def frame_stack(self) -> int | None:
        """Number of stacked frames: as its configuration says, else the channels of an image; None for vectors."""
        if self._frame_stack is not None:
            return self._frame_stack
        shape = self.observation_space.shape
        return shape[0] if shape is not None and is_image_space(self.observation_space, check_channels=False) else None

    @property
    def n_parameters(self) -> int:
        """Number of parameters of what acts: without target networks, without the critic of an actor-critic agent."""
        return count_parameters(self.acting_modules)

    @property
    def stored_bytes(self) -> int:
        """Bytes of what acts: packed where it is quantized, float32 otherwise."""
        return stored_bytes(self.acting_modules)

    @property
    def device(self) -> th.device:
        """Where the networks are."""
        return self.policy.device

    def to(self: SelfTeacher, device: th.device | str) -> SelfTeacher:
        """
        Move the networks.

        :param device: cpu, cuda, auto
        :return: the teacher itself
        """
        self.policy.to(get_device(device))
        if getattr(self.policy, "use_sde", False):
            # As SB3's load: exploration matrices are no parameters, and were drawn before the weights were there.
            self.policy.reset_noise()
        self._set_normalization_tensors()
        return self

    def _set_normalization_tensors(self) -> None:
        if self.normalization is not None:
            scale = np.sqrt(self.normalization.var + self.normalization.epsilon)
            self._mean = th.tensor(self.normalization.mean, device=self.device)
            self._scale = th.tensor(scale, device=self.device)

    def normalize(self, obs: PyTorchObs) -> PyTorchObs:
        """
        Apply the agent's own VecNormalize statistics, in float64 as VecNormalize does.

        :param obs: batch of raw observations
        :return: what the policy takes
        """
        if self.normalization is None:
            return obs
        assert isinstance(obs, th.Tensor)
        clip = self.normalization.clip_obs
        return ((obs.double() - self._mean) / self._scale).clamp(-clip, clip).float()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """
        Get the agent's action, as every SB3 model does.

        :param observation: raw observation, or a batch of them
        :param state: unused (recurrent policies only)
        :param episode_start: unused (recurrent policies only)
        :param deterministic: False samples from the distribution of an actor-critic agent; a value-based agent is
            greedy always
        :return: the actions and None
        """
        if self.normalization is not None:
            raw = th.as_tensor(np.asarray(observation), device=self.device)
            observation = self.normalize(raw).cpu().numpy()  # type: ignore[union-attr]
        actions, _ = self.policy.predict(observation, deterministic=deterministic)
        return actions, None

    @abstractmethod
    def logits(self, obs: PyTorchObs) -> th.Tensor:
        """
        What the distillation losses compare: Q-values, or the log-probabilities of an actor-critic agent.

        :param obs: batch of raw observations as tensors; images channels first, as bytes
        :return: ``(batch, n_actions)``, without gradient
        """


class ValueTeacher(Teacher):
    """A teacher with one number per action: DQN, QR-DQN, or a distilled student."""

    @property
    def network(self) -> th.nn.Module:
        return self.policy.quantile_net if self.algo == "qrdqn" else self.policy.q_net

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        network: Any = self.network
        return [network.features_extractor, network.quantile_net if self.algo == "qrdqn" else network.q_net]

    @th.no_grad()
    def q_values(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of raw observations as tensors
        :return: Q-values ``(batch, n_actions)``; of QR-DQN the mean over the quantiles
        """
        values = self.network(self.normalize(obs))
        return values.mean(dim=1) if self.algo == "qrdqn" else values

    def logits(self, obs: PyTorchObs) -> th.Tensor:
        return self.q_values(obs)


class ActorCriticTeacher(Teacher):
    """A teacher with a distribution over actions and a value: PPO, A2C, TRPO."""

    policy: ActorCriticPolicy

    @property
    def network(self) -> th.nn.Module:
        return self.policy

    @property
    def acting_modules(self) -> list[th.nn.Module]:
        return actor_modules(self.policy)

    @th.no_grad()
    def distribution(self, obs: PyTorchObs) -> Distribution:
        """
        :param obs: batch of raw observations as tensors
        :return: the distribution over actions
        """
        return self.policy.get_distribution(self.normalize(obs))

    @th.no_grad()
    def values(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of raw observations as tensors
        :return: the critic's values ``(batch, 1)``
        """
        return self.policy.predict_values(self.normalize(obs))

    def logits(self, obs: PyTorchObs) -> th.Tensor:
        if not isinstance(self.action_space, spaces.Discrete):
            raise TeacherError(f"{self.source} has no logits: its actions are {self.action_space}, not Discrete.")
        return self.distribution(obs).distribution.logits  # type: ignore[union-attr]
