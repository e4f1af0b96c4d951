"""The students' policies: SB3's DQN policy with one network, in the sizes of the papers."""

from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill.common.answers import Answers
from sb3_distill.networks.extractors import CNN_SIZES, GridCNN, StudentCNN
from sb3_distill.networks.layers import FrameScaler


class StudentMixin:
    """What all students have, whatever SB3 policy they are."""

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        assert isinstance(self, nn.Module)
        return sum(parameter.numel() for parameter in self.parameters())

    def fit_frame_scalers(self, obs: PyTorchObs) -> None:
        """
        Estimate the pixel statistics of image students (see ``FrameScaler``); others have none.

        :param obs: batch of observations, as the environment gives them
        """
        assert isinstance(self, nn.Module)
        for module in self.modules():
            if isinstance(module, FrameScaler) and isinstance(obs, th.Tensor):
                module.fit(obs)


def fused_where_possible(optimizer_class: type[th.optim.Optimizer], optimizer_kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    :param optimizer_class: the optimizer
    :param optimizer_kwargs: what the user says of it
    :return: the same; for Adam one kernel for all parameters, a third of the time on small networks
    """
    if optimizer_class in (th.optim.Adam, th.optim.AdamW) and "foreach" not in optimizer_kwargs:
        return {"fused": True, **optimizer_kwargs}
    return optimizer_kwargs


class StudentPolicy(StudentMixin, DQNPolicy):
    """
    A network from observations to one number per action, without DQN's target network.

    The numbers are Q-values when the student is trained with the MSE loss and logits with NLL or KL; the greedy action
    is their argmax in every case.

    :param observation_space: Observation space
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: Hidden layers between features and actions (``[64, 64]`` by default)
    :param activation_fn: Activation function
    :param features_extractor_class: Features extractor to use
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor
    :param normalize_images: Whether images are bytes that must be scaled (True by default)
    :param ortho_init: Whether to initialise all layers orthogonally
    :param optimizer_class: The optimizer to use, ``th.optim.Adam`` by default
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        ortho_init: bool = False,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            activation_fn,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images,
            optimizer_class,
            optimizer_kwargs,
        )
        self.ortho_init = ortho_init
        if ortho_init:
            # Hidden layers with the gain of ReLU, the output with 1, as SB3's ActorCriticPolicy does.
            self.q_net.apply(lambda module: self.init_weights(module, gain=np.sqrt(2)))
            for layer in self.output_layers():
                self.init_weights(layer, gain=1)

    def _build(self, lr_schedule: Schedule) -> None:
        # No target network: a distillation loss bootstraps from nothing.
        self.q_net = self.make_q_net()
        self.optimizer_kwargs = fused_where_possible(self.optimizer_class, self.optimizer_kwargs)
        self.optimizer = self.optimizer_class(
            self.q_net.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def output_layers(self) -> list[nn.Module]:
        """The layers that give one number per action."""
        return [self.q_net.q_net[-1]]

    def answer(self, obs: PyTorchObs) -> Answers:
        """
        :param obs: batch of observations, as the environment gives them
        :return: what the distillation losses compare
        """
        return Answers(q_values=self.q_net(obs))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "normalize_images": self.normalize_images,
            "ortho_init": self.ortho_init,
        }


MlpPolicy = StudentPolicy


class CnnPolicy(StudentPolicy):
    """
    Student for stacked frames, with the teacher's own DQN network by default (1,693,362 parameters at 18 actions).

    ``features_extractor_kwargs`` changes what differs: ``channels``, ``features_dim``, ``pool``, ``standardize``
    (see ``StudentCNN``). ``standardize=None`` with ``ortho_init=False`` is the papers' own input and initialisation.
    """

    cnn_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["dqn"]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = StudentCNN,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        ortho_init: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        features_extractor_kwargs = features_extractor_kwargs or {}
        if issubclass(features_extractor_class, StudentCNN):
            # The extractor scales the frames itself, in one pass.
            features_extractor_kwargs = {
                **self.cnn_kwargs,
                "normalize_images": normalize_images,
                **features_extractor_kwargs,
            }
            normalize_images = False
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            # The hidden layer is the extractor's: without this SB3 would add a [64, 64] head.
            [] if net_arch is None else net_arch,
            activation_fn,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images,
            ortho_init,
            optimizer_class,
            optimizer_kwargs,
        )


class Net1Policy(CnnPolicy):
    """Net1 of Rusu et al. 2015, table A1: 427,874 parameters at 18 actions."""

    cnn_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net1"]


class Net2Policy(CnnPolicy):
    """Net2 of Rusu et al. 2015, table A1: 113,346 parameters at 18 actions."""

    cnn_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net2"]


class Net3Policy(CnnPolicy):
    """Net3 of Rusu et al. 2015, table A1: 61,954 parameters at 18 actions."""

    cnn_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net3"]


class Net4Policy(CnnPolicy):
    """Net4 of Sun & Fazli 2019, section 3: 55,666 parameters at 18 actions."""

    cnn_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net4"]


class Net5Policy(CnnPolicy):
    """Net5 of Sun & Fazli 2019, section 3: 31,602 parameters at 18 actions."""

    cnn_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net5"]


class MaxPoolCnnPolicy(CnnPolicy):
    """Halved feature maps and a global max-pool (Actor-Mimic compression, table 2): 43,097 parameters at 9 actions."""

    cnn_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["max_pool"]


class MultiInputPolicy(StudentPolicy):
    """Student for Dict observations, with SB3's ``CombinedExtractor``."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space, action_space, lr_schedule, net_arch, activation_fn, features_extractor_class, **kwargs
        )


class GridCnnPolicy(StudentPolicy):
    """Student for small grids such as MinAtar's (see ``GridCNN`` for the keywords of its features extractor)."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = GridCNN,
        **kwargs: Any,
    ) -> None:
        net_arch = [] if net_arch is None else net_arch
        super().__init__(
            observation_space, action_space, lr_schedule, net_arch, activation_fn, features_extractor_class, **kwargs
        )


STUDENT_POLICIES: dict[str, type[StudentPolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "Net1Policy": Net1Policy,
    "Net2Policy": Net2Policy,
    "Net3Policy": Net3Policy,
    "Net4Policy": Net4Policy,
    "Net5Policy": Net5Policy,
    "MaxPoolCnnPolicy": MaxPoolCnnPolicy,
    "GridCnnPolicy": GridCnnPolicy,
}
