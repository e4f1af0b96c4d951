"""Policies for DQN: SB3's own, one for small grids, and one with a student's features extractor (for baselines)."""

from typing import Any, ClassVar

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy, MlpPolicy, MultiInputPolicy
from torch import nn

from sb3_distill.networks.extractors import ExtractorMixin, GridCNN, StudentCNN


class DQNGridCnnPolicy(ExtractorMixin, DQNPolicy):
    """DQN's policy for small grids such as MinAtar's (see ``GridCNN``)."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = GridCNN

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
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            # The features extractor has the hidden layer already. With None, SB3 would add layers of [64, 64].
            [] if net_arch is None else net_arch,
            activation_fn,
            *self.choose_extractor(features_extractor_class, features_extractor_kwargs, normalize_images),
            **kwargs,
        )


class DQNStudentCnnPolicy(DQNGridCnnPolicy):
    """
    DQN's policy with the features extractor of a student (see ``StudentCNN`` for its arguments), to measure how well a
    small network learns without a teacher. Frames are divided by 255, as in SB3.
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = StudentCNN


DQN_POLICIES: dict[str, type[DQNPolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "GridCnnPolicy": DQNGridCnnPolicy,
    "StudentCnnPolicy": DQNStudentCnnPolicy,
}
