"""Layers of the students' networks."""

from collections.abc import Sequence

import torch as th
from torch import nn


class FrameScaler(nn.Module):
    """
    Turns raw pixels into the network's input: ``(pixels - mean) / scale``.

    Until ``fit`` is called, this is SB3's division by 255. ``fit`` sets the mean and the standard deviation of the
    pixels: either one mean for all pixels, or a mean frame; the standard deviation is one number in both cases. A
    student whose frames are only divided by 255 can get stuck at predicting the teacher's average action distribution
    (measured, see ``docs/pd_results.md``). The statistics are buffers, not parameters: they are saved with the policy,
    but not trained.

    :param frame_shape: height and width of a frame, in pixels
    :param standardize: "scalar" (one mean), "frame" (a mean frame), or None (``fit`` does nothing)
    :param max_value: the divisor before ``fit``: 255 for raw pixels, 1 for images that are scaled already
    """

    mean: th.Tensor
    scale: th.Tensor
    fitted: th.Tensor

    def __init__(self, frame_shape: tuple[int, int], standardize: str | None, max_value: float = 255.0) -> None:
        super().__init__()
        if standardize not in ("scalar", "frame", None):
            raise ValueError(f"standardize must be 'scalar', 'frame' or None, not {standardize!r}.")
        self.standardize = standardize
        self.register_buffer("mean", th.zeros(1, *(frame_shape if standardize == "frame" else (1, 1))))
        self.register_buffer("scale", th.tensor(max_value))
        self.register_buffer("fitted", th.tensor(False))

    def forward(self, images: th.Tensor) -> th.Tensor:
        return (images - self.mean).div_(self.scale)

    @th.no_grad()
    def fit(self, images: th.Tensor) -> None:
        """
        Estimate the statistics. Only the first call has an effect, so that a resumed student keeps its statistics.

        :param images: raw images ``(batch, channels, height, width)``
        """
        if self.standardize is None or self.fitted:
            return
        # Change one copy in place to save memory: a thousand stacks of float32 take 113 MB.
        pixels = images.to(th.float32, copy=True)
        self.mean.copy_(pixels.mean(dim=(0, 1), keepdim=True)[0] if self.standardize == "frame" else pixels.mean())
        # For constant images the standard deviation would be 0. Use at least 1, the difference between two grey levels.
        self.scale.copy_(pixels.sub_(self.mean).square_().mean().sqrt().clamp(min=1.0))
        self.fitted.fill_(True)


class GlobalMaxPool(nn.Module):
    """The largest activation of every feature map: ``(batch, maps, height, width)`` to ``(batch, maps)``."""

    def forward(self, maps: th.Tensor) -> th.Tensor:
        return maps.amax(dim=(2, 3))


class Scale(nn.Module):
    """
    Divides images by a number, as SB3 does by 255.

    :param divisor: the number
    """

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: th.Tensor) -> th.Tensor:
        return x / self.divisor


class ChannelsFirst(nn.Module):
    """``(batch, height, width, channels)`` to ``(batch, channels, height, width)``."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return x.permute(0, 3, 1, 2)


class MeanOverQuantiles(nn.Module):
    """
    QR-DQN's Q-values: the mean over the quantiles of each action.

    :param n_actions: number of actions
    """

    def __init__(self, n_actions: int) -> None:
        super().__init__()
        self.n_actions = n_actions

    def forward(self, quantiles: th.Tensor) -> th.Tensor:
        return quantiles.reshape(len(quantiles), -1, self.n_actions).mean(dim=1)


def count_parameters(modules: Sequence[nn.Module]) -> int:
    """
    :param modules: parts of a policy
    :return: number of their weights and biases. The step sizes of quantized layers are not counted: they belong to the
        storage format of the weights.
    """
    named = nn.ModuleList(modules).named_parameters()
    return sum(parameter.numel() for name, parameter in named if not name.endswith("_quantizer.step"))
