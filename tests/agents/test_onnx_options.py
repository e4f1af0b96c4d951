"""What a user says of an ONNX file beside it, and what is refused of it."""

from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces
from onnx import helper

from sb3_distill import load_teacher
from sb3_distill.agents.files import AgentError
from tests.agents.onnx_files import FLOAT, INT64, linear, save, weights_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"answer": "logits"},
            "teacher_kwargs: .*answer.*answers, observation, memory, output, log_std, value, low, high, scale",
        ),
        ({"answers": "action", "low": "low", "high": "high"}, "cannot be used as a teacher .ValueError"),
        ({"scale": float("inf")}, "scale must be a number above 0"),
        ({"scale": True}, "scale must be a number above 0"),
        ({"answers": "policy"}, "teacher_kwargs: .*policy.*q_values"),
        ({"output": "nothing"}, "teacher_kwargs, output: .*nothing.*logits"),
        ({"low": -1.0}, "low and high go together"),
        ({"scale": 0}, "scale must be a number above 0, such as 255, not 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=message):
        load_teacher(linear(tmp_path / "policy.onnx", 4, 2), device="cpu", teacher_kwargs=options)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (
            "logits",
            {"log_std": "log_std"},
            "log_std belongs to a mean, and the output logits holds 'logits': leave log_std",
        ),
        ("q_values", {"log_std": "log_std"}, "the output q_values holds 'q_values': leave log_std out.$"),
        (
            "logits",
            {"low": -1.0, "high": 1.0},
            r"low and high are bounds of continuous .* output logits \('logits'\) are discrete",
        ),
        ("actions", {"log_std": "log_std"}, "actions holds 'action': leave log_std out, or say .*answers='mean'"),
        ("mean", {"log_std": "mean", "output": "mean"}, "must be outputs of their own, not mean, mean"),
        ("mean", {"value": "log_std", "log_std": "log_std"}, "must be outputs of their own, not log_std, log_std"),
    ],
)
def test_options_without_a_meaning(target: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2, target=target, log_std=[-1.0, -1.0])
    actions = spaces.Box(-1, 1, (2,)) if target in ("actions", "mean") else spaces.Discrete(2)
    env: Any = type("Env", (), {"observation_space": spaces.Box(-1, 1, (4,)), "action_space": actions})
    with pytest.raises(AgentError, match=message):
        load_teacher(path, env=env, device="cpu", teacher_kwargs=options)


def test_bounds_of_numbered_actions(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["action"], axis=1, keepdims=0),
    ]
    ports = {"obs": (FLOAT, ["N", 4])}, {"action": (INT64, ["N"])}
    path = save(tmp_path / "policy.onnx", nodes, *ports, {"w": weights_of(4, 2)})
    with pytest.raises(AgentError, match=r"output action \('action'\) are discrete: leave low and high out"):
        load_teacher(path, env_id="CartPole-v1", teacher_kwargs={"low": -1.0, "high": 1.0})


def test_options_of_what_is_no_onnx_file(cartpole_teacher: Path) -> None:
    with pytest.raises(AgentError, match="teacher_kwargs say what an ONNX file does not"):
        load_teacher(cartpole_teacher, teacher_kwargs={"answers": "logits"})
