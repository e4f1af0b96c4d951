"""Networks with one trunk for all tasks and one controller for each (Rusu et al. 2015, section 3.3)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill.networks.extractors import CNN_SIZES, GridCNN, StudentCNN
from sb3_distill.networks.policies import StudentPolicy


class MultiTaskQNetwork(BasePolicy):
    """
    A trunk that all tasks share, and for each task an MLP controller with one output per action of that task. The task
    in the observation picks the controller, "during both training and evaluation" (Rusu et al. 2015, section 3.3).

    :param observation_space: ``Dict(obs, task)``
    :param action_space: actions of the task that has the most
    :param task_actions: number of actions of each task
    :param features_extractor_class: the trunk's features extractor, of ``obs``
    :param features_extractor_kwargs: its keyword arguments
    :param trunk_arch: hidden layers that the tasks share behind it
    :param net_arch: hidden layers of each controller
    :param activation_fn: Activation function
    :param normalize_images: Whether images are bytes that must be scaled
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        task_actions: Sequence[int],
        features_extractor_class: type[BaseFeaturesExtractor],
        features_extractor_kwargs: dict[str, Any],
        trunk_arch: Sequence[int],
        net_arch: Sequence[int],
        activation_fn: type[nn.Module],
        normalize_images: bool,
    ) -> None:
        super().__init__(observation_space, action_space, normalize_images=normalize_images)
        self.task_actions = list(task_actions)
        # The extractor and SB3's preprocessing see the observation alone: the task is an index, not a feature.
        self.features_extractor = features_extractor_class(observation_space["obs"], **features_extractor_kwargs)
        trunk = create_mlp(self.features_extractor.features_dim, -1, list(trunk_arch), activation_fn)
        self.trunk = nn.Sequential(*trunk)
        width = trunk_arch[-1] if trunk_arch else self.features_extractor.features_dim
        self.controllers = nn.ModuleList(
            nn.Sequential(*create_mlp(width, n_actions, list(net_arch), activation_fn)) for n_actions in task_actions
        )

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of observations
        :return: what the controllers get, ``(batch, width)``
        """
        assert isinstance(obs, dict) and isinstance(self.observation_space, spaces.Dict)
        images = obs["obs"]
        if self.normalize_images and is_image_space(self.observation_space["obs"]):
            images = images.float() / 255.0
        return self.trunk(self.features_extractor(images if images.dtype == th.uint8 else images.float()))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of observations, of any tasks
        :return: one number per action, ``(batch, n_actions)``; minus infinity for actions that a task does not have
        """
        features = self.features(obs)
        tasks = obs["task"].reshape(-1).long()  # type: ignore[index]
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        values = features.new_full((len(tasks), n_actions), -th.inf)
        for task in tasks.unique().tolist():
            rows = (tasks == task).nonzero().squeeze(1)
            outputs = self.controllers[task](features[rows])
            padding = outputs.new_full((len(rows), n_actions - outputs.shape[1]), -th.inf)
            values = values.index_copy(0, rows, th.cat([outputs, padding], dim=1))
        return values

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        return self(observation).argmax(dim=1).reshape(-1)


def build_network(policy: Any) -> MultiTaskQNetwork:
    """
    :param policy: a multi-task student, or the policy of the multi-task DQN
    :return: a network of its kind
    """
    return MultiTaskQNetwork(
        policy.observation_space,
        policy.action_space,
        policy.task_actions,
        policy.features_extractor_class,
        policy.features_extractor_kwargs,
        policy.trunk_arch,
        policy.net_arch,
        policy.activation_fn,
        policy.normalize_images,
    ).to(policy.device)


class MultiTaskPolicyMixin:
    """
    What the multi-task student and the policy of the multi-task DQN share: a ``MultiTaskQNetwork`` in place of SB3's.

    :param observation_space: ``Dict(obs, task)``
    :param action_space: actions of the task that has the most
    :param lr_schedule: Learning rate schedule (could be constant)
    :param task_actions: number of actions of each task; the algorithms read it from the environment
    :param trunk_arch: hidden layers that the tasks share behind the features extractor
    :param net_arch: hidden layers of each controller
    :param activation_fn: Activation function
    :param features_extractor_class: Features extractor of ``obs``
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor
    :param normalize_images: Whether images are bytes that must be scaled
    :param kwargs: other arguments of the policy, such as ``optimizer_class``
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    extractor_kwargs: ClassVar[dict[str, Any]] = {}
    default_trunk_arch: ClassVar[tuple[int, ...]] = (64,)
    default_net_arch: ClassVar[tuple[int, ...]] = (64,)

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        task_actions: Sequence[int],
        trunk_arch: Sequence[int] | None = None,
        net_arch: Sequence[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        **kwargs: Any,
    ) -> None:
        self.task_actions = list(task_actions)
        self.trunk_arch = list(self.default_trunk_arch if trunk_arch is None else trunk_arch)
        extractor = features_extractor_class or self.extractor_class
        extractor_kwargs = {**self.extractor_kwargs, **(features_extractor_kwargs or {})}
        if issubclass(extractor, StudentCNN):
            # The extractor scales the frames itself, in one pass.
            extractor_kwargs = {"normalize_images": normalize_images, **extractor_kwargs}
            normalize_images = False
        super().__init__(  # type: ignore[call-arg]
            observation_space,
            action_space,
            lr_schedule,
            list(self.default_net_arch if net_arch is None else net_arch),
            activation_fn,
            extractor,
            extractor_kwargs,
            normalize_images,
            **kwargs,
        )

    def make_q_net(self) -> MultiTaskQNetwork:
        """The network of all tasks."""
        return build_network(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),  # type: ignore[misc]
            "task_actions": self.task_actions,
            "trunk_arch": self.trunk_arch,
        }


class MultiTaskMlpPolicy(MultiTaskPolicyMixin, StudentPolicy):  # type: ignore[misc]
    """Multi-task student of vectors: one shared layer of 64 units and controllers with one of 64 by default."""

    q_net: MultiTaskQNetwork  # type: ignore[assignment]

    def output_layers(self) -> list[nn.Module]:
        return [controller[-1] for controller in self.q_net.controllers]  # type: ignore[index]

    def fit_frame_scalers(self, obs: PyTorchObs) -> None:
        assert isinstance(obs, dict)
        super().fit_frame_scalers(obs["obs"])

    def single_task_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of the ``StudentPolicy`` that this student is at one task."""
        return {
            "net_arch": [*self.trunk_arch, *self.net_arch],
            "activation_fn": self.activation_fn,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": dict(self.features_extractor_kwargs),
            "normalize_images": self.normalize_images,
        }

    @th.no_grad()
    def copy_task_to(self, task: int, policy: StudentPolicy) -> None:
        """
        Copy the trunk and a task's controller.

        :param task: index of the task
        :param policy: a policy that was made with ``single_task_kwargs``
        """
        network = policy.q_net
        own_state = self.q_net.features_extractor.state_dict()
        for name, tensor in network.features_extractor.state_dict().items():
            # A task of fewer channels than the others has no padding.
            tensor.copy_(own_state[name][:, : tensor.shape[1]] if tensor.ndim > 1 else own_state[name])
        layers = [*self.q_net.trunk, *self.q_net.controllers[task]]  # type: ignore[misc]
        padded, own_shape = self.observation_space["obs"].shape, policy.observation_space.shape  # type: ignore[index]
        # What the task's own observation has of the padded one, flattened
        unpadded = tuple(slice(size) for size in own_shape or ())
        entries = np.arange(np.prod(padded)).reshape(padded)[unpadded].ravel()
        for own, layer in zip(layers, network.q_net, strict=True):
            if isinstance(layer, nn.Linear):
                is_padded = own.in_features != layer.in_features
                layer.weight.copy_(own.weight[:, entries] if is_padded else own.weight)
                layer.bias.copy_(own.bias)


class MultiTaskCnnPolicy(MultiTaskMlpPolicy):
    """
    Multi-task student of stacked frames. With three games and 12 actions in all it has the 1,882,668 parameters of Rusu
    et al. 2015, table A2.
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = StudentCNN
    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["dqn"]
    default_trunk_arch: ClassVar[tuple[int, ...]] = ()
    default_net_arch: ClassVar[tuple[int, ...]] = (128,)

    def __init__(self, *args: Any, ortho_init: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, ortho_init=ortho_init, **kwargs)


class MultiTaskLargeCnnPolicy(MultiTaskCnnPolicy):
    """The network for ten games (Rusu et al. 2015, table A2): 6,756,721 parameters with 85 actions in all."""

    extractor_kwargs: ClassVar[dict[str, Any]] = {"channels": (64, 64, 64), "features_dim": 1500}


class MultiTaskGridCnnPolicy(MultiTaskMlpPolicy):
    """Multi-task student of small grids such as MinAtar's, with controllers of 64 units by default."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = GridCNN
    default_trunk_arch: ClassVar[tuple[int, ...]] = ()


class MultiTaskDQNMlpPolicy(MultiTaskPolicyMixin, DQNPolicy):  # type: ignore[misc]
    """The multi-task DQN's counterpart of ``MultiTaskMlpPolicy``: the same network, and a target network."""


class MultiTaskDQNCnnPolicy(MultiTaskDQNMlpPolicy):
    """The multi-task DQN's counterpart of ``MultiTaskCnnPolicy``. Its frames are divided by 255."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = StudentCNN
    extractor_kwargs: ClassVar[dict[str, Any]] = {**MultiTaskCnnPolicy.extractor_kwargs, "standardize": None}
    default_trunk_arch: ClassVar[tuple[int, ...]] = ()
    default_net_arch: ClassVar[tuple[int, ...]] = (128,)


class MultiTaskDQNLargeCnnPolicy(MultiTaskDQNCnnPolicy):
    """The multi-task DQN's counterpart of ``MultiTaskLargeCnnPolicy``."""

    extractor_kwargs: ClassVar[dict[str, Any]] = {**MultiTaskLargeCnnPolicy.extractor_kwargs, "standardize": None}


class MultiTaskDQNGridCnnPolicy(MultiTaskDQNMlpPolicy):
    """The multi-task DQN's counterpart of ``MultiTaskGridCnnPolicy``."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = GridCNN
    default_trunk_arch: ClassVar[tuple[int, ...]] = ()


MULTI_TASK_POLICIES: dict[str, type[MultiTaskMlpPolicy]] = {
    "MultiTaskMlpPolicy": MultiTaskMlpPolicy,
    "MultiTaskCnnPolicy": MultiTaskCnnPolicy,
    "MultiTaskLargeCnnPolicy": MultiTaskLargeCnnPolicy,
    "MultiTaskGridCnnPolicy": MultiTaskGridCnnPolicy,
}
MULTI_TASK_DQN_POLICIES: dict[str, type[MultiTaskDQNMlpPolicy]] = {
    "MultiTaskMlpPolicy": MultiTaskDQNMlpPolicy,
    "MultiTaskCnnPolicy": MultiTaskDQNCnnPolicy,
    "MultiTaskLargeCnnPolicy": MultiTaskDQNLargeCnnPolicy,
    "MultiTaskGridCnnPolicy": MultiTaskDQNGridCnnPolicy,
}
