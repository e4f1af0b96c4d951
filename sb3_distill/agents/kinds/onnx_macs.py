"""Counts the multiplications of an ONNX graph."""

import math
from collections.abc import Mapping
from typing import Any

_RECURRENT = ("LSTM", "GRU", "RNN")
# Products that are not counted: with them, the number is unknown. So it is where a node has a graph of its own.
_NOT_COUNTED = (
    *("Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "MatMulInteger"),
    *("QLinearConv", "QLinearMatMul"),
)


def count_onnx_macs(model: Any, inputs: Mapping[str, tuple[int, ...]]) -> int | None:
    """
    :param model: a model, in which the sizes that are left open are filled in
    :param inputs: by input, the shape for one observation
    :return: multiplications of its matrices; None if it has operators that are not counted, or shapes that are not
        known before it runs
    """
    import onnx

    graph = model.graph
    for port in graph.input:
        for size, dimension in zip(inputs.get(port.name, ()), port.type.tensor_type.shape.dim, strict=False):
            dimension.dim_value = size
    # What exporters wrote of other shapes can contradict these.
    del graph.value_info[:]
    for port in graph.output:
        port.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        # What runs need not be what this understands.
        return None
    shapes = {weights.name: tuple(weights.dims) for weights in graph.initializer}
    for port in (*graph.input, *graph.value_info, *graph.output):
        sizes = [dimension.dim_value for dimension in port.type.tensor_type.shape.dim]
        if all(sizes) and port.type.tensor_type.HasField("shape"):
            shapes[port.name] = tuple(sizes)
    try:
        return sum(_macs_of(node, shapes) for node in graph.node)
    except (KeyError, IndexError):
        # A shape that is not known
        return None


def _macs_of(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """
    :raises KeyError: it is not counted
    """
    if (
        node.op_type in _NOT_COUNTED
        or node.domain not in ("", "ai.onnx")
        or any(a.HasField("g") for a in node.attribute)
    ):
        raise KeyError(node.op_type)
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        is_transposed = any(each.name == "transA" and each.i for each in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if is_transposed else 1]
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in _RECURRENT:
        n_steps, n_rows, _ = shapes[node.input[0]]
        return n_steps * n_rows * sum(math.prod(shapes[name]) for name in node.input[1:3])
    return 0
