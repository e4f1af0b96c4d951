"""Layers that compute with few bits: learned step sizes, and a transition from full to low precision."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

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


class _QuantizedLayer:
    """What quantized layers share: quantizers of the weight and of the input."""

    weight: Any
    bias: Any
    weight_quantizer: Quantizer
    input_quantizer: Quantizer | None

    def _adopt(self, layer: Any, weight_bits: int, activation_bits: int | None, n_input_steps: int = 1) -> None:
        self.weight, self.bias = layer.weight, layer.bias
        # Weights of one sign may get the other one.
        self.weight_quantizer = Quantizer(weight_bits, len(layer.weight), signed=True).to(layer.weight.device)
        self.weight_quantizer.fit(layer.weight)
        self.input_quantizer = None
        if activation_bits is not None:
            # Entries of an observation have scales of their own.
            several = n_input_steps > 1
            self.input_quantizer = Quantizer(activation_bits, n_input_steps, axis=1, relative=several).to(
                layer.weight.device
            )

    def _quantized_input(self, x: th.Tensor) -> th.Tensor:
        return x if self.input_quantizer is None else self.input_quantizer(x)


class QuantizedLinear(_QuantizedLayer, nn.Linear):
    """
    A fully connected layer with quantized weight and input; the bias stays as it is.

    :param layer: the layer, whose parameters are taken over
    :param weight_bits: precision of the weight
    :param activation_bits: precision of the input, None where it is exact already
    :param is_first: whether it takes the observations, which then have a step size for each entry
    """

    def __init__(self, layer: nn.Linear, weight_bits: int, activation_bits: int | None, is_first: bool = False) -> None:
        nn.Linear.__init__(self, layer.in_features, layer.out_features, bias=False)
        self._adopt(layer, weight_bits, activation_bits, layer.in_features if is_first else 1)

    def forward(self, x: th.Tensor) -> th.Tensor:
        return F.linear(self._quantized_input(x), self.weight_quantizer(self.weight), self.bias)


class QuantizedConv2d(_QuantizedLayer, nn.Conv2d):
    """
    A convolution with quantized weight and input; the bias stays as it is.

    :param layer: the layer, whose parameters are taken over
    :param weight_bits: precision of the weight
    :param activation_bits: precision of the input, None where it is exact already
    """

    def __init__(self, layer: nn.Conv2d, weight_bits: int, activation_bits: int | None) -> None:
        nn.Conv2d.__init__(
            self,
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            bias=False,
            padding_mode=layer.padding_mode,
        )
        self._adopt(layer, weight_bits, activation_bits)

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self._conv_forward(self._quantized_input(x), self.weight_quantizer(self.weight), self.bias)


def quantized_layers(module: nn.Module) -> list[Any]:
    """
    :param module: a network
    :return: its quantized layers, in order
    """
    return [layer for layer in module.modules() if isinstance(layer, _QuantizedLayer)]


def quantizers(module: nn.Module) -> Iterator[Quantizer]:
    """
    :param module: a network
    :return: the quantizers of its layers
    """
    for layer in quantized_layers(module):
        yield layer.weight_quantizer
        if layer.input_quantizer is not None:
            yield layer.input_quantizer


def quantize(
    policy: nn.Module,
    acting: Sequence[nn.Module],
    weight_bits: Callable[[int, int, nn.Module], int],
    activation_bits: Callable[[int, int, nn.Module], int | None],
) -> None:
    """
    Replace the convolutions and fully connected layers of the part of a policy that acts by quantized ones, in place.

    :param policy: a policy
    :param acting: the parts of it that act, in the order in which an observation passes them
    :param weight_bits: from a layer's position, the number of layers and the layer to the precision of its weight
    :param activation_bits: the same for its input, None where it is exact already
    """
    layers = [layer for module in acting for layer in module.modules() if type(layer) in (nn.Linear, nn.Conv2d)]
    replacements: dict[nn.Module, nn.Module] = {}
    for position, layer in enumerate(layers):
        bits = weight_bits(position, len(layers), layer), activation_bits(position, len(layers), layer)
        if isinstance(layer, nn.Linear):
            replacements[layer] = QuantizedLinear(layer, *bits, is_first=position == 0)
        else:
            assert isinstance(layer, nn.Conv2d)
            replacements[layer] = QuantizedConv2d(layer, *bits)
    for parent in list(policy.modules()):
        for name, child in list(parent.named_children()):
            if child in replacements:
                setattr(parent, name, replacements[child])


@contextmanager
def _record_inputs(layers: list[Any]) -> Iterator[dict[int, th.Tensor]]:
    inputs: dict[int, th.Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda module, args, key=index: inputs.update({key: args[0].detach()}))
        for index, layer in enumerate(layers)
    ]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


@th.no_grad()
def calibrate(module: nn.Module, run: Callable[[], Any]) -> None:
    """
    Choose all step sizes: of weights from the weights, of activations from what ``run`` feeds through the network.

    :param module: a network with quantized layers
    :param run: one forward pass over recorded observations
    """
    layers = quantized_layers(module)
    blends = [float(quantizer.blend) for quantizer in quantizers(module)]
    set_blend(module, 0.0)
    with _record_inputs(layers) as inputs:
        run()
    for index, layer in enumerate(layers):
        layer.weight_quantizer.fit(layer.weight)
        if layer.input_quantizer is not None:
            layer.input_quantizer.fit(inputs[index])
    for quantizer, blend in zip(quantizers(module), blends, strict=True):
        quantizer.blend.fill_(blend)


def set_blend(module: nn.Module, blend: float) -> None:
    """
    :param module: a network with quantized layers
    :param blend: 0 for full precision, 1 for the quantizers' own
    """
    for quantizer in quantizers(module):
        quantizer.blend.fill_(blend)


def describe_transition(module: nn.Module) -> str:
    """
    :param module: a network
    :return: how far its quantizers are from their final precision, e.g. "blend 0.49, 6 bits of 3"; the empty string
        where they have it, or where there are none
    """
    farthest = max(quantizers(module), key=lambda quantizer: int(quantizer.bits - quantizer.final_bits), default=None)
    if farthest is None or (float(farthest.blend) == 1.0 and bool(farthest.bits == farthest.final_bits)):
        return ""
    return f"blend {float(farthest.blend):.2f}, {int(farthest.bits)} bits of {int(farthest.final_bits)}"


def freeze_steps(module: nn.Module) -> None:
    """
    Keep all step sizes as they are from now on.

    :param module: a network with quantized layers
    """
    for quantizer in quantizers(module):
        quantizer.step.requires_grad_(False)
