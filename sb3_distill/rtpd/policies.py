"""The teacher's policies: SB3's own, and one for small grids."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy, MlpPolicy, MultiInputPolicy
from torch import nn

from sb3_distill.common.torch_layers import GridCNN


class GridCnnPolicy(DQNPolicy):
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


TEACHER_POLICIES: dict[str, type[DQNPolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "GridCnnPolicy": GridCnnPolicy,
}
