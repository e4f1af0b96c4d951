"""Outputs of ONNX files that have other shapes than those of answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from onnx import helper

from sb3_distill import load_teacher
from sb3_distill.agents.files import AgentError
from tests.agents.onnx_files import FLOAT, INT64, env_of, gated, linear, save, weights_of

OBS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def behind_scores(path: Path, operator: str, port: tuple[str, int, list[Any]], n: int = 2, **kwargs: Any) -> Path:
    """A matrix, and one operator behind it, which gives the output."""
    name, kind, shape = port
    constants = kwargs.pop("constants", {})
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["scores"]),
        helper.make_node(operator, ["scores", *constants], [name], **kwargs),
    ]
    weights = {"w": weights_of(4, n), **constants}
    return save(path, nodes, {"obs": (FLOAT, ["N", 4])}, {name: (kind, shape)}, weights)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_transposed_logits_are_refused(n: int, tmp_path: Path) -> None:
    path = behind_scores(tmp_path / "policy.onnx", "Transpose", ("logits", FLOAT, [n, "N"]), n, perm=[1, 0])
    # Of as many observations as actions, the shape says nothing.
    asked = 3 if n == 2 else 2
    said = rf"logits has the shape \({n}, {asked}\) for {asked} observations, which should be \({asked}, {n}\): the fir"
    with pytest.raises(AgentError, match=said):
        load_teacher(path, env=env_of(spaces.Discrete(n)), device="cpu")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axes_of_length_one_change_nothing(axis: int, tmp_path: Path) -> None:
    shape: list[Any] = ["N", 2]
    shape.insert(axis, 1)
    axes = {"axes": np.array([axis])}
    path = behind_scores(tmp_path / "policy.onnx", "Unsqueeze", ("logits", FLOAT, shape), constants=axes)
    teacher = load_teacher(path, env=env_of(spaces.Discrete(2)), device="cpu")
    expected = th.as_tensor(OBS @ weights_of(4, 2)).log_softmax(dim=1)
    assert th.allclose(teacher.answer(th.as_tensor(OBS))[0].log_probs, expected, atol=1e-5)


def test_actions_are_counted_by_the_first_axis(tmp_path: Path) -> None:
    port = ("action", INT64, ["M"])
    path = behind_scores(tmp_path / "policy.onnx", "ArgMax", port, axis=0, keepdims=0)
    with pytest.raises(AgentError, match=r"output action has the shape \(2,\) for 3 observations, .* be \(3,\)"):
        load_teacher(path, env=env_of(spaces.Discrete(2)), device="cpu")


@pytest.mark.parametrize("value", [0.0, [0.0], [[0.0]], [0.0, 0.0], [[0.0], [0.0]], [0.0, 0.0, 0.0]])
def test_a_value_for_all_observations_is_refused(value: Any, tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2, v=value)
    with pytest.raises(AgentError, match=r"its output v has the shape \(.* observations, which should be \(\d,\):"):
        load_teacher(path, env_id="CartPole-v1", device="cpu", teacher_kwargs={"value": "v"})


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("log_std", [-1.0, [-1.0], [[-1.0] * 2] * 2, [[-1.0] * 2] * 3, [-1.0] * 4])
def test_a_deviation_has_the_form_of_the_actions(log_std: Any, batch: Any, tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2, target="mean", batch=batch, log_std=log_std)
    with pytest.raises(AgentError, match=r"output log_std has the shape .* which should be \(\d, 2\) or \(2,\):"):
        load_teacher(path, env=env_of(spaces.Box(-1, 1, (2,))), device="cpu", teacher_kwargs={"log_std": "log_std"})


def test_actions_in_their_own_form_or_in_a_row(tmp_path: Path) -> None:
    env = env_of(spaces.Box(-np.inf, np.inf, (2, 3)))
    for sizes in ([2, 3], [6]):
        shape = {"shape": np.array([0, *sizes])}
        port = ("actions", FLOAT, ["N", *sizes])
        path = behind_scores(tmp_path / "policy.onnx", "Reshape", port, 6, constants=shape)
        actions = load_teacher(path, env=env, device="cpu").predict(OBS)[0]
        assert np.allclose(actions, (OBS @ weights_of(4, 6)).reshape(5, 2, 3), atol=1e-5)
    path = behind_scores(
        tmp_path / "policy.onnx",
        "Reshape",
        ("actions", FLOAT, ["N", 3, 2]),
        6,
        constants={"shape": np.array([0, 3, 2])},
    )
    with pytest.raises(AgentError, match=r"the shape \(2, 3, 2\) for 2 observations, .* \(2, 6\) or \(2, 2, 3\)"):
        load_teacher(path, env=env, device="cpu")


def test_a_memory_keeps_the_axis_of_the_environments(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["seen"]),
        helper.make_node("Add", ["h_in", "seen"], ["sum"]),
        helper.make_node("Transpose", ["sum"], ["h_out"], perm=[1, 0]),
        helper.make_node("MatMul", ["sum", "v"], ["logits"]),
    ]
    inputs, outputs = {"obs": (FLOAT, ["N", 4]), "h_in": (FLOAT, ["N", 3])}, {"logits": (FLOAT, ["N", 2])}
    weights = {"w": weights_of(4, 3), "v": weights_of(3, 2)}
    path = save(tmp_path / "policy.onnx", nodes, inputs, {**outputs, "h_out": (FLOAT, [3, "N"])}, weights)
    message = r"its output h_out has the shape \(3, 2\) for 2 observations, .* be \(2, 3\), as its input h_in has it"
    with pytest.raises(AgentError, match=message):
        load_teacher(path, env=env_of(spaces.Discrete(2)), device="cpu")
    assert load_teacher(gated(path, "N"), env=env_of(spaces.Discrete(2)), device="cpu").has_memory
