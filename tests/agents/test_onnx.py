"""Policies in ONNX files as teachers."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces
from onnx import helper
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.cli import main
from sb3_distill.export.export import export_agent
from tests.agents.onnx_files import FLOAT, INT64, OFF_POLICY, UINT8, linear, observations, save, weights_of
from tests.mtpd.students import make as make_mtpd


@pytest.mark.parametrize("name", ["ppo_teacher", "gaussian_teacher"])
def test_what_we_export_comes_back(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: PPO | A2C = request.getfixturevalue(name)
    export_agent(model, tmp_path, n_observations=20)
    teacher = load_teacher(tmp_path / "policy.onnx", device="cpu")
    assert teacher.env_id == ("CartPole-v1" if name == "ppo_teacher" else "Pendulum-v1")
    assert teacher.action_space == model.action_space
    obs = observations(50, model.observation_space)
    actions, state = teacher.predict(obs)
    assert state is None and np.allclose(actions, model.predict(obs, deterministic=True)[0], atol=1e-5)
    assert teacher.n_bytes == 4 * teacher.n_parameters > 0
    if name == "ppo_teacher":
        answers, _ = teacher.answer(th.as_tensor(obs))
        expected = load_teacher(model, device="cpu").answer(th.as_tensor(obs))[0].log_probs
        assert th.allclose(answers.log_probs, expected, atol=1e-5)


def test_it_teaches_and_is_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2)
    model = QPD("MlpPolicy", "CartPole-v1", str(path), **{**OFF_POLICY, "value_coef": 0.0}).learn(40)
    obs = np.array(model.replay_buffer.stores[""][:10, 0])
    expected = th.as_tensor(obs @ weights_of(4, 2)).log_softmax(dim=1)
    assert np.allclose(model.replay_buffer.answers["log_probs"][:10, 0], expected, atol=1e-5)
    model.save(tmp_path / "student")
    student = QPD.load(tmp_path / "student", env=make_vec_env("CartPole-v1"))
    assert student.taught_by == str(path)
    student.learn(20)
    assert main(["evaluate", str(path), "--env", "CartPole-v1", "-n", "2"]) == 0
    assert "policy.onnx" in capsys.readouterr().out


def test_the_options_are_kept_with_the_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # tf2onnx names inputs and outputs after layers.
    path = linear(tmp_path / "keras.onnx", 4, 2, "dense_input", "dense_2", batch="unk__6")
    with pytest.raises(AgentError, match=r"does not say what its output dense_2 .* is: pass teacher_kwargs=dict"):
        PolicyDistillation("MlpPolicy", "CartPole-v1", path, **OFF_POLICY)
    options = {"answers": "q_values"}
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", path, teacher_kwargs=options, **OFF_POLICY).learn(20)
    assert "q_values" in model.replay_buffer.answers
    model.save(tmp_path / "student")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "student.zip"), "-n", "2"]) == 0
    assert "keras.onnx" in capsys.readouterr().out
    student = PolicyDistillation.load(tmp_path / "student", env=make_vec_env("CartPole-v1")).learn(20)
    assert student._teacher.sha256 == model.teacher_sha256 != load_teacher(linear(path, 4, 2), device="cpu").sha256


def test_the_form_of_sb3s_documentation(tmp_path: Path) -> None:
    """Its example gives the chosen action, the value and the logarithm of its probability, without names."""
    nodes = [
        helper.make_node("MatMul", ["input", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["14"], axis=1, keepdims=0),
        helper.make_node("ReduceMax", ["scores"], ["15"], axes=[1], keepdims=1),
        helper.make_node("ReduceMin", ["scores"], ["16"], axes=[1], keepdims=0),
    ]
    outputs = {"14": (INT64, ["N"]), "15": (FLOAT, ["N", 1]), "16": (FLOAT, ["N"])}
    path = save(tmp_path / "sb3.onnx", nodes, {"input": (FLOAT, ["N", 4])}, outputs, {"w": weights_of(4, 2)})
    with pytest.raises(AgentError, match=r"has the outputs 14 .*say which one holds the answers"):
        load_teacher(path, device="cpu")
    options = {"answers": "action", "output": "14", "value": "15"}
    with pytest.raises(AgentError, match="does not say how many actions there are: pass env="):
        load_teacher(path, device="cpu", teacher_kwargs=options)
    teacher = load_teacher(path, device="cpu", env_id="CartPole-v1", teacher_kwargs=options)
    obs = observations(20, teacher.observation_space)
    scores = obs @ weights_of(4, 2)
    assert np.array_equal(teacher.predict(obs)[0], scores.argmax(axis=1))
    values = teacher.answer(th.as_tensor(obs), with_values=True)[0].values
    assert teacher.has_critic and values is not None and np.allclose(values, scores.max(axis=1), atol=1e-5)


def test_a_gaussian_and_its_bounds(tmp_path: Path) -> None:
    path = linear(tmp_path / "mean.onnx", 3, 1, target="mu", log_std=np.array([[-1.0]]), v=np.zeros((1, 1)))
    with pytest.raises(AgentError, match="does not say the bounds of the actions"):
        load_teacher(path, device="cpu", teacher_kwargs={"log_std": "log_std"})
    obs = observations(6, make_vec_env("Pendulum-v1").observation_space)
    mean = obs @ weights_of(3, 1)
    teacher = load_teacher(path, device="cpu", env_id="Pendulum-v1", teacher_kwargs={"log_std": "log_std"})
    answers, _ = teacher.answer(th.as_tensor(obs))
    assert answers.gaussian is not None and np.allclose(answers.gaussian.mean, mean, atol=1e-5)
    assert np.allclose(answers.gaussian.std, np.exp(-1.0)) and teacher.has_distribution
    # Actions between other bounds than the environment's, as SB3's documentation has them of SAC
    scaled = {"answers": "action", "low": -1.0, "high": 1.0}
    teacher = load_teacher(path, device="cpu", env_id="Pendulum-v1", teacher_kwargs={**scaled, "output": "mu"})
    assert np.allclose(teacher.predict(obs)[0], 2.0 * np.clip(mean, -1, 1), atol=1e-5)
    # The deviation is scaled with the mean
    scaled = {"answers": "mean", "log_std": "log_std", "low": -0.5, "high": 1.0}
    teacher = load_teacher(path, device="cpu", env_id="Pendulum-v1", teacher_kwargs=scaled)
    answers, _ = teacher.answer(th.as_tensor(obs))
    assert answers.gaussian is not None and np.allclose(answers.gaussian.std, np.exp(-1.0) * 4 / 1.5)
    assert np.allclose(answers.gaussian.mean, (mean + 0.5) * 4 / 1.5 - 2, atol=1e-5)
    assert np.allclose(teacher.predict(obs)[0], np.clip((mean + 0.5) * 4 / 1.5 - 2, -2, 2), atol=1e-5)
    # Without an environment, these are the actions.
    teacher = load_teacher(path, device="cpu", teacher_kwargs=scaled)
    answers, _ = teacher.answer(th.as_tensor(obs))
    assert answers.gaussian is not None and np.allclose(answers.gaussian.mean, mean, atol=1e-5)
    assert teacher.action_space == spaces.Box(-0.5, 1.0, (1,))


@pytest.mark.parametrize("options", [{"answers": "action"}, {"answers": "mean", "log_std": "log_std"}])
def test_bounds_that_cannot_be(options: dict[str, Any], tmp_path: Path) -> None:
    path = linear(tmp_path / "mean.onnx", 3, 1, target="action", log_std=np.array([[-1.0]]))
    with pytest.raises(AgentError, match=r"low must be below high, not 1\.0 and 1\.0"):
        load_teacher(path, env_id="Pendulum-v1", teacher_kwargs={**options, "low": 1.0, "high": 1.0})
    seen = make_vec_env("Pendulum-v1").observation_space
    for widest in (np.inf, np.finfo(np.float32).max):
        env: Any = type("Env", (), {"observation_space": seen, "action_space": spaces.Box(-widest, widest, (1,))})
        with pytest.raises(AgentError, match=r"have no bounds .*: leave low and high out"):
            load_teacher(path, env=env, teacher_kwargs={**options, "low": -1.0, "high": 1.0})


def test_pixels_are_scaled_where_the_user_says_so(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["q_values"])]
    outputs, weights = {"q_values": (FLOAT, ["N", 2])}, {"w": weights_of(16, 2)}
    path = save(tmp_path / "pixels.onnx", nodes, {"x": (FLOAT, ["N", 1, 4, 4])}, outputs, weights)
    env = type("Env", (), {"observation_space": spaces.Box(0, 255, (1, 4, 4), np.uint8), "action_space": None})
    with pytest.raises(AgentError, match=r"takes floats, and the environment gives uint8.*scale=255"):
        load_teacher(path, device="cpu", env=env)  # type: ignore[arg-type]
    teacher = load_teacher(path, device="cpu", env=env, teacher_kwargs={"scale": 255})  # type: ignore[arg-type]
    obs = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), np.uint8)
    answers, _ = teacher.answer(th.as_tensor(obs))
    assert np.allclose(answers.q_values, obs.reshape(3, 16) / 255 @ weights_of(16, 2), atol=1e-5)
    nodes.insert(0, helper.make_node("Cast", ["bytes"], ["x"], to=FLOAT))
    save(path, nodes, {"bytes": (UINT8, ["N", 1, 4, 4])}, outputs, weights)
    assert load_teacher(path, device="cpu").observation_space == spaces.Box(0, 255, (1, 4, 4), np.uint8)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are refused, with what is said of them."""
    folder.mkdir(exist_ok=True)
    (folder / "hello.onnx").write_bytes(b"hello")
    linear(folder / "cut.onnx", 4, 2)
    (folder / "cut.onnx").write_bytes((folder / "cut.onnx").read_bytes()[:60])
    ports = {"obs": (FLOAT, ["N", 4])}, {"logits": (FLOAT, ["N", 2])}
    custom = helper.make_node("Anything", ["obs"], ["logits"], domain="my.operators")
    save(folder / "custom.onnx", [custom], *ports, {}, [("", 17), ("my.operators", 1)])
    inner = helper.make_graph([custom], "inner", [], [helper.make_tensor_value_info("logits", FLOAT, ["N", 2])])
    branch = helper.make_node("If", ["yes"], ["logits"], then_branch=inner, else_branch=inner)
    save(folder / "hidden.onnx", [branch], *ports, {"yes": np.array(True)}, [("", 17), ("my.operators", 1)])
    for name, where in (("above", "../weights.bin"), ("absolute", str(folder.parent / "weights.bin"))):
        model = onnx.load(str(linear(folder / f"{name}.onnx", 4, 2)))
        weights = model.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=where)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    (folder.parent / "weights.bin").write_bytes(bytes(32))
    two = [helper.make_node("MatMul", ["a", "w"], ["logits"]), helper.make_node("Identity", ["b"], ["other"])]
    inputs = {"a": (FLOAT, ["N", 4]), "b": (FLOAT, ["N", 7])}
    save(folder / "two.onnx", two, inputs, {"logits": (FLOAT, ["N", 2])}, {"w": weights_of(4, 2)})
    text = helper.make_node("Cast", ["obs"], ["logits"], to=FLOAT)
    save(folder / "whole.onnx", [text], {"obs": (INT64, ["N", 2])}, {"logits": (FLOAT, ["N", 2])}, {})
    linear(folder / "nan.onnx", 4, 2)
    model = onnx.load(str(folder / "nan.onnx"))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((4, 2), np.nan, np.float32), "w"))
    onnx.save(model, str(folder / "nan.onnx"))
    return {
        "hello": (folder / "hello.onnx", "is no ONNX file, or a damaged one"),
        "cut": (folder / "cut.onnx", "is no ONNX file, or a damaged one|cannot be run by onnxruntime|has no input"),
        "custom": (folder / "custom.onnx", "operator Anything of my.operators, which is none of ONNX's own"),
        "hidden": (folder / "hidden.onnx", "operator Anything of my.operators"),
        "above": (folder / "above.onnx", r"has weights in '\.\./weights.bin', outside of its own folder"),
        "absolute": (folder / "absolute.onnx", "outside of its own folder"),
        "two": (
            folder / "two.onnx",
            r"has the inputs a, b, and does not say which one is the observation",
        ),
        "whole": (folder / "whole.onnx", r"takes tensor\(int64\); observations are floats or bytes"),
        "nan": (folder / "nan.onnx", "its output logits holds NaN"),
    }


NAMES = ("hello", "cut", "custom", "hidden", "above", "absolute", "two", "whole", "nan")


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_refused(name: str, tmp_path: Path) -> None:
    path, message = bad_files(tmp_path / "files")[name]
    with pytest.raises(AgentError, match=message):
        load_teacher(path, device="cpu")


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2)
    alone = load_teacher(path, device="cpu")
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size >= 32
    beside, obs = load_teacher(path, device="cpu"), observations(5, alone.observation_space)
    assert np.array_equal(beside.predict(obs)[0], alone.predict(obs)[0])
    (tmp_path / "weights.bin").write_bytes(bytes(32))
    assert load_teacher(path, device="cpu").sha256 != beside.sha256


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AgentError, match=r"needs ONNX, which is not installed: pip install 'sb3-distill\[export\]'"):
        load_teacher(path)


def test_functions_of_a_file_let_in_no_operators_of_the_runtime(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2)
    model = onnx.load(path)
    microsoft, ours = "com.microsoft", helper.make_opsetid("", 17)
    harmless = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function(microsoft, "Harmless", ["x"], ["y"], [harmless], [ours]))
    model.opset_import.append(helper.make_opsetid(microsoft, 1))
    model.graph.node[0].output[0] = "raw"
    model.graph.node.append(helper.make_node("Gelu", ["raw"], ["logits"], domain=microsoft))
    onnx.save(model, str(path))
    with pytest.raises(AgentError, match=r"has the operator Gelu of com\.microsoft"):
        load_teacher(path, env=make_vec_env("CartPole-v1"))


def test_mtpd_is_told_by_task_what_files_do_not_say(tmp_path: Path) -> None:
    own = linear(tmp_path / "pole.onnx", 4, 2, target="scores")
    sources = {"CartPole-v1": own, "MountainCar-v0": linear(tmp_path / "car.onnx", 2, 3)}
    with pytest.raises(AgentError, match="does not say what its output scores"):
        make_mtpd(sources)
    with pytest.raises(ValueError, match=r"teacher_kwargs: .*Pendulum-v1.*CartPole-v1"):
        make_mtpd(sources, teacher_kwargs={"Pendulum-v1": {}})
    options = {"CartPole-v1": {"answers": "q_values"}}
    model = make_mtpd(sources, teacher_kwargs=options, learning_starts=20).learn(40)
    memories = model.replay_buffer.memories.items()
    kinds = {model.tasks[task].name: list(memory.answers) for (task, _), memory in memories}
    assert kinds == {"CartPole-v1": ["q_values"], "MountainCar-v0": ["log_probs"]}
    # The next learn() has loaded teachers; a task that is cut out names its own options.
    model.learn(20)
    assert model.task("CartPole-v1").teacher_kwargs == {"answers": "q_values"}
    model.save(tmp_path / "student")
    loaded = type(model).load(tmp_path / "student", env=model.get_env())
    loaded.learn(20)
    assert loaded.teacher_sha256 == model.teacher_sha256


# --- Names, shapes and bounds that could be read in two ways


class Reacher(gym.Env):
    """Actions without bounds."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def test_actions_without_bounds_are_not_cut(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 3, 2, target="actions")
    obs = np.full((5, 3), 9.0, np.float32)
    actions = load_teacher(path, env=Reacher(), device="cpu").predict(obs)[0]
    assert np.allclose(actions, obs @ weights_of(3, 2), atol=1e-5) and np.abs(actions).max() > 1


def test_a_constant_deviation_of_a_file_for_one_observation(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 3, 2, target="mean", batch=1, log_std=[-1.0, -2.0])
    teacher = load_teacher(path, env=Reacher(), device="cpu", teacher_kwargs={"log_std": "log_std"})
    answers, _ = teacher.answer(th.zeros(4, 3))
    assert answers.gaussian is not None
    assert np.allclose(answers.gaussian.std.cpu(), np.exp([[-1.0, -2.0]] * 4), atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_a_student_answers_alike_as_zip_and_as_onnx(loss: str, ppo_teacher: Any, tmp_path: Path) -> None:
    PolicyDistillation("MlpPolicy", "CartPole-v1", ppo_teacher, loss=loss, **OFF_POLICY).save(tmp_path / "student")
    own = load_teacher(tmp_path / "student.zip", device="cpu")
    export_agent(tmp_path / "student.zip", tmp_path / "out", "CartPole-v1", n_observations=20, max_disagreement=1.0)
    there = load_teacher(tmp_path / "out" / "policy.onnx", device="cpu")
    assert there.has_distribution == own.has_distribution
    kinds = [set(each.answer(th.zeros(2, 4))[0].arrays()) for each in (own, there)]
    assert kinds[0] == kinds[1]


def test_half_precision(tmp_path: Path) -> None:
    half = onnx.TensorProto.FLOAT16
    nodes = [helper.make_node("MatMul", ["obs", "w"], ["logits"])]
    weights = {"w": weights_of(4, 2).astype(np.float16)}
    path = save(tmp_path / "policy.onnx", nodes, {"obs": (half, ["N", 4])}, {"logits": (half, ["N", 2])}, weights)
    for env in (None, make_vec_env("CartPole-v1")):
        teacher = load_teacher(path, env=env, device="cpu")
        obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
        assert teacher.observation_space.dtype == np.float32 and teacher.n_bytes == 16
        assert np.array_equal(teacher.predict(obs)[0], (obs @ weights_of(4, 2)).argmax(axis=1))


def test_scale_is_for_bytes_alone(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2)
    with pytest.raises(AgentError, match="scale divides bytes for a file that takes floats"):
        load_teacher(path, env_id="CartPole-v1", teacher_kwargs={"scale": 255})
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["q_values"]),
    ]
    inputs, outputs = {"x": (UINT8, ["N", 1, 4, 4])}, {"q_values": (FLOAT, ["N", 2])}
    path = save(tmp_path / "pixels.onnx", nodes, inputs, outputs, {"w": weights_of(16, 2)})
    with pytest.raises(AgentError, match=r"Its input x takes .*uint8.*: leave scale out"):
        load_teacher(path, teacher_kwargs={"scale": 255})


def test_actions_that_the_environment_does_not_have(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["action"], axis=1, keepdims=0),
    ]
    inputs, outputs = {"obs": (FLOAT, ["N", 4])}, {"action": (INT64, ["N"])}
    weights = np.zeros((4, 7), np.float32)
    weights[:, 6] = 1.0
    path = save(tmp_path / "policy.onnx", nodes, inputs, outputs, {"w": weights})
    teacher = load_teacher(path, env_id="CartPole-v1", teacher_kwargs={"answers": "action"})
    with pytest.raises(AgentError, match="its output action gives the actions 6 to 6, and the environment has 0 to 1"):
        teacher.predict(np.ones((3, 4), np.float32))
