"""Counts the multiplications of an ONNX graph."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_distill.agents.kinds.onnx_file import OnnxFile, open_session

_COUNTED = ("MatMul", "Gemm", "Conv", "LSTM", "GRU", "RNN")
# Products that are not counted: with them, the number is unknown. So it is where a node has a graph of its own.
_NOT_COUNTED = (
    *("Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "MatMulInteger"),
    *("QLinearConv", "QLinearMatMul"),
)


def count_onnx_macs(file: OnnxFile, feeds: Mapping[str, np.ndarray]) -> int | None:
    """
    :param file: an open file
    :param feeds: by input, an array for one observation
    :return: multiplications of its matrices; None if it has operators that are not counted, or does not run with the
        results of all of its nodes
    """
    import onnx

    graph = file.model.graph
    if any(_is_unknown(node) for node in graph.node):
        return None
    nodes = [node for node in graph.node if node.op_type in _COUNTED]
    shapes = {weights.name: tuple(weights.dims) for weights in graph.initializer}
    shapes |= {name: array.shape for name, array in feeds.items()}
    # The shapes of all others follow from running it: not every exporter writes them so that they could be inferred.
    wanted = {name for node in nodes for name in (*node.input[:3], node.output[0]) if name}
    names = sorted(wanted - shapes.keys())
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        found = open_session(model.SerializeToString(), file.path).run(names, feeds) if names else []
    except Exception:
        # The runtime's own kinds of errors
        return None
    shapes |= {name: array.shape for name, array in zip(names, found, strict=True)}
    return sum(_macs_of(node, shapes) for node in nodes)


def _is_unknown(node: Any) -> bool:
    return (
        node.op_type in _NOT_COUNTED
        or node.domain not in ("", "ai.onnx")
        or any(each.HasField("g") for each in node.attribute)
    )


def _macs_of(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        is_transposed = any(each.name == "transA" and each.i for each in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if is_transposed else 1]
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    n_steps, n_rows, _ = shapes[node.input[0]]
    return n_steps * n_rows * sum(math.prod(shapes[name]) for name in node.input[1:3])
