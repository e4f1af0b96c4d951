"""Quantized layers with learned step sizes, which pass from full to low precision during training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

from sb3_distill.quantization.quantizer import Quantizer

# In the parameters of layers whose weights are rounded by what a step contributes; see ``weight_to_round``
MARK = "rounds_contributions"


def of_format_1(name: str) -> str:
    """
    :param name: name of a layer whose parameters do not have ``MARK``
    :return: why they are refused
    """
    return (
        f"{name} is of format 1, which rounded the weights of entries with steps of their own otherwise than format 2: "
        "train the student again, or use the version of sb3_distill that wrote it."
    )


class _QuantizedLayer(nn.Module):
    """Base of the quantized layers: adds a quantizer for the weight and one for the input."""

    weight: Any
    bias: Any
    weight_quantizer: Quantizer
    input_quantizer: Quantizer | None

    def _adopt(self, layer: Any, weight_bits: int, activation_bits: int | None, n_input_steps: int = 1) -> None:
        self.weight, self.bias = layer.weight, layer.bias
        # Always signed: weights that all have one sign now may change it during training.
        self.weight_quantizer = Quantizer(weight_bits, len(layer.weight), signed=True).to(layer.weight.device)
        self.input_quantizer = None
        if activation_bits is not None:
            self.input_quantizer = Quantizer(activation_bits, n_input_steps, axis=1).to(layer.weight.device)
        if self.entry_steps() is not None:
            self.register_buffer(MARK, th.tensor(True, device=layer.weight.device))
        self.fit_weight()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if self.entry_steps() is not None and f"{prefix}{MARK}" not in state_dict:
            error_msgs: list[str] = args[-1]
            error_msgs.append(of_format_1(prefix.rstrip(".")))

    def entry_steps(self) -> th.Tensor | None:
        """
        The step of each entry of the input where they have steps of their own; None if all have the same. Detached:
        steps learn from the rounding of the input, not from that of the weight.
        """
        quantizer = self.input_quantizer
        return None if quantizer is None or len(quantizer.step) == 1 else quantizer.step_sizes().detach()

    def weight_to_round(self) -> th.Tensor:
        """
        What the weight's quantizer gets. Where the entries of the input differ in scale, their weights do, too, and
        one step would round those of large entries to 0. So each weight counts as what a step of its entry contributes:
        it is multiplied by that step. Sums of integers then need no factor for each entry.
        """
        steps = self.entry_steps()
        return self.weight if steps is None else self.weight * steps

    def weight_integers(self) -> th.Tensor:
        """The integers that are stored of the weight, as floats."""
        return self.weight_quantizer.to_integers(self.weight_to_round())

    def quantized_weight(self) -> th.Tensor:
        """The weight that the layer computes with."""
        quantized, steps = self.weight_quantizer(self.weight_to_round()), self.entry_steps()
        return quantized if steps is None else quantized / steps

    @th.no_grad()
    def fit_weight(self) -> None:
        """Choose the weight's step sizes, after those of the input."""
        steps = self.entry_steps()
        # Of outputs without weights, there is nothing to measure: weights of up to 1 on the largest entry
        self.weight_quantizer.fit(self.weight_to_round(), 1.0 if steps is None else steps.max())

    def set_input_bits(self, bits: int) -> None:
        """Change the number of bits of the input, with the same range of values."""
        assert self.input_quantizer is not None
        old = self.input_quantizer.levels()[1]
        self.input_quantizer.set_bits(bits)
        if self.entry_steps() is not None:
            self.weight_quantizer.rescale(old / self.input_quantizer.levels()[1])

    def _quantized_input(self, x: th.Tensor) -> th.Tensor:
        return x if self.input_quantizer is None else self.input_quantizer(x)


class QuantizedLinear(_QuantizedLayer, nn.Linear):
    """
    A fully connected layer with quantized weight and input; the bias is not quantized.

    :param layer: the layer to replace; its parameters are reused
    :param weight_bits: precision of the weight
    :param activation_bits: precision of the input; None: the input is not quantized (it consists of integers already)
    :param step_per_entry: whether every entry of the input has its own step size, since their scales differ
    """

    def __init__(
        self, layer: nn.Linear, weight_bits: int, activation_bits: int | None, step_per_entry: bool = False
    ) -> None:
        nn.Linear.__init__(self, layer.in_features, layer.out_features, bias=False)
        self._adopt(layer, weight_bits, activation_bits, layer.in_features if step_per_entry else 1)

    def forward(self, x: th.Tensor) -> th.Tensor:
        return F.linear(self._quantized_input(x), self.quantized_weight(), self.bias)


class QuantizedConv2d(_QuantizedLayer, nn.Conv2d):
    """
    A convolution with quantized weight and input; the bias is not quantized.

    :param layer: the layer to replace; its parameters are reused
    :param weight_bits: precision of the weight
    :param activation_bits: precision of the input; None: the input is not quantized (it consists of integers already)
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
        return self._conv_forward(self._quantized_input(x), self.quantized_weight(), self.bias)


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
    Replace the actor's convolutions and fully connected layers by quantized ones, in place. Where the entries of a
    fully connected layer's input differ in scale, each has its own step size: those of an observation, and those of
    the features extractor's output if it joins the parts of a Dict (such as an image and a vector).

    :param policy: a policy
    :param acting: the modules of the policy that compute the action, in order, beginning with the features extractor
    :param weight_bits: function of a layer's position, the number of layers and the layer: precision of its weight
    :param activation_bits: function of the same arguments: precision of the layer's input; None: not quantized
    """
    layers = [layer for module in acting for layer in module.modules() if type(layer) in (nn.Linear, nn.Conv2d)]
    mixed = layers[:1]
    if isinstance(policy.observation_space, spaces.Dict):
        features = set(acting[0].modules())
        mixed += [layer for layer in layers if layer not in features][:1]
    names = {module: name for name, module in policy.named_modules()}
    replace_layers(
        policy,
        {
            names[layer]: (
                weight_bits(position, len(layers), layer),
                activation_bits(position, len(layers), layer),
                layer in mixed,
            )
            for position, layer in enumerate(layers)
        },
    )


def replace_layers(policy: nn.Module, settings: Mapping[str, tuple[int, int | None, bool]]) -> None:
    """
    Replace layers by quantized ones, in place.

    :param policy: a policy
    :param settings: by the layer's name: bits of the weight, bits of the input (None: not quantized), and whether every
        entry of the input has its own step size (fully connected layers only)
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for name, (weight_bits, activation_bits, step_per_entry) in settings.items():
        layer = policy.get_submodule(name)
        if isinstance(layer, nn.Linear):
            replacements[layer] = QuantizedLinear(layer, weight_bits, activation_bits, step_per_entry)
        else:
            assert isinstance(layer, nn.Conv2d)
            replacements[layer] = QuantizedConv2d(layer, weight_bits, activation_bits)
    for parent in list(policy.modules()):
        for name, child in list(parent.named_children()):
            if child in replacements:
                setattr(parent, name, replacements[child])
    # With this, the policy's load makes the same layers.
    policy.quantize = partial(replace_layers, settings=settings)  # type: ignore[assignment]


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
    Choose all step sizes: those of weights from the weights, those of layer inputs from the inputs during ``run``.

    :param module: a network with quantized layers
    :param run: does one forward pass on recorded observations
    """
    layers = quantized_layers(module)
    blends = [quantizer.blend for quantizer in quantizers(module)]
    set_blend(module, 0.0)
    with _record_inputs(layers) as inputs:
        run()
    for index, layer in enumerate(layers):
        if layer.input_quantizer is not None:
            layer.input_quantizer.fit(inputs[index])
        layer.fit_weight()
    for quantizer, blend in zip(quantizers(module), blends, strict=True):
        quantizer.blend = blend


def set_blend(module: nn.Module, blend: float) -> None:
    """
    :param module: a network with quantized layers
    :param blend: 0 for full precision, 1 for fully quantized (see ``Quantizer``)
    """
    for quantizer in quantizers(module):
        quantizer.blend = blend


def describe_transition(module: nn.Module) -> str:
    """
    :param module: a network
    :return: how far its quantizers are from their final precision, e.g. "blend 0.49, 6 bits of 3"; the empty string if
        they have reached it, or if there are no quantizers
    """
    farthest = max(quantizers(module), key=lambda quantizer: quantizer.bits - quantizer.final_bits, default=None)
    if farthest is None or (farthest.blend == 1.0 and farthest.bits == farthest.final_bits):
        return ""
    return f"blend {farthest.blend:.2f}, {farthest.bits} bits of {farthest.final_bits}"


def freeze_steps(module: nn.Module, frozen: bool = True) -> None:
    """
    Stop training the step sizes, or begin again.

    :param module: a network with quantized layers
    :param frozen: whether they stay as they are
    """
    for quantizer in quantizers(module):
        quantizer.step.requires_grad_(not frozen)
