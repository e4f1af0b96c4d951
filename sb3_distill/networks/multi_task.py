"""Networks with a trunk that all tasks share and a controller for each task (Rusu et al. 2015, section 3.3)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill.common.utils import without_task
from sb3_distill.networks.extractors import CNN_SIZES, ExtractorMixin, GridCNN, StudentCNN
from sb3_distill.networks.policies import StudentPolicy


class MultiTaskQNetwork(BasePolicy):
    """
    A trunk that all tasks share, and for each task an MLP controller with one output per action of that task. The task
    index in the observation selects the controller, "during both training and evaluation" (Rusu et al. 2015, section
    3.3).

    :param observation_space: ``Dict(obs, task)``, or a Dict of several parts and ``task``
    :param action_space: action space of the task with the most actions
    :param task_actions: number of actions of each task
    :param features_extractor_class: features extractor of the trunk; its input is ``obs``, or a Dict of the parts
    :param features_extractor_kwargs: keyword arguments of the features extractor
    :param trunk_arch: sizes of the shared hidden layers after the features extractor
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
        # The features extractor does not get the task, which is an index, not a feature.
        self.shown_space = without_task(observation_space)
        self.features_extractor = features_extractor_class(self.shown_space, **features_extractor_kwargs)
        trunk = create_mlp(self.features_extractor.features_dim, -1, list(trunk_arch), activation_fn)
        self.trunk = nn.Sequential(*trunk)
        width = trunk_arch[-1] if trunk_arch else self.features_extractor.features_dim
        self.controllers = nn.ModuleList(
            nn.Sequential(*create_mlp(width, n_actions, list(net_arch), activation_fn)) for n_actions in task_actions
        )

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of observations
        :return: the output of the trunk, which is the input of the controllers, ``(batch, width)``
        """
        shown = without_task(obs)
        if isinstance(shown, dict):
            shown = {key: self._scaled(part, self.shown_space[key]) for key, part in shown.items()}
        else:
            shown = self._scaled(shown, self.shown_space)
        return self.trunk(self.features_extractor(shown))

    def _scaled(self, obs: th.Tensor, space: spaces.Space) -> th.Tensor:
        if self.normalize_images and is_image_space(space):
            return obs.float() / 255.0
        return obs if obs.dtype == th.uint8 else obs.float()

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of observations, of any tasks
        :return: one number per action, ``(batch, n_actions)``; minus infinity for actions that do not exist in the task
        """
        features = self.features(obs)
        # Minibatches keep their tasks on the CPU, so that nothing waits for a GPU here.
        tasks = obs["task"].reshape(-1).long().cpu().numpy()  # type: ignore[index]
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        values = features.new_full((len(tasks), n_actions), -th.inf)
        for task in np.unique(tasks).tolist():
            rows = th.as_tensor(np.flatnonzero(tasks == task), device=features.device)
            outputs = self.controllers[task](features[rows])
            padding = outputs.new_full((len(rows), n_actions - outputs.shape[1]), -th.inf)
            values = values.index_copy(0, rows, th.cat([outputs, padding], dim=1))
        return values

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        return self(observation).argmax(dim=1).reshape(-1)


def build_network(policy: Any) -> MultiTaskQNetwork:
    """
    :param policy: a multi-task student, or the policy of the multi-task DQN
    :return: a new network with the policy's architecture
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


class MultiTaskPolicyMixin(ExtractorMixin):
    """
    Mixin of the multi-task student and the policy of the multi-task DQN: uses ``MultiTaskQNetwork`` instead of SB3's
    Q-network.

    :param observation_space: ``Dict(obs, task)``
    :param action_space: action space of the task with the most actions
    :param lr_schedule: Learning rate schedule (could be constant)
    :param task_actions: number of actions of each task; the algorithms read it from the environment
    :param trunk_arch: sizes of the shared hidden layers after the features extractor
    :param net_arch: hidden layers of each controller
    :param activation_fn: Activation function
    :param features_extractor_class: Features extractor of ``obs``
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor
    :param normalize_images: Whether images are bytes that must be scaled
    :param kwargs: other arguments of the policy, such as ``optimizer_class``
    """

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
        super().__init__(  # type: ignore[call-arg]
            observation_space,
            action_space,
            lr_schedule,
            list(self.default_net_arch if net_arch is None else net_arch),
            activation_fn,
            *self.choose_extractor(features_extractor_class, features_extractor_kwargs, normalize_images),
            **kwargs,
        )

    def make_q_net(self) -> MultiTaskQNetwork:
        """Build the network of all tasks."""
        return build_network(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),  # type: ignore[misc]
            "task_actions": self.task_actions,
            "trunk_arch": self.trunk_arch,
        }


def _entries_of(own: Any, padded: Any) -> np.ndarray:
    """Indices of a task's own entries within the flattened, padded observation."""
    unpadded = tuple(slice(size) for size in own.shape)
    return np.arange(np.prod(padded.shape)).reshape(padded.shape)[unpadded].ravel()


class MultiTaskMlpPolicy(MultiTaskPolicyMixin, StudentPolicy):  # type: ignore[misc]
    """
    Multi-task student for vectors. By default, the trunk has one hidden layer of 64 units, and every controller
    another one of 64 units.
    """

    q_net: MultiTaskQNetwork  # type: ignore[assignment]

    def output_layers(self) -> list[nn.Module]:
        return [controller[-1] for controller in self.q_net.controllers]  # type: ignore[index]

    def fit_frame_scalers(self, obs: PyTorchObs) -> None:
        super().fit_frame_scalers(without_task(obs))

    def single_task_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of the ``StudentPolicy`` that equals this student on a single task."""
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
        Copy the weights of the trunk and of one task's controller into a single-task policy.

        :param task: index of the task
        :param policy: a policy that was made with ``single_task_kwargs``
        """
        network = policy.q_net
        own_state = self.q_net.features_extractor.state_dict()
        for name, tensor in network.features_extractor.state_dict().items():
            # If the task's observations were padded with channels, leave out the weights of the padding.
            tensor.copy_(own_state[name][:, : tensor.shape[1]] if tensor.ndim > 1 else own_state[name])
        layers = [*self.q_net.trunk, *self.q_net.controllers[task]]  # type: ignore[misc]
        entries = self._unpadded_entries(policy.observation_space)
        for own, layer in zip(layers, network.q_net, strict=True):
            if isinstance(layer, nn.Linear):
                is_padded = own.in_features != layer.in_features
                layer.weight.copy_(own.weight[:, entries] if is_padded else own.weight)
                layer.bias.copy_(own.bias)

    def _unpadded_entries(self, own: spaces.Space) -> np.ndarray:
        """Indices of a task's own entries within the features of the padded observation."""
        return _entries_of(own, self.q_net.shown_space)


class MultiTaskCnnPolicy(MultiTaskMlpPolicy):
    """
    Multi-task student for stacked frames. For three games with 12 actions in total it has 1,882,668 parameters, as in
    Rusu et al. 2015, table A2.
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = StudentCNN
    extractor_kwargs: ClassVar[dict[str, Any]] = CNN_SIZES["dqn"]
    default_trunk_arch: ClassVar[tuple[int, ...]] = ()
    default_net_arch: ClassVar[tuple[int, ...]] = (128,)
    default_ortho_init: ClassVar[bool] = True


class MultiTaskLargeCnnPolicy(MultiTaskCnnPolicy):
    """The network for ten games (Rusu et al. 2015, table A2): 6,756,721 parameters for 85 actions in total."""

    extractor_kwargs: ClassVar[dict[str, Any]] = {"channels": (64, 64, 64), "features_dim": 1500}


class MultiTaskGridCnnPolicy(MultiTaskMlpPolicy):
    """Multi-task student for small grids such as MinAtar's; by default, controllers have a hidden layer of 64 units."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = GridCNN
    default_trunk_arch: ClassVar[tuple[int, ...]] = ()


class MultiTaskMultiInputPolicy(MultiTaskMlpPolicy):
    """Multi-task student for tasks of which it sees several keys, with SB3's ``CombinedExtractor``."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = CombinedExtractor

    def _unpadded_entries(self, own: spaces.Space) -> np.ndarray:
        assert isinstance(own, spaces.Dict)
        entries, width = [], 0
        for key, extractor in self.q_net.features_extractor.extractors.items():  # type: ignore[union-attr, operator]
            # Images are never padded.
            padded = self.q_net.shown_space[key] if isinstance(extractor, nn.Flatten) else None
            part = np.arange(extractor.features_dim) if padded is None else _entries_of(own[key], padded)
            entries.append(width + part)
            width += len(part) if padded is None else int(np.prod(padded.shape))
        return np.concatenate(entries)


class MultiTaskDQNMlpPolicy(MultiTaskPolicyMixin, DQNPolicy):  # type: ignore[misc]
    """The multi-task DQN's counterpart of ``MultiTaskMlpPolicy``: the same network, plus a target network."""


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
    "MultiTaskMultiInputPolicy": MultiTaskMultiInputPolicy,
}
MULTI_TASK_DQN_POLICIES: dict[str, type[MultiTaskDQNMlpPolicy]] = {
    "MultiTaskMlpPolicy": MultiTaskDQNMlpPolicy,
    "MultiTaskCnnPolicy": MultiTaskDQNCnnPolicy,
    "MultiTaskLargeCnnPolicy": MultiTaskDQNLargeCnnPolicy,
    "MultiTaskGridCnnPolicy": MultiTaskDQNGridCnnPolicy,
}
