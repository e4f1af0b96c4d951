"""Features extractors of the students."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import nn

from sb3_distill.common.utils import has_fast_bfloat16, setting
from sb3_distill.networks.layers import FrameScaler, GlobalMaxPool

# Arguments of ``StudentCNN`` for the networks of the papers: Rusu et al. 2015, table A1 (the DQN network itself, net1
# to net3), Sun & Fazli 2019, section 3 (net4, net5), Actor-Mimic compression, table 2 (max_pool)
CNN_SIZES: dict[str, dict[str, Any]] = {
    "dqn": {"channels": (32, 64, 64), "features_dim": 512},
    "net1": {"channels": (16, 32, 32), "features_dim": 256},
    "net2": {"channels": (16, 16, 16), "features_dim": 128},
    "net3": {"channels": (16, 16, 16), "features_dim": 64},
    "net4": {"channels": (8, 8, 16), "features_dim": 64},
    "net5": {"channels": (8, 16, 8), "features_dim": 64},
    "max_pool": {"channels": (16, 32, 32), "features_dim": 512, "pool": "max"},
}


def check_pool(pool: str | None) -> None:
    """
    :param pool: the pooling of the feature maps
    :raises ValueError: the pooling is neither "max" nor None
    """
    if pool not in ("max", None):
        raise ValueError(f"pool must be 'max' or None, not {pool!r}.")


class StudentCNN(BaseFeaturesExtractor):
    """
    The DQN network's convolutions (kernels 8, 4, 3; strides 4, 2, 1; ReLU) with any number of feature maps, an
    optional global max-pool over each map, and one fully connected layer.

    The network sizes of Rusu et al. 2015 (table A1), Sun & Fazli 2019 (section 3) and Actor-Mimic compression
    (table 2) are instances, see ``sb3_distill.networks.policies``.

    :param observation_space: stacked frames, channels first, dtype uint8
    :param channels: feature maps of the three convolutions
    :param features_dim: units of the fully connected layer
    :param pool: None, or "max" for the global max-pool of Actor-Mimic compression
    :param standardize: how ``FrameScaler`` treats the frames: "scalar", "frame", or None (division by 255)
    :param normalize_images: False if the images are scaled to [0, 1] already
    :raises ValueError: the space is not a channels-first uint8 image, or an option is unknown
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        channels: Sequence[int] = (32, 64, 64),
        features_dim: int = 512,
        pool: str | None = None,
        standardize: str | None = "scalar",
        normalize_images: bool = True,
    ) -> None:
        super().__init__(observation_space, features_dim)
        if not isinstance(observation_space, spaces.Box) or not (
            is_image_space(observation_space, check_channels=False) and is_image_space_channels_first(observation_space)
        ):
            raise ValueError(
                "A CNN student needs channels-first images of dtype uint8 with bounds 0 and 255, such as "
                f"Box(0, 255, (4, 84, 84), uint8), not {observation_space}. Use 'MlpPolicy' for vectors; keep images "
                "as bytes (the student scales them itself)."
            )
        check_pool(pool)
        if len(channels) != 3 or min(channels) < 1:
            raise ValueError(f"channels must be three positive numbers of feature maps, not {tuple(channels)}.")

        n_planes, height, width = observation_space.shape
        self.scaler = FrameScaler((height, width), standardize, max_value=255.0 if normalize_images else 1.0)
        self.cnn = nn.Sequential(
            nn.Conv2d(n_planes, channels[0], kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(channels[0], channels[1], kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels[1], channels[2], kernel_size=3, stride=1),
            nn.ReLU(),
            GlobalMaxPool() if pool == "max" else nn.Flatten(),
        )
        with th.no_grad():
            n_flatten = self.cnn(th.zeros(1, n_planes, height, width)).shape[1]
        self.linear = nn.Sequential(nn.Linear(n_flatten, features_dim), nn.ReLU())
        # set_train_dtype may choose bfloat16 for training; acting, and the layers after this extractor, use float32.
        self.train_dtype = th.float32
        self.memory_format = th.contiguous_format

    def forward(self, observations: th.Tensor) -> th.Tensor:
        images = self.scaler(observations)
        if self.training and self.train_dtype != th.float32:
            with th.autocast(images.device.type, dtype=self.train_dtype):
                features = self.linear(self.cnn(images))
            return features.float()
        return self.linear(self.cnn(images))


class GridCNN(BaseFeaturesExtractor):
    """
    One convolution (kernel 3, stride 1, ReLU) and one fully connected layer, for small grids such as MinAtar's. The
    defaults (16 feature maps, 128 units) are the network of Young & Tian 2019 (arXiv 1903.03176).

    :param observation_space: grid with the channels last, ``(height, width, n_channels)``, as in MinAtar
    :param channels: feature maps of the convolution
    :param features_dim: units of the fully connected layer
    :param pool: None, or "max" for the global max-pool of Actor-Mimic compression
    :raises ValueError: the space is not such a grid, or an option is unknown
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        channels: int = 16,
        features_dim: int = 128,
        pool: str | None = None,
    ) -> None:
        super().__init__(observation_space, features_dim)
        check_pool(pool)
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 3:
            raise ValueError(
                "A grid student needs observations (height, width, n_channels), such as MinAtar's (10, 10, 4), not "
                f"{observation_space}. Use 'MlpPolicy' for vectors."
            )
        height, width, n_planes = observation_space.shape
        self.cnn = nn.Sequential(
            nn.Conv2d(n_planes, channels, kernel_size=3), nn.ReLU(), GlobalMaxPool() if pool == "max" else nn.Flatten()
        )
        n_flatten = channels if pool == "max" else (height - 2) * (width - 2) * channels
        self.linear = nn.Sequential(nn.Linear(n_flatten, features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.linear(self.cnn(observations.permute(0, 3, 1, 2)))


def set_train_dtype(policy: nn.Module, device: th.device, bf16: bool | None = None) -> None:
    """
    Choose the data type in which a student's ``StudentCNN`` is computed during training, and the memory layout that is
    fastest with this type (measured on CPUs; on CUDA devices the one that PyTorch recommends).

    :param policy: the student
    :param device: the device on which it is trained
    :param bf16: whether to use bfloat16; None: use it if the device multiplies bfloat16 in hardware
    """
    bf16 = has_fast_bfloat16(device) if bf16 is None else bf16
    is_plain = bf16 and device.type == "cpu"
    memory_format = th.contiguous_format if is_plain else th.channels_last
    cnns = [module for module in policy.modules() if isinstance(module, StudentCNN)]
    for cnn in cnns:
        cnn.train_dtype = th.bfloat16 if bf16 else th.float32
        cnn.memory_format = memory_format
    if bf16 and cnns and not has_fast_bfloat16(device):
        warnings.warn(
            "The student's features are computed in bfloat16, but this processor has no instructions for it, so "
            f"that updates are slow. Pass {setting('bf16', 'False')} to compute them in float32."
        )
    policy.to(memory_format=memory_format)  # type: ignore[call-overload]


class ExtractorMixin:
    """A policy of SB3 whose features extractor has a default class and default arguments."""

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    extractor_kwargs: ClassVar[dict[str, Any]] = {}

    @classmethod
    def choose_extractor(
        cls,
        features_extractor_class: type[BaseFeaturesExtractor] | None,
        features_extractor_kwargs: dict[str, Any] | None,
        normalize_images: bool,
    ) -> tuple[type[BaseFeaturesExtractor], dict[str, Any], bool]:
        """
        :param features_extractor_class: Features extractor to use; None: the policy's default
        :param features_extractor_kwargs: Keyword arguments to pass to the features extractor
        :param normalize_images: Whether images are bytes that must be scaled
        :return: the three arguments for SB3's policy
        """
        extractor = features_extractor_class or cls.extractor_class
        kwargs = {**(cls.extractor_kwargs if issubclass(extractor, cls.extractor_class) else {})}
        if issubclass(extractor, StudentCNN):
            # StudentCNN scales the frames itself.
            kwargs["normalize_images"] = normalize_images
            normalize_images = False
        return extractor, {**kwargs, **(features_extractor_kwargs or {})}, normalize_images
