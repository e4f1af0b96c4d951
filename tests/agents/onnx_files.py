"""Small ONNX files in the forms that several exporters write."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from gymnasium import spaces
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: dict[str, np.ndarray],
    opsets: Sequence[tuple[str, int]] = (("", 17),),
) -> Path:
    """Write a graph; inputs and outputs are a type and a shape by name."""
    infos = [[helper.make_tensor_value_info(name, *port) for name, port in side.items()] for side in (inputs, outputs)]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "policy", *infos, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets], ir_version=8)
    onnx.save(model, str(path))
    return path


def weights_of(n_in: int, n_out: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_in, n_out)).astype(np.float32)


def linear(
    path: Path, n_in: int, n_out: int, source: str = "obs", target: str = "logits", batch: Any = "N", **extra: Any
) -> Path:
    """One matrix, from an input to an output; other outputs are constants by name."""
    nodes = [helper.make_node("MatMul", [source, "w"], [target])]
    outputs = {target: (FLOAT, [batch, n_out])}
    weights = {"w": weights_of(n_in, n_out)}
    for name, array in extra.items():
        weights[f"{name}_constant"] = np.asarray(array, np.float32)
        nodes.append(helper.make_node("Identity", [f"{name}_constant"], [name]))
        outputs[name] = (FLOAT, list(np.shape(array)))
    return save(path, nodes, {source: (FLOAT, [batch, n_in])}, outputs, weights)


def gated(path: Path, batch: Any, n_in: int = 4, width: int = 3, names: str = "h_in h_out") -> Path:
    """A memory that adds what it sees and halves: h' = (h + obs W) / 2, and the logits are h' V."""
    before, after = names.split()
    shape = [1, batch, width]
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["seen"]),
        helper.make_node("Add", [before, "seen"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], [after]),
        helper.make_node("Squeeze", [after, "first"], ["flat"]),
        helper.make_node("MatMul", ["flat", "v"], ["logits"]),
    ]
    weights = {
        "w": weights_of(n_in, width),
        "v": weights_of(width, 2, 1),
        "half": np.float32(0.5).reshape(1),
        "first": np.array([0], np.int64),
    }
    inputs = {"obs": (FLOAT, [batch, n_in]), before: (FLOAT, shape)}
    return save(path, nodes, inputs, {"logits": (FLOAT, [batch, 2]), after: (FLOAT, shape)}, weights)


def env_of(actions: spaces.Space) -> Any:
    """An environment that shows four numbers."""
    return SimpleNamespace(observation_space=spaces.Box(-np.inf, np.inf, (4,)), action_space=actions)


def right_where_it_sees(path: Path, kind: int = FLOAT, width: Any = 8) -> Path:
    """Pictures of one row: the second action where there is anything in them, else the first."""
    nodes = [
        helper.make_node("Cast", ["obs"], ["floats"], to=FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    weights = {"w": np.stack([np.zeros(8), np.ones(8)], axis=1).astype(np.float32)}
    return save(path, nodes, {"obs": (kind, ["N", 1, width])}, {"logits": (FLOAT, ["N", 2])}, weights)


# Settings of short runs
OFF_POLICY: dict[str, Any] = {
    "n_teacher_episodes": 1,
    "learning_starts": 16,
    "buffer_size": 100,
    "device": "cpu",
    "seed": 0,
}


def observations(n: int, space: spaces.Space) -> np.ndarray:
    space.seed(0)
    return np.clip(np.stack([space.sample() for _ in range(n)]), -5, 5)
