"""Rounding to few bits with a learned step size."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_distill.common.utils import unknown_choice

MIN_BITS, MAX_BITS = 2, 8
LAYER_KINDS = ("conv", "linear")
# No step size is smaller.
_SMALLEST = 1e-20
# Quantizer.fit tries these fractions of the largest magnitude as the range.
_RANGES = th.linspace(0.2, 1.0, 33)
# What else than tensors is saved with a quantizer
_NUMBERS: dict[str, Callable[[Any], Any]] = {"bits": int, "final_bits": int, "blend": float, "signed": bool}


def check_bits(field: str, bits: Any, kinds: Collection[str] = ()) -> None:
    """
    :param field: the argument's name
    :param bits: the argument's value, a number of bits
    :param kinds: if there are any, the value may also be a mapping from them to a number of bits
    :raises ValueError: the value has another form, or is out of range
    """
    if kinds and isinstance(bits, Mapping):
        for kind, value in bits.items():
            if kind not in kinds:
                raise ValueError(f"{field}: " + unknown_choice("entry", kind, kinds))
            check_bits(f"{field}[{kind!r}]", value)
    elif isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"{field} must be a whole number between {MIN_BITS} and {MAX_BITS} bits, not {bits!r}.")


def has_exact_input(observation_space: spaces.Space) -> bool:
    """
    :param observation_space: observation space of a network
    :return: whether the observations are bytes, booleans or one-hot vectors: these are integers already and need no
        quantizer (their scaling can be merged into the first layer)
    """
    if isinstance(observation_space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        # SB3 encodes Discrete and MultiDiscrete observations as one-hot vectors.
        return True
    return isinstance(observation_space, spaces.Box) and observation_space.dtype in (np.uint8, np.bool_)


class Quantizer(nn.Module):
    """
    Rounds a tensor to multiples of a learned step size: to ``2^bits`` levels, or, if there are negative values, to
    ``2^bits - 1`` levels that are symmetric around 0. The gradient of the rounding is that of the identity
    (straight-through estimator; Esser et al. 2020, "Learned Step Size Quantization", arXiv 1902.08153, Eq. 1-3).

    The output is ``x + blend (Q(x) - x)``: ``blend`` is 0 for full precision and 1 for fully quantized.

    The step sizes are ``unit * step``: what is trained (``step``) starts at 1 wherever a step size is chosen, so that
    the optimizer changes each in proportion to its size. Where the optimizer is Adam, this does what the gradient scale
    of the paper (section 2.2) is for, which Adam would divide out.

    :param bits: precision
    :param n_channels: number of step sizes: one for each output channel of a weight, one for all activations of a
        layer, or one for each entry of an input where their scales differ
    :param axis: the axis along which the step sizes differ
    :param signed: whether there are negative levels; None: ``fit`` decides by the sign of its values
    """

    unit: th.Tensor

    def __init__(self, bits: int, n_channels: int = 1, axis: int = 0, signed: bool | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.is_signed = signed
        self.register_buffer("unit", th.ones(n_channels))
        self.step = nn.Parameter(th.ones(n_channels))
        # Numbers, and no buffers: to read one from a GPU at every forward pass would wait for it.
        self.bits, self.final_bits, self.blend, self.signed = int(bits), int(bits), 0.0, True

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in _NUMBERS:
            # In double precision: a run that goes on has the same blend.
            number = getattr(self, name)
            destination[prefix + name] = th.tensor(number, dtype=th.float64 if name == "blend" else None)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        numbers = {prefix + name: kind for name, kind in _NUMBERS.items()}
        others = {key: value for key, value in state_dict.items() if key not in numbers}
        super()._load_from_state_dict(others, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        for key, kind in numbers.items():
            if key not in state_dict:
                missing_keys.extend([key] if strict else [])
                continue
            try:
                setattr(self, key.removeprefix(prefix), kind(state_dict[key]))
            except (TypeError, ValueError, RuntimeError, OverflowError) as error:
                error_msgs.append(f"{key} is no number: {error}")

    def levels(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        return (-(2 ** (self.bits - 1)) + 1, 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)

    def _steps(self, x: th.Tensor) -> th.Tensor:
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return self.step_sizes().reshape(shape)

    def step_sizes(self) -> th.Tensor:
        """The distance between two levels, for each channel."""
        return (self.unit * self.step).abs().clamp(min=_SMALLEST)

    def to_integers(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: values
        :return: the integers (levels) to which the values are rounded, as floats
        """
        low, high = self.levels()
        return (x / self._steps(x)).round().clamp(low, high)

    def forward(self, x: th.Tensor) -> th.Tensor:
        if self.blend == 0.0:
            return x
        low, high = self.levels()
        steps = self._steps(x)
        inside = (x / steps).clamp(low, high)
        quantized = (inside + (inside.round() - inside).detach()) * steps
        return quantized if self.blend == 1.0 else x + self.blend * (quantized - x)

    @th.no_grad()
    def fit(self, x: th.Tensor, idle_range: float | th.Tensor = 1.0) -> None:
        """
        Choose the step sizes with the least squared error.

        :param x: a weight, or recorded activations
        :param idle_range: range of channels that are 0 everywhere
        """
        self.signed = bool((x < 0).any()) if self.is_signed is None else self.is_signed
        rows = x.movedim(self.axis, 0).reshape(len(self.step), -1) if len(self.step) > 1 else x.reshape(1, -1)
        low, high = self.levels()
        largest = rows.abs().amax(dim=1, keepdim=True)
        # Channels that are 0 in all examples give no information on their range. With a tiny step size, all later
        # values would be clipped to almost 0.
        idle = largest == 0
        largest = th.where(idle, idle_range, largest).clamp(min=_SMALLEST)
        best_error = th.full_like(largest, th.inf)
        best_step = largest / high
        for fraction in _RANGES.tolist():
            step = fraction * largest / high
            error = ((rows / step).round().clamp(low, high) * step - rows).square().mean(dim=1, keepdim=True)
            best_step = th.where((error < best_error) & ~idle, step, best_step)
            best_error = th.minimum(error, best_error)
        self._choose(best_step.reshape(-1))

    def _choose(self, step_sizes: th.Tensor) -> None:
        self.unit.copy_(step_sizes)
        self.step.fill_(1.0)

    @th.no_grad()
    def set_bits(self, bits: int) -> None:
        """Change the number of bits, with the same range of values."""
        old = self.levels()[1]
        self.bits = bits
        self.rescale(old / self.levels()[1])

    @th.no_grad()
    def rescale(self, factor: float) -> None:
        """Multiply all step sizes."""
        self._choose(self.step_sizes() * factor)
