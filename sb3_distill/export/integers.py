"""A quantized agent in integers alone: sums, multipliers and shifts in the place of step sizes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.export.integer_policy import FULL, TANH_STEPS, Inputs, IntegerPolicy, Layer
from sb3_distill.networks.layers import ChannelsFirst, FrameScaler, GlobalMaxPool, MeanOverQuantiles, Scale
from sb3_distill.quantization.layers import QuantizedConv2d, QuantizedLinear
from sb3_distill.quantization.quantizer import has_exact_input

ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
_FUNCTIONS: dict[str, Callable[[th.Tensor], th.Tensor]]
_FUNCTIONS = {"": nn.Identity(), "relu": th.relu, "tanh": th.tanh, "sigmoid": th.sigmoid}
# Bits of the observations of agents that are quantized after training: with fewer, actions change
INPUT_BITS = 12
# Sums must stay below these; wide ones leave room for a multiplier in 64 bits.
NARROW, WIDE = 2**31 - 1, 2**46
# More than any input has, and within 16 bits: VecNormalize may clip far beyond the levels.
MAX_LEVEL = 2**15 - 1
# What the sums of a layer without any weights are held to be
LEAST_SUM = 2**12
# Binary places of biases, where sums leave room: with few bits the unit of a sum is coarse
MAX_PLACES = 12
# Activations with at most this many bits behind them are stairs: their borders take less room than the table.
STAIRS_BITS = 6
# Outputs of discrete actions stay below this.
OUTPUT_LIMIT = 2**30


@dataclass
class _Block:
    """A quantized layer and what follows it up to the next one."""

    layer: Any
    activation: str = ""
    pool: bool = False


def _refuse(agent: Teacher, part: str, advice: str) -> AgentError:
    return AgentError(f"{agent.source} cannot be exported as C: {part}. {advice}")


def _blocks(agent: Teacher) -> tuple[list[_Block], float, float, int]:
    """The layers; the mean and the scale of its frames; and the number of quantiles of each of its outputs."""
    blocks: list[_Block] = []
    mean, scale, n_quantiles = 0.0, 1.0, 1
    for layer in chain_of(agent):
        if isinstance(layer, QuantizedConv2d | QuantizedLinear):
            blocks.append(_Block(layer))
        elif isinstance(layer, FrameScaler):
            if layer.mean.numel() > 1:
                advice = "Train the student with standardize='scalar'."
                raise _refuse(agent, "its FrameScaler subtracts a mean frame (standardize='frame')", advice)
            mean, scale = float(layer.mean), float(layer.scale)
        elif isinstance(layer, Scale):
            scale = layer.divisor
        elif isinstance(layer, MeanOverQuantiles):
            n_quantiles = blocks[-1].layer.out_features // layer.n_actions
        elif isinstance(layer, GlobalMaxPool):
            blocks[-1].pool = True
        elif type(layer) in ACTIVATIONS and blocks and not blocks[-1].activation:
            blocks[-1].activation = ACTIVATIONS[type(layer)]
        elif not isinstance(layer, nn.Flatten | ChannelsFirst):
            advice = (
                "Layers that C has: convolutions, Linear, ReLU, Tanh, Sigmoid, a global max-pool: distil a student."
            )
            raise _refuse(agent, f"its layer {layer} has no counterpart in integers", advice)
    _check_blocks(agent, blocks)
    return blocks, mean, scale, n_quantiles


def _check_blocks(agent: Teacher, blocks: list[_Block]) -> None:
    for block in blocks:
        if isinstance(block.layer, nn.Conv2d) and (
            block.layer.padding not in (0, (0, 0)) or block.layer.dilation != (1, 1) or block.layer.groups != 1
        ):
            raise _refuse(agent, f"{block.layer} has padding, dilation or groups", "Use convolutions without them.")
    if not blocks or blocks[-1].activation:
        raise _refuse(agent, "its last layer is followed by an activation, or there is none", "Distil a student.")


def _as_multiplier(ratio: float) -> tuple[int, int]:
    """The multiplier of 16 bits and the shift (1 to 47) that come nearest to a ratio of two scales."""
    exponent = math.frexp(ratio)[1]
    shift = min(16 - exponent, 47)
    multiplier = round(ratio * 2.0**shift) if shift >= 1 else 2**16
    # From 2^15 on every sum but 0 is beyond all bounds.
    return (multiplier, shift) if multiplier < 2**16 else (2**15, shift - 1) if shift > 1 else (2**16 - 1, 1)


def _inputs(agent: Teacher, quantizer: Any) -> Inputs:
    """How observations become levels."""
    steps = quantizer.step_sizes().double().cpu().numpy()
    low, high = (np.array([level], np.int16) for level in quantizer.levels())
    offset, step = np.zeros(1), steps
    if agent.normalization is not None:
        mean, var = agent.normalization.parts[None]
        deviation = np.sqrt(var + agent.normalization.epsilon)
        offset, step = mean.reshape(-1), deviation.reshape(-1) * steps
        # VecNormalize clips: levels beyond do not come.
        clip = np.rint(np.minimum(agent.normalization.clip_obs / steps, MAX_LEVEL)).astype(np.int64)
        low, high = np.maximum(low, -clip).astype(np.int16), np.minimum(high, clip).astype(np.int16)
        if len(set(low)) == len(set(high)) == 1:
            low, high = low[:1], high[:1]
    return Inputs(offset.astype(np.float32), step.astype(np.float32), low, high)


def _multipliers(ratios: np.ndarray) -> dict[str, Any]:
    multiplier, shift = zip(*map(_as_multiplier, ratios.tolist()), strict=True)
    return {"multiplier": np.array(multiplier, np.uint16), "shift": np.array(shift, np.uint8)}


def _stairs(activation: str, step: float, low: int, high: int) -> dict[str, Any]:
    """What of a layer says at which inputs of its activation each of the next layer's levels begins."""
    values = step * (np.arange(low + 1, high + 1) - 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        inputs = np.arctanh(values) if activation == "tanh" else np.log(values / (1 - values))
    # Levels that the activation never reaches
    inputs = np.where(values >= 1, np.inf, np.where(values <= (-1 if activation == "tanh" else 0), -np.inf, inputs))
    borders = np.rint(inputs * TANH_STEPS)
    always = int((borders < -FULL).sum())
    borders = borders[(borders >= -FULL) & (borders <= FULL)].astype(np.int16)
    return {"activation": "stairs", "borders": borders, "low": always, "high": always + len(borders), "zero": 0}


def _geometry(block: _Block, shape: tuple[int, ...], numbers: dict[str, Any], channels_last: bool) -> dict[str, Any]:
    """The numbers of a layer, and its shape and stride as a convolution on ``(channels, height, width)``."""
    layer, weight = block.layer, numbers["weight"]
    if isinstance(layer, nn.Linear):
        return {**numbers, "shape": (1, 1, layer.in_features), "weight": weight[:, None, None, :]}
    vertical, horizontal = layer.stride
    if not channels_last:
        return {**numbers, "shape": shape, "stride": (vertical, horizontal)}
    # Channels beside each other in a row are one wide image with one channel.
    height, width, channels = shape
    weight = weight.transpose(0, 2, 3, 1).reshape(len(weight), 1, weight.shape[2], -1)
    wide = {"shape": (1, height, width * channels), "stride": (vertical, horizontal * channels), "weight": weight}
    return {**numbers, **wide}


def _place_count(layer: Layer) -> tuple[int, int]:
    """Height and width of a layer's output."""
    kernel = layer.weight.shape[2:]
    vertical, horizontal = (
        (size - part) // stride + 1 for size, part, stride in zip(layer.shape[1:], kernel, layer.stride, strict=True)
    )
    return (1, 1) if layer.pool else (vertical, horizontal)


def fixed_point(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    :param low: the lowest value of each entry of an action
    :param high: the highest
    :return: ``centre`` and ``half`` of ``IntegerPolicy``, with which no integer stands for a value beyond these bounds,
        not even by the last bit
    """
    low, high = low.astype(np.float32), high.astype(np.float32)
    centre = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    half = ((high.astype(np.float64) - low) / 2).astype(np.float32)
    last_bit = np.spacing(np.maximum(np.abs(low), np.abs(high)))
    while True:
        reach = np.float32(FULL) * (half / np.float32(FULL))
        beyond = (centre - reach < low) | (centre + reach > high)
        if not beyond.any():
            return centre, half
        half = np.where(beyond, np.maximum(half - last_bit, np.float32(0)), half)


class _Lowering:
    """Turns one layer after another into integers."""

    def __init__(self, agent: Teacher) -> None:
        self.agent = agent
        self.blocks, self.mean, self.scale, self.n_quantiles = _blocks(agent)
        self.wide = False
        # Of the values that the next layer sees: the largest magnitude, the size of one, and the integer that is 0
        self.largest: Any = 255
        self.unit: float = 1 / self.scale
        self.zero: float = -self.mean

    @staticmethod
    def _weights(block: _Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Integers of the weight, their step sizes and the biases. Channels whose weights are all 0 have no scale."""
        layer = block.layer
        integers = layer.weight_integers().cpu().numpy().astype(np.int64)
        steps = layer.weight_quantizer.step_sizes().double().cpu().numpy()
        bias = np.zeros(len(integers)) if layer.bias is None else layer.bias.double().cpu().numpy()
        return integers, steps, bias

    def set_inputs(self, inputs: Inputs, quantizer: Any) -> None:
        """Levels of floating-point observations. Weights of entries with steps of their own count these already."""
        self.largest = np.maximum(np.abs(inputs.low), np.abs(inputs.high)).astype(np.float64)
        steps = quantizer.step_sizes()
        self.unit = float(steps) if len(steps) == 1 else 1.0
        self.zero = 0.0

    def _sums(self, index: int, centre: np.ndarray | float = 0.0) -> tuple[dict[str, Any], np.ndarray, int]:
        """Of a layer: its numbers, what its sums count, and the proof: the largest one that it can reach."""
        block = self.blocks[index]
        integers, steps, bias = self._weights(block)
        rows = integers.reshape(len(integers), -1)
        largest = (np.abs(rows) * self.largest).sum(axis=1)
        # One with which the bias of a channel without weights is as large as the sums of the others
        own = np.maximum(np.abs(bias - centre), 1e-8) / (self.unit * max(largest.max(), LEAST_SUM))
        steps = np.where(rows.any(axis=1), steps, own)
        start = (bias - centre) / (steps * self.unit) + self.zero * rows.sum(axis=1)
        places = math.floor(math.log2(NARROW / ((largest + np.abs(start)).max() + 1)))
        scale = 2 ** min(max(places, 0), MAX_PLACES)
        start = np.rint(start * scale)
        reach = int((largest * scale + np.abs(start)).max())
        if reach > WIDE:
            part = f"a sum of layer {index + 1} could reach {reach:,}, and {WIDE:,} fits in 64 bits"
            raise _refuse(self.agent, part, "Take fewer bits.")
        self.wide |= reach > NARROW
        bits = block.layer.weight_quantizer.bits
        numbers = {"weight": integers.astype(np.int8), "bits": bits, "scale": scale, "bias": start.astype(np.int64)}
        return numbers, steps * self.unit / scale, reach

    def hidden(self, index: int, shape: tuple[int, ...], channels_last: bool) -> Layer:
        """A layer before the last one; its results are the levels of the next layer's inputs."""
        block, following = self.blocks[index], self.blocks[index + 1].layer.input_quantizer
        if following is None or len(following.step_sizes()) != 1:
            part = f"the inputs of layer {index + 2} do not have one step size"
            raise _refuse(self.agent, part, "Distil a student with qpd, or leave out the bits.")
        numbers, units, _ = self._sums(index)
        step = float(following.step_sizes())
        low, high = following.levels()
        low = 0 if block.activation in ("relu", "sigmoid") else low
        results: dict[str, Any]
        ratio, results = units / step, {"low": low, "high": high, "zero": low}
        if block.activation in ("tanh", "sigmoid") and following.bits <= STAIRS_BITS:
            ratio = units * TANH_STEPS
            results = _stairs(block.activation, step, low, high)
        elif block.activation in ("tanh", "sigmoid"):
            # sigmoid(x) = (1 + tanh(x / 2)) / 2
            divisor = 2 if block.activation == "sigmoid" else 1
            ratio = units * TANH_STEPS / divisor
            results |= {"activation": block.activation, "after": _as_multiplier(1 / (divisor * FULL * step))}
        layer = Layer(
            **_geometry(block, shape, numbers, channels_last),
            **_multipliers(ratio),
            **results,
            pool=block.pool,
        )
        layer = self._settled(layer, block, following, low)
        self.largest, self.unit, self.zero = high - low, step, low
        return layer

    @th.no_grad()
    def _settled(self, layer: Layer, block: _Block, following: Any, low: int) -> Layer:
        """
        The layer with the agent's own levels where all its inputs are the integer 0, as in empty places of a picture.
        Training often leaves such a bias on the border of two levels, where the last bit of a multiplier would decide.
        """
        weight = block.layer.weight
        inputs = th.full((1, *weight.shape[1:]), self.unit * self.zero, device=weight.device)
        outputs = _FUNCTIONS[block.activation](block.layer(inputs))
        levels = following.to_integers(outputs).reshape(-1).cpu().numpy().astype(np.int64) - low
        empty = np.zeros((1, math.prod(layer.shape)), np.int64)
        own, n_outputs = layer(empty), len(levels)
        moved = replace(layer, bias=layer.bias + np.sign(levels - own.reshape(n_outputs, -1)[:, 0]))
        reached = moved(empty).reshape(n_outputs, -1)[:, 0] == levels
        return replace(layer, bias=np.where(reached, moved.bias, layer.bias))

    def last(self) -> tuple[Layer, dict[str, Any]]:
        """The last layer, and what its outputs mean."""
        block, space = self.blocks[-1], self.agent.action_space
        meaning: dict[str, Any]
        activation, limit = "", FULL
        if isinstance(space, spaces.Discrete):
            numbers, units, reach = self._sums(len(self.blocks) - 1)
            # One scale for all outputs
            output = max(units.max() * reach * self.n_quantiles / OUTPUT_LIMIT, units.max() / 2**14)
            ratio, limit = units / output, OUTPUT_LIMIT
            meaning = {"n_actions": int(space.n), "output_scale": float(output / self.n_quantiles)}
        elif isinstance(space, spaces.Box):
            low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
            centre, half = fixed_point(low, high)
            squashes = bool(self.agent.policy.squash_output)
            numbers, units, _ = self._sums(len(self.blocks) - 1, 0.0 if squashes else centre)
            ratio = units * (TANH_STEPS if squashes else FULL / np.maximum(half, 1e-30))
            activation = "tanh" if squashes else ""
            meaning = {"n_actions": len(low), "action_shape": space.shape}
            meaning |= {"centre": centre, "half": half}
        else:
            raise _refuse(self.agent, f"its actions are {space}, neither Discrete nor Box", "Use another agent.")
        layer = Layer(
            **_geometry(block, (), numbers, False),
            **_multipliers(ratio),
            low=-limit,
            high=limit,
            zero=0,
            activation=activation,
        )
        return layer, meaning


@th.no_grad()
def integer_policy(agent: Teacher) -> IntegerPolicy:
    """
    :param agent: a quantized agent at its final precision
    :return: the same policy in integers
    :raises AgentError: a part of it cannot be expressed in integers; the message names it
    """
    lowering = _Lowering(agent)
    space = agent.observation_space
    assert isinstance(space, spaces.Box)
    shape = space.shape
    quantizer = lowering.blocks[0].layer.input_quantizer
    inputs = None
    if quantizer is not None:
        inputs = _inputs(agent, quantizer)
        lowering.set_inputs(inputs, quantizer)
    elif agent.normalization is not None or not has_exact_input(space):
        raise _refuse(agent, "its observations are floating-point numbers and are not quantized", "Quantize them.")
    channels_last = any(isinstance(layer, ChannelsFirst) for layer in chain_of(agent))
    layers: list[Layer] = []
    for index in range(len(lowering.blocks) - 1):
        layers.append(lowering.hidden(index, shape, channels_last and index == 0))
        shape = (len(layers[-1].weight), *_place_count(layers[-1]))
    last, meaning = lowering.last()
    return IntegerPolicy(agent.observation_space.shape or (), inputs, (*layers, last), lowering.wide, **meaning)
