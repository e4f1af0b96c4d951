"""ONNX files whose state is an input and an output."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch as th
from onnx import helper
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_distill import QPD, load_teacher
from sb3_distill.agents.files import AgentError
from tests.agents.onnx_files import FLOAT, OFF_POLICY, gated, linear, save, weights_of


@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("names", ["h_in h_out", "hidden new_hidden"])
def test_a_state_is_a_memory(batch: Any, names: str, tmp_path: Path) -> None:
    teacher = load_teacher(gated(tmp_path / "policy.onnx", batch, names=names), device="cpu")
    assert teacher.has_memory
    w, v = weights_of(4, 3), weights_of(3, 2, 1)
    obs = np.random.default_rng(0).normal(size=(9, 3, 4)).astype(np.float32)
    hidden, state = np.zeros((3, 3)), None
    for step, seen in enumerate(obs):
        starts = np.array([step == 0, step in (0, 4), step in (0, 2, 4)])
        hidden = (np.where(starts[:, None], 0, hidden) + seen @ w) / 2
        answers, state = teacher.answer(th.as_tensor(seen), state, starts)
        assert np.allclose(answers.log_probs, th.as_tensor(hidden @ v).log_softmax(dim=1), atol=1e-5)
    env = make_vec_env("CartPole-v1", 2)
    QPD("MlpPolicy", env, str(tmp_path / "policy.onnx"), **{**OFF_POLICY, "value_coef": 0.0}).learn(40)


class WithLSTM(nn.Module):
    """As rsl_rl exports a policy with a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.actor = nn.LSTM(3, 5, 2), nn.Linear(5, 1)

    def forward(self, obs: th.Tensor, h_in: th.Tensor, c_in: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        x, (h, c) = self.rnn(obs.unsqueeze(0), (h_in, c_in))
        return self.actor(x.squeeze(0)), h, c


def test_torchs_exporter_in_the_form_of_rsl_rl(tmp_path: Path) -> None:
    th.manual_seed(0)
    net, path = WithLSTM().eval(), tmp_path / "policy.onnx"
    shapes = th.zeros(1, 3), th.zeros(2, 1, 5), th.zeros(2, 1, 5)
    names = {"input_names": ["obs", "h_in", "c_in"], "output_names": ["actions", "h_out", "c_out"]}
    th.onnx.export(net, shapes, str(path), dynamo=False, **names)
    env = make_vec_env("Pendulum-v1", 2)
    teacher = load_teacher(path, device="cpu", env=env)
    obs = th.randn(7, 2, 3)
    states = [(th.zeros(2, 1, 5), th.zeros(2, 1, 5)) for _ in range(2)]
    state: Any = None
    for step, seen in enumerate(obs):
        starts = np.array([step == 0, step in (0, 3)])
        actions, state = teacher.predict(seen.numpy(), state, starts)
        for row in range(2):
            h, c = (part * float(not starts[row]) for part in states[row])
            with th.no_grad():
                expected, *after = net(seen[row : row + 1], h, c)
            states[row] = tuple(after)  # type: ignore[assignment]
            assert np.allclose(actions[row], expected[0].clamp(-2, 2), atol=1e-5)


def test_names_that_only_look_like_those_of_a_memory(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2, source="policy_input", target="policy_output")
    teacher = load_teacher(path, env=make_vec_env("CartPole-v1"), teacher_kwargs={"answers": "logits"}, device="cpu")
    assert not teacher.has_memory and teacher.predict(np.zeros((3, 4), np.float32))[0].shape == (3,)


def test_two_outputs_that_could_follow_a_memory_are_named(tmp_path: Path) -> None:
    path = gated(tmp_path / "policy.onnx", 1)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Identity", ["h_out"], ["next_h_in"]))
    model.graph.output.append(helper.make_tensor_value_info("next_h_in", FLOAT, [1, 1, 3]))
    onnx.save(model, path)
    with pytest.raises(AgentError, match=r"does not say which output follows h_in \(h_out or next_h_in\). Say it"):
        load_teacher(path, env=make_vec_env("CartPole-v1"), device="cpu")
    kwargs = {"memory": {"h_in": "h_out"}}
    assert load_teacher(path, env=make_vec_env("CartPole-v1"), device="cpu", teacher_kwargs=kwargs).has_memory


def test_a_next_observation_is_no_memory(tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Identity", ["obs"], ["next_obs"]))
    model.graph.output.append(helper.make_tensor_value_info("next_obs", FLOAT, ["N", 4]))
    onnx.save(model, path)
    teacher = load_teacher(path, env=make_vec_env("CartPole-v1"), device="cpu")
    assert not teacher.has_memory and teacher.n_actions == 2


def test_a_memory_that_grows_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["logits"]),
        helper.make_node("Concat", ["h_in", "obs"], ["h_out"], axis=1),
    ]
    inputs = {"obs": (FLOAT, ["N", 4]), "h_in": (FLOAT, ["N", "before"])}
    outputs = {"logits": (FLOAT, ["N", 2]), "h_out": (FLOAT, ["N", "after"])}
    path = save(tmp_path / "policy.onnx", nodes, inputs, outputs, {"w": weights_of(4, 2)})
    with pytest.raises(AgentError, match="A memory must keep its shapes: cut or pad it to a fixed length"):
        load_teacher(path, device="cpu")


def test_an_output_follows_one_input(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["obs", "w"], ["logits"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
    ]
    inputs = {"obs": (FLOAT, ["N", 4]), "a": (FLOAT, ["N", 3]), "b": (FLOAT, ["N", 3])}
    outputs = {"logits": (FLOAT, ["N", 2]), "c": (FLOAT, ["N", 3])}
    path = save(tmp_path / "policy.onnx", nodes, inputs, outputs, {"w": weights_of(4, 2)})
    with pytest.raises(AgentError, match="memory: each input needs an output of its own"):
        load_teacher(path, teacher_kwargs={"answers": "logits", "memory": {"a": "c", "b": "c"}})
