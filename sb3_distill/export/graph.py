"""ONNX graphs of policies: observation in, action and logits out; weights in float32 or as integers."""

from typing import Any

import numpy as np
import onnx
import torch as th
from gymnasium import spaces
from onnx import TensorProto, helper, numpy_helper
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.export.description import OLDEST_OPSET, OPSET
from sb3_distill.networks.layers import ChannelsFirst, FrameScaler, GlobalMaxPool, MeanOverQuantiles, Scale
from sb3_distill.quantization.layers import QuantizedConv2d, QuantizedLinear
from sb3_distill.quantization.packing import pack_bits
from sb3_distill.quantization.quantizer import Quantizer

# Formats of files with these versions of the operators
_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10}
ACTIVATIONS = {
    nn.ReLU: "Relu",
    nn.Tanh: "Tanh",
    nn.Sigmoid: "Sigmoid",
    nn.ELU: "Elu",
    nn.Softplus: "Softplus",
    nn.SELU: "Selu",
    nn.Mish: "Mish",
}
INPUT_TYPES = {"uint8": TensorProto.UINT8, "bool": TensorProto.BOOL}


class GraphBuilder:
    """Collects nodes and constants; ``tensor`` is the name of the latest result."""

    def __init__(self, tensor: str, opset: int = OPSET) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.tensor = tensor

    def constant(self, value: Any) -> str:
        """Store a constant; integers of few bits are given as a ready tensor."""
        name = f"constant_{len(self.initializers)}"
        if not isinstance(value, onnx.TensorProto):
            value = numpy_helper.from_array(np.asarray(value))
        value.name = name
        self.initializers.append(value)
        return name

    def apply(self, operator: str, *constants: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node that takes the latest result first."""
        output = name or f"tensor_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.tensor, *constants], [output], **attributes))
        self.tensor = output
        return output

    def dequantized_weight(self, layer: QuantizedConv2d | QuantizedLinear) -> str:
        """The weight of a layer, stored as integers: 4 bits each where they suffice, 8 otherwise."""
        quantizer = layer.weight_quantizer
        integers = layer.weight_integers().detach().cpu().numpy().astype(np.int8)
        steps = quantizer.step_sizes().detach().cpu().numpy().astype(np.float32)
        # Before the type existed each of them takes a byte.
        if quantizer.bits <= 4 and self.opset >= OPSET:
            # Two to a byte, the first in the low half
            packed = pack_bits(integers.view(np.uint8) & 0xF, 4)
            stored = helper.make_tensor("weight", TensorProto.INT4, integers.shape, packed, raw=True)
        else:
            stored = numpy_helper.from_array(integers)
        inputs = [self.constant(stored), self.constant(steps)]
        output = f"weight_{len(self.nodes)}"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], axis=0))
        return output

    def quantize_input(self, quantizer: Quantizer) -> None:
        """
        Round the latest result to the levels of a quantizer. Where entries have steps of their own, it becomes the
        levels themselves: the weights count the steps (see ``weight_to_round`` of the layer).
        """
        low, high = quantizer.levels()
        steps = quantizer.step_sizes().detach().cpu().numpy().astype(np.float32)
        # Fewer levels than the type has
        self.apply("Max", self.constant(low * steps))
        self.apply("Min", self.constant(high * steps))
        integer = np.int8 if quantizer.signed else np.uint8
        # One step is a scalar to ONNX
        steps = steps if len(steps) > 1 else steps[0]
        scale, zero_point = self.constant(steps), self.constant(np.zeros_like(steps, dtype=integer))
        self.apply("QuantizeLinear", scale, zero_point, axis=quantizer.axis)
        if steps.ndim > 0:
            self.apply("Cast", to=TensorProto.FLOAT)
        else:
            self.apply("DequantizeLinear", scale, zero_point, axis=quantizer.axis)

    def add_layer(self, layer: nn.Module, source: str) -> None:
        """
        Add one layer.

        :param layer: the layer
        :param source: whose it is, for the message
        :raises AgentError: it has no counterpart
        """
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            self._add_weighted(layer)
        elif isinstance(layer, FrameScaler):
            mean, scale = layer.mean.cpu().numpy(), layer.scale.cpu().numpy()
            self.apply("Sub", self.constant(mean[None].astype(np.float32)))
            self.apply("Div", self.constant(scale.astype(np.float32)))
        elif isinstance(layer, Scale):
            self.apply("Div", self.constant(np.float32(layer.divisor)))
        elif isinstance(layer, ChannelsFirst):
            self.apply("Transpose", perm=[0, 3, 1, 2])
        elif isinstance(layer, nn.Flatten):
            self.apply("Flatten", axis=1)
        elif isinstance(layer, GlobalMaxPool):
            self.apply("GlobalMaxPool")
            self.apply("Flatten", axis=1)
        elif isinstance(layer, MeanOverQuantiles):
            self.apply("Reshape", self.constant(np.array([0, -1, layer.n_actions], dtype=np.int64)))
            self.apply("ReduceMean", self.constant(np.array([1], dtype=np.int64)), keepdims=0)
        elif isinstance(layer, nn.Hardtanh):
            self.apply("Clip", self.constant(np.float32(layer.min_val)), self.constant(np.float32(layer.max_val)))
        elif isinstance(layer, BatchRenorm1d):
            norm: Any = layer
            factor = norm.scale / (norm.ra_var + norm.eps).sqrt()
            self.apply("Mul", self.constant(factor.cpu().numpy()))
            self.apply("Add", self.constant((norm.bias - factor * norm.ra_mean).cpu().numpy()))
        elif type(layer) in ACTIVATIONS:
            self.apply(ACTIVATIONS[type(layer)])
        else:
            known = ", ".join(cls.__name__ for cls in ACTIVATIONS)
            raise AgentError(f"{source} cannot be exported: no operator for its layer {layer}. Known: {known}.")

    def _add_weighted(self, layer: nn.Conv2d | nn.Linear) -> None:
        if isinstance(layer, (QuantizedConv2d, QuantizedLinear)):
            if layer.input_quantizer is not None:
                self.quantize_input(layer.input_quantizer)
            weight = self.dequantized_weight(layer)
        else:
            weight = self.constant(layer.weight.detach().cpu().numpy())
        bias = [] if layer.bias is None else [self.constant(layer.bias.detach().cpu().numpy())]
        if isinstance(layer, nn.Linear):
            self.apply("Gemm", weight, *bias, transB=1)
        else:
            self.apply("Conv", weight, *bias, kernel_shape=layer.kernel_size, strides=layer.stride)


def check_opset(opset: int) -> None:
    """
    :param opset: a version of ONNX's operators
    :raises AgentError: it is too old, or the installed onnx is older
    """
    installed = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= OPSET:
        raise AgentError(
            f"Policies are written with ONNX operators of version {OLDEST_OPSET} to {OPSET}, not {opset}; integers of "
            f"4 bits need {OPSET}."
        )
    if opset > installed:
        raise AgentError(
            f"The installed onnx {onnx.__version__} knows operators up to version {installed}; {opset} is asked for: "
            "pip install -U onnx, or choose an older one with --opset."
        )


@th.no_grad()
def build_graph(agent: Teacher, opset: int = OPSET) -> onnx.ModelProto:
    """
    :param agent: a loaded agent; quantized layers become integers
    :param opset: version of ONNX's operators; before 21 integers of few bits take a byte each
    :return: a model from ``observation`` (raw: bytes for frames, before VecNormalize for vectors) to ``action`` and
        ``logits`` (where actions are continuous, their means before they are squashed or clipped)
    :raises AgentError: a part of it has no counterpart, or the version is too old
    """
    check_opset(opset)
    layers, space = chain_of(agent), agent.observation_space
    assert isinstance(space, spaces.Box)
    builder = GraphBuilder("observation", opset)
    input_type = INPUT_TYPES.get(str(space.dtype), TensorProto.FLOAT)
    if input_type != TensorProto.FLOAT:
        builder.apply("Cast", to=TensorProto.FLOAT)
    if agent.normalization is not None:
        statistics = agent.normalization
        mean, var = statistics.parts[None]
        deviation = np.sqrt(var + statistics.epsilon).astype(np.float32)
        builder.apply("Sub", builder.constant(mean.astype(np.float32)))
        builder.apply("Div", builder.constant(deviation))
        limit = np.float32(statistics.clip_obs)
        builder.apply("Clip", builder.constant(-limit), builder.constant(limit))
    for layer in layers:
        builder.add_layer(layer, agent.source)

    actions = agent.action_space
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", None])]
    builder.apply("Identity", name="logits")
    if isinstance(actions, spaces.Discrete):
        builder.apply("ArgMax", name="action", axis=1, keepdims=0)
        outputs.insert(0, helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]))
    elif isinstance(actions, spaces.Box):
        if agent.policy.squash_output:
            builder.apply("Tanh")
            low, high = actions.low.reshape(1, -1).astype(np.float32), actions.high.reshape(1, -1).astype(np.float32)
            builder.apply("Mul", builder.constant((high - low) / 2))
            builder.apply("Add", builder.constant((low + high) / 2))
        builder.apply("Max", builder.constant(actions.low.reshape(1, -1).astype(np.float32)))
        builder.apply("Min", builder.constant(actions.high.reshape(1, -1).astype(np.float32)))
        # The network's actions are flat; 0 keeps the batch.
        builder.apply("Reshape", builder.constant(np.array([0, *actions.shape], dtype=np.int64)), name="action")
        outputs.insert(0, helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", *actions.shape]))
    else:
        raise AgentError(f"{agent.source} cannot be exported: its actions are {actions}, neither Discrete nor Box.")

    graph = helper.make_graph(
        builder.nodes,
        "policy",
        [helper.make_tensor_value_info("observation", input_type, ["batch", *space.shape])],
        outputs,
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSIONS[opset])
    onnx.checker.check_model(model, full_check=True)
    return model
