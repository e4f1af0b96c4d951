"""Files of torch's two exporters as teachers: the older one, which traces, and the newer one (``dynamo=True``)."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from torch import nn

from sb3_distill import load_teacher
from sb3_distill.agents.kinds.onnx import OnnxTeacher

# The newer one takes ten seconds and more for a network of two layers.
DYNAMO = pytest.param(True, marks=pytest.mark.slow, id="dynamo")
BOTH = pytest.mark.parametrize("dynamo", [pytest.param(False, id="tracing"), DYNAMO])


class Plain(nn.Module):
    """A network of the form that CleanRL trains."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, obs: th.Tensor) -> th.Tensor:
        return self.net(obs)


class Gated(nn.Module):
    """A network with a memory, which is an input and an output, as rsl_rl exports it."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 5), nn.Linear(5, 2)

    def forward(self, obs: th.Tensor, h_in: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        seen, h_out = self.gru(obs.unsqueeze(0), h_in)
        return self.head(seen.squeeze(0)), h_out


class OfSB3(nn.Module):
    """As SB3's documentation exports PPO: the action, the value and its logarithmic probability."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: th.Tensor) -> Any:
        return self.policy(observation, deterministic=True)


def export(module: nn.Module, path: Path, dynamo: bool, axes: dict[str, int] | None = None, **kwargs: Any) -> Path:
    """Write a file; of the inputs and outputs in ``axes``, the batch is open."""
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript")
        if axes is not None:
            batch = th.export.Dim("batch")
            names = kwargs["input_names"]
            kwargs["dynamic_shapes"] = {name: {axes[name]: batch} for name in names}
    elif axes is not None:
        kwargs["dynamic_axes"] = {name: {axis: "batch"} for name, axis in axes.items()}
    args = kwargs.pop("args")
    with warnings.catch_warnings():
        # Both say much about their own future.
        warnings.simplefilter("ignore")
        th.onnx.export(module.eval(), args, str(path), dynamo=dynamo, **kwargs)
    return path


def observations(n: int = 6) -> th.Tensor:
    return th.randn(n, 4, generator=th.Generator().manual_seed(0))


@BOTH
@pytest.mark.parametrize("is_open", [True, False], ids=["any batch", "batch of 1"])
def test_a_plain_network(dynamo: bool, is_open: bool, tmp_path: Path) -> None:
    module, axes = Plain(), {"obs": 0, "logits": 0} if is_open else None
    args = (observations(2 if is_open else 1),)
    names: dict[str, Any] = {"input_names": ["obs"], "output_names": ["logits"]}
    path = export(module, tmp_path / "policy.onnx", dynamo, axes, args=args, **names)
    teacher = load_teacher(path, env_id="CartPole-v1", device="cpu")
    assert isinstance(teacher, OnnxTeacher) and not teacher.has_memory
    expected = module(observations()).log_softmax(dim=1)
    assert th.allclose(teacher.answer(observations())[0].log_probs, expected, atol=1e-5)


@BOTH
def test_a_network_with_a_memory(dynamo: bool, tmp_path: Path) -> None:
    module = Gated()
    names: dict[str, Any] = {"input_names": ["obs", "h_in"], "output_names": ["logits", "h_out"]}
    axes = {"obs": 0, "logits": 0, "h_in": 1, "h_out": 1}
    args = (observations(2), th.zeros(1, 2, 5))
    path = export(module, tmp_path / "policy.onnx", dynamo, axes, args=args, **names)
    teacher = load_teacher(path, env_id="CartPole-v1", device="cpu")
    assert teacher.has_memory
    state, memory = None, th.zeros(1, 3, 5)
    for seen in observations(12).reshape(4, 3, 4):
        answers, state = teacher.answer(seen, state, np.zeros(3, bool))
        outputs, memory = module(seen, memory)
        assert th.allclose(answers.log_probs, outputs.log_softmax(dim=1), atol=1e-5)


@BOTH
def test_the_form_of_sb3s_documentation(dynamo: bool, tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0, device="cpu")
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["action", "value", "log_prob"]}
    path = export(OfSB3(model.policy), tmp_path / "policy.onnx", dynamo, args=(observations(1),), **names)
    options = {"output": "action", "value": "value"}
    teacher = load_teacher(path, env=gym.make("CartPole-v1"), teacher_kwargs=options, device="cpu")
    obs = observations().numpy()
    assert np.array_equal(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0])
    values = teacher.answer(observations(), with_values=True)[0].values
    assert th.allclose(values, model.policy.predict_values(observations())[:, 0], atol=1e-5)
