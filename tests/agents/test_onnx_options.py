"""What a user says of an ONNX file beside it, and what is refused of it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces
from onnx import TensorProto, helper
from stable_baselines3 import DQN, PPO, SAC

from sb3_distill import load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.export.export import export_agent
from tests.agents.onnx_files import FLOAT, INT64, env_of, gated, linear, save, weights_of
from tests.agents.own_teachers import Plain
from tests.mtpd.students import make as make_mtpd

OBS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"answer": "logits"},
            "teacher_kwargs: .*answer.*answers, observation, memory, output, log_std, value, low, high, scale",
        ),
        ({"answers": ["logits"]}, r"answers must be a name, such as 'logits', not \['logits'\]"),
        ({"output": ["logits"]}, r"output must be a name, such as 'actions', not \['logits'\]"),
        ({"observation": 3}, "observation must be a name, such as 'obs', not 3"),
        ({"value": {}}, "value must be a name, such as 'value', not {}"),
        ({"memory": ["obs"]}, r"memory must map inputs to outputs, such as dict\(h0='hn'\), not \['obs'\]"),
        ({"memory": {"obs": ["logits"]}}, "memory must map inputs to outputs"),
        ({"scale": "255"}, "scale must be a number above 0, such as 255, not '255'"),
        *(
            ({"low": low, "high": 1.0}, f"low must be a finite number, such as -1.0, or .* not {re.escape(repr(low))}")
            for low in ("low", "-1", [], [[1], [1, 2]], {}, True, 1j, float("nan"), -1e300)
        ),
        ({"low": [-1, -1], "high": [1, 1, 1]}, r"low has the shape \(2,\), and high \(3,\)"),
        ({"low": 1, "high": -1}, "low must be below high, not 1.0 and -1.0"),
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


@pytest.mark.parametrize("options", ["logits", 5, [("answers", "logits")], np.zeros(2)], ids=str)
def test_options_that_are_no_dictionary(options: Any, tmp_path: Path) -> None:
    paths = {"CartPole-v1": linear(tmp_path / "pole.onnx", 4, 2), "MountainCar-v0": linear(tmp_path / "car.onnx", 2, 3)}
    for source in (paths["CartPole-v1"], Plain()):
        with pytest.raises(AgentError, match=r"teacher_kwargs must be a dictionary of options, such as dict\(answers"):
            load_teacher(source, env_id="CartPole-v1", device="cpu", teacher_kwargs=options)
    with pytest.raises(AgentError, match="teacher_kwargs must be a dictionary of options"):
        make_mtpd(paths, teacher_kwargs={"CartPole-v1": options})
    with pytest.raises(
        ValueError, match=r"teacher_kwargs must be a dictionary from .* tasks \(CartPole-v1, MountainCar"
    ):
        make_mtpd(paths, teacher_kwargs=options)


def test_bounds_for_each_dimension(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2, target="actions")
    for env in (None, env_of(spaces.Box(-2, 2, (2,)))):
        with pytest.raises(
            AgentError, match=r"low has 3 numbers, and the actions have the shape \(2,\): pass one number"
        ):
            load_teacher(path, env=env, device="cpu", teacher_kwargs={"low": [-1] * 3, "high": [1] * 3})
        for low in (-1, [-1], [-1, -1], np.array([-1.0, -1.0])):
            teacher = load_teacher(path, env=env, device="cpu", teacher_kwargs={"low": low, "high": [1, 3]})
            assert teacher.action_space == (
                spaces.Box(np.float32(-1), np.array([1, 3], np.float32)) if env is None else env.action_space
            )
            expected = np.clip(OBS @ weights_of(4, 2), -1, [1, 3])
            if env is not None:
                expected = (expected - [0, 1]) / [1, 2] * 2
            assert np.allclose(teacher.predict(OBS)[0], expected, atol=1e-5)


@pytest.mark.parametrize("batch", [2, 8])
def test_a_file_for_several_observations_at_once(batch: int, tmp_path: Path) -> None:
    said = rf"its input obs \[{batch}, 4\] takes {batch} observations at once, .* with an open first axis"
    for path in (linear(tmp_path / "policy.onnx", 4, 2, batch=batch), gated(tmp_path / "memory.onnx", batch)):
        with pytest.raises(AgentError, match=said):
            load_teacher(path, env_id="CartPole-v1", device="cpu")


def test_observations_that_are_booleans(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["obs"], ["x"], to=FLOAT), helper.make_node("MatMul", ["x", "w"], ["logits"])]
    inputs, outputs = {"obs": (TensorProto.BOOL, ["N", 4])}, {"logits": (FLOAT, ["N", 2])}
    teacher = load_teacher(
        save(tmp_path / "policy.onnx", nodes, inputs, outputs, {"w": weights_of(4, 2)}), device="cpu"
    )
    assert teacher.observation_space == spaces.Box(0, 1, (4,), np.bool_)
    obs = OBS > 0
    assert np.array_equal(teacher.predict(obs)[0], (obs @ weights_of(4, 2)).argmax(axis=1))


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
    with pytest.raises(AgentError, match=message):
        load_teacher(path, env=env_of(actions), device="cpu", teacher_kwargs=options)


def test_what_our_own_export_says_of_itself(tmp_path: Path) -> None:
    """Its output is called logits, whatever they are."""
    agents: dict[str, Any] = {
        "q_values": DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu"),
        "logits": PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu"),
        "action": SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, device="cpu"),
    }
    for kind, agent in agents.items():
        path = tmp_path / kind / "policy.onnx"
        export_agent(agent, path.parent, n_observations=20, max_disagreement=1.0)
        for options in ({}, {"answers": kind}, {"answers": "action"}):
            found = load_teacher(path, device="cpu", teacher_kwargs=options)
            assert found.has_distribution == (kind == "logits" and options != {"answers": "action"})
        said = {"action": "the means of actions before they are squashed or clipped"}.get(
            kind, f"the {kind} of the agent"
        )
        for options in (
            {"answers": "logits"},
            {"answers": "q_values", "output": "logits"},
            {"answers": "mean", "output": "logits"},
        ):
            if options["answers"] != kind:
                with pytest.raises(
                    AgentError, match=rf"logits holds {said}, as policy\.json .* leave answers and output"
                ):
                    load_teacher(path, device="cpu", teacher_kwargs=options)
        # Alone, it is a file of anybody's.
        (path.parent / "policy.json").unlink()
        found = load_teacher(path, device="cpu", env=agent.get_env(), teacher_kwargs={"answers": kind})
        obs = np.zeros((1, *agent.observation_space.shape), np.float32)
        field = {"logits": "log_probs", "action": "point"}.get(kind, kind)
        assert list(found.answer(th.as_tensor(obs))[0].arrays()) == [field]


def test_discrete_answers_of_continuous_actions(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2)
    with pytest.raises(AgentError, match=r"logits holds 'logits' of discrete actions, and the environment's are Box"):
        load_teacher(path, env=env_of(spaces.Box(-1, 1, (2,))), device="cpu")


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


@pytest.mark.parametrize("kind", ["text", "list"])
def test_answers_that_are_no_numbers(kind: str, tmp_path: Path) -> None:
    convert = {
        "text": helper.make_node("Cast", ["obs"], ["action"], to=TensorProto.STRING),
        "list": helper.make_node("SequenceConstruct", ["obs"], ["action"]),
    }
    port = {
        "text": helper.make_tensor_value_info("action", TensorProto.STRING, ["N", 4]),
        "list": helper.make_tensor_sequence_value_info("action", FLOAT, ["N", 4]),
    }
    path = linear(tmp_path / "policy.onnx", 4, 2)
    model = onnx.load(str(path))
    model.graph.node.append(convert[kind])
    model.graph.output.append(port[kind])
    onnx.save(model, str(path))
    for options in ({"output": "action"}, {"output": "logits", "value": "action"}):
        with pytest.raises(AgentError, match=r"its output action is .*, and answers are arrays of numbers"):
            load_teacher(path, teacher_kwargs=options, env_id="CartPole-v1", device="cpu")
