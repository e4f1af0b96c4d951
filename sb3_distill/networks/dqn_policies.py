"""The teacher's policies: SB3's own, one for small grids, and the students' convolutions for those who learn alone."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy, MlpPolicy, MultiInputPolicy
from torch import nn

from sb3_distill.networks.extractors import GridCNN, StudentCNN


class DQNGridCnnPolicy(DQNPolicy):
    """DQN's policy for small grids such as MinAtar's (see ``GridCNN``)."""

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


class DQNStudentCnnPolicy(DQNPolicy):
    """
    DQN's policy with the convolutions of a student (see ``StudentCNN`` for the keywords of its features extractor), for
    what a small network learns without a teacher. Frames are divided by 255, as SB3's.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = StudentCNN,
        **kwargs: Any,
    ) -> None:
        net_arch = [] if net_arch is None else net_arch
        # The features extractor scales the frames itself.
        kwargs["normalize_images"] = False
        super().__init__(
            observation_space, action_space, lr_schedule, net_arch, activation_fn, features_extractor_class, **kwargs
        )


DQN_POLICIES: dict[str, type[DQNPolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "GridCnnPolicy": DQNGridCnnPolicy,
    "StudentCnnPolicy": DQNStudentCnnPolicy,
}
