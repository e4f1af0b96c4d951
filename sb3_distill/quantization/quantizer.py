"""Rounding to few bits with a learned step size."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_distill.common.utils import unknown_choice

MIN_BITS, MAX_BITS = 2, 8
LAYER_KINDS = ("conv", "linear")
# Fractions of the largest value that are tried as the range of a quantizer
_RANGES = th.linspace(0.2, 1.0, 33)


def check_bits(field: str, bits: Any, by_kind: bool = False) -> None:
    """
    :param field: what the bits are of
    :param bits: a number of bits
    :param by_kind: whether it may also be a mapping with one for "conv" and "linear" layers each
    :raises ValueError: neither, or out of range
    """
    if by_kind and isinstance(bits, Mapping):
        for kind, value in bits.items():
            if kind not in LAYER_KINDS:
                raise ValueError(f"{field}: " + unknown_choice("layer", kind, LAYER_KINDS))
            check_bits(f"{field}[{kind!r}]", value)
    elif isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"{field} must be a whole number between {MIN_BITS} and {MAX_BITS} bits, not {bits!r}.")


def has_exact_input(observation_space: spaces.Space) -> bool:
    """
    :param observation_space: what a network sees
    :return: whether these are bytes or bits, which are exact already: their scaling folds into the first layer
    """
    if isinstance(observation_space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        # One-hot
        return True
    return isinstance(observation_space, spaces.Box) and observation_space.dtype in (np.uint8, np.bool_)


class Quantizer(nn.Module):
    """
    Rounds a tensor to ``2^bits`` levels (``2^bits - 1`` symmetric ones where values are negative too) with a learned
    step size; rounding passes gradients straight through (Esser et al. 2020, "Learned Step Size Quantization", arXiv
    1902.08153, Eq. 1-3).

    ``blend`` goes from 0, full precision, to 1, quantized: ``x + blend (Q(x) - x)``.

    :param bits: precision
    :param n_channels: step sizes: one for each output channel of a weight, one for a tensor of activations, one for
        each entry of a vector of observations, whose scales differ
    :param axis: the axis of these channels
    :param signed: whether integers are negative too; None: where the values are that it is fitted to
    :param relative: learn the steps as multiples of the fitted ones: an optimizer's updates are then in proportion to
        steps that differ by orders of magnitude
    """

    unit: th.Tensor
    bits: th.Tensor
    final_bits: th.Tensor
    blend: th.Tensor
    signed: th.Tensor

    def __init__(
        self, bits: int, n_channels: int = 1, axis: int = 0, signed: bool | None = None, relative: bool = False
    ) -> None:
        super().__init__()
        self.axis = axis
        self.is_signed = signed
        self.relative = relative
        self.register_buffer("unit", th.ones(n_channels))
        self.step = nn.Parameter(th.ones(n_channels))
        self.register_buffer("bits", th.tensor(bits))
        self.register_buffer("final_bits", th.tensor(bits))
        self.register_buffer("blend", th.tensor(0.0))
        self.register_buffer("signed", th.tensor(True))

    def levels(self) -> tuple[int, int]:
        """The least and the greatest integer."""
        bits = int(self.bits)
        return (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if self.signed else (0, 2**bits - 1)

    def _steps(self, x: th.Tensor) -> th.Tensor:
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return self.step_sizes().reshape(shape)

    def step_sizes(self) -> th.Tensor:
        """The distance between two levels, for each channel."""
        return (self.unit * self.step).abs().clamp(min=1e-8)

    def to_integers(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: values
        :return: their integers, as floats
        """
        low, high = self.levels()
        return (x / self._steps(x)).round().clamp(low, high)

    def forward(self, x: th.Tensor) -> th.Tensor:
        blend = float(self.blend)
        if blend == 0.0:
            return x
        low, high = self.levels()
        steps = self._steps(x)
        # LSQ's scale of the step's gradient, which keeps it in proportion to the weights'
        scale = 1.0 / math.sqrt(max(x.numel() / len(self.step), 1) * max(high, 1))
        steps = steps * scale + (steps * (1 - scale)).detach()
        inside = (x / steps).clamp(low, high)
        quantized = (inside + (inside.round() - inside).detach()) * steps
        return quantized if blend == 1.0 else x + blend * (quantized - x)

    @th.no_grad()
    def fit(self, x: th.Tensor) -> None:
        """
        Choose the step sizes with the least squared error.

        :param x: a weight, or activations that have been seen
        """
        self.signed.fill_(bool((x < 0).any()) if self.is_signed is None else self.is_signed)
        rows = x.movedim(self.axis, 0).reshape(len(self.step), -1) if len(self.step) > 1 else x.reshape(1, -1)
        low, high = self.levels()
        largest = rows.abs().amax(dim=1, keepdim=True)
        # What has been 0 throughout says nothing of its range, and a tiny one would keep it at 0 for good.
        idle = largest == 0
        largest = largest.masked_fill(idle, 1.0).clamp(min=1e-8)
        best_error = th.full_like(largest, th.inf)
        best_step = largest / max(high, 1)
        for fraction in _RANGES.tolist():
            step = fraction * largest / max(high, 1)
            error = ((rows / step).round().clamp(low, high) * step - rows).square().mean(dim=1, keepdim=True)
            best_step = th.where((error < best_error) & ~idle, step, best_step)
            best_error = th.minimum(error, best_error)
        if self.relative:
            self.unit.copy_(best_step.reshape(-1))
            self.step.fill_(1.0)
        else:
            self.step.copy_(best_step.reshape(-1))

    @th.no_grad()
    def set_bits(self, bits: int) -> None:
        """Change the precision and keep the range."""
        old = self.levels()[1]
        self.bits.fill_(bits)
        self.step.mul_(old / self.levels()[1])
