"""The students' policies: SB3's DQN policy without a target network, with the network sizes of the papers."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill.common.answers import Answers
from sb3_distill.networks.extractors import CNN_SIZES, ExtractorMixin, GridCNN, StudentCNN
from sb3_distill.networks.layers import FrameScaler
from sb3_distill.networks.optimizers import fused_where_possible, optimizer_of


class StudentMixin:
    """Mixin with the methods that the policies of all students share."""

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        assert isinstance(self, nn.Module)
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def needs_frame_statistics(self) -> bool:
        """Whether ``fit_frame_scalers`` would set anything: until then, pixels are divided by 255 alone."""
        assert isinstance(self, nn.Module)
        scalers = [module for module in self.modules() if isinstance(module, FrameScaler)]
        return any(scaler.standardize is not None and not scaler.fitted for scaler in scalers)

    def fit_frame_scalers(self, obs: PyTorchObs) -> None:
        """
        Set the pixel statistics of image students (see ``FrameScaler``); for other students, do nothing.

        :param obs: batch of observations, as the environment returns them
        """
        assert isinstance(self, nn.Module)
        for module in self.modules():
            if isinstance(module, FrameScaler) and isinstance(obs, th.Tensor):
                module.fit(obs)


class StudentPolicy(StudentMixin, ExtractorMixin, DQNPolicy):
    """
    A network with one output per action, without DQN's target network.

    The outputs are Q-values if the student is trained with the MSE loss, and logits with NLL or KL. In both cases the
    greedy action is their argmax.

    :param observation_space: Observation space
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: Sizes of the hidden layers after the features extractor (``[64, 64]`` by default)
    :param activation_fn: Activation function
    :param features_extractor_class: Features extractor to use; None: that of the policy's name
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor
    :param normalize_images: Whether images are bytes that must be scaled (True by default)
    :param ortho_init: Whether to initialise all layers orthogonally; None: for stacked frames only
    :param optimizer_class: The optimizer to use, or its name, ``th.optim.Adam`` by default
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer
    """

    default_net_arch: ClassVar[Sequence[int] | None] = None
    default_ortho_init: ClassVar[bool] = False

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        ortho_init: bool | None = None,
        optimizer_class: type[th.optim.Optimizer] | str = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if net_arch is None and self.default_net_arch is not None:
            net_arch = list(self.default_net_arch)
        ortho_init = self.default_ortho_init if ortho_init is None else ortho_init
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            activation_fn,
            *self.choose_extractor(features_extractor_class, features_extractor_kwargs, normalize_images),
            optimizer_of(optimizer_class),
            optimizer_kwargs,
        )
        self.ortho_init = ortho_init
        if ortho_init:
            # Gain sqrt(2) for hidden layers (ReLU) and 1 for the output layer, as for the value function in SB3's
            # ActorCriticPolicy
            self.q_net.apply(lambda module: self.init_weights(module, gain=np.sqrt(2)))
            for layer in self.output_layers():
                self.init_weights(layer, gain=1)

    def _build(self, lr_schedule: Schedule) -> None:
        # A distillation loss does not bootstrap, so there is no target network.
        self.q_net = self.make_q_net()
        self.optimizer_kwargs = fused_where_possible(self.optimizer_class, self.optimizer_kwargs)
        self.optimizer = self.optimizer_class(
            self.q_net.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def output_layers(self) -> list[nn.Module]:
        """The output layers: they have one output per action."""
        return [self.q_net.q_net[-1]]

    def answer(self, obs: PyTorchObs) -> Answers:
        """
        :param obs: batch of observations, as the environment returns them
        :return: the outputs that the distillation losses compare with the teacher's
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
    Student for stacked frames, by default with the DQN network (1,693,362 parameters for 18 actions).

    ``features_extractor_kwargs`` sets ``channels``, ``features_dim``, ``pool`` and ``standardize`` (see
    ``StudentCNN``). ``standardize=None`` with ``ortho_init=False`` gives the papers' input scaling and initialization.
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = StudentCNN
    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["dqn"]
    # The features extractor has the hidden layer already. Without this, SB3 would add layers of [64, 64].
    default_net_arch: ClassVar[Sequence[int] | None] = ()
    default_ortho_init: ClassVar[bool] = True


class Net1Policy(CnnPolicy):
    """Net1 of Rusu et al. 2015, table A1: 427,874 parameters at 18 actions."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net1"]


class Net2Policy(CnnPolicy):
    """Net2 of Rusu et al. 2015, table A1: 113,346 parameters at 18 actions."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net2"]


class Net3Policy(CnnPolicy):
    """Net3 of Rusu et al. 2015, table A1: 61,954 parameters at 18 actions."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net3"]


class Net4Policy(CnnPolicy):
    """Net4 of Sun & Fazli 2019, section 3: 55,666 parameters at 18 actions."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net4"]


class Net5Policy(CnnPolicy):
    """Net5 of Sun & Fazli 2019, section 3: 31,602 parameters at 18 actions."""

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["net5"]


class MaxPoolCnnPolicy(CnnPolicy):
    """
    Half the feature maps of the DQN network and a global max-pool (Actor-Mimic compression, table 2): 43,097
    parameters for 9 actions.
    """

    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["max_pool"]


class MultiInputPolicy(StudentPolicy):
    """Student for Dict observations, with SB3's ``CombinedExtractor``."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = CombinedExtractor


class GridCnnPolicy(StudentPolicy):
    """Student for small grids such as MinAtar's (see ``GridCNN`` for the keywords of its features extractor)."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = GridCNN
    default_net_arch: ClassVar[Sequence[int] | None] = ()


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
