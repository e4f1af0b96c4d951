"""Files of exporters as teachers: torch's older one, which traces, its newer one (``dynamo=True``), and tf2onnx."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from onnx import helper
from stable_baselines3 import PPO
from torch import nn
from torch.nn import functional as F

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.chain import count_macs
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.kinds.onnx import OnnxTeacher
from tests.agents.onnx_files import FLOAT, save, weights_of

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


# The names that tf2onnx gives to a saved model's
SERVED, RESULT, LAYER = "serving_default_input:0", "StatefulPartitionedCall:0", "StatefulPartitionedCall/model"


def keras_mlp(path: Path) -> Path:
    """A network of two layers, as tf2onnx writes it: a product and a sum for each, names with slashes and colons."""
    nodes = [
        helper.make_node("MatMul", [SERVED, f"{LAYER}/dense/MatMul/ReadVariableOp:0"], [f"{LAYER}/dense/MatMul:0"]),
        helper.make_node("Add", [f"{LAYER}/dense/MatMul:0", "const_fold_opt__9"], [f"{LAYER}/dense/BiasAdd:0"]),
        helper.make_node("Relu", [f"{LAYER}/dense/BiasAdd:0"], [f"{LAYER}/dense/Relu:0"]),
        helper.make_node("MatMul", [f"{LAYER}/dense/Relu:0", f"{LAYER}/dense_1/ReadVariableOp:0"], ["Identity_raw"]),
        helper.make_node("Identity", ["Identity_raw"], [RESULT], name="Identity"),
    ]
    weights = {
        f"{LAYER}/dense/MatMul/ReadVariableOp:0": weights_of(4, 8),
        "const_fold_opt__9": weights_of(1, 8, 1)[0],
        f"{LAYER}/dense_1/ReadVariableOp:0": weights_of(8, 2, 2),
    }
    opsets = [("", 13), ("ai.onnx.ml", 2)]
    inputs, outputs = {SERVED: (FLOAT, ["unk__6", 4])}, {RESULT: (FLOAT, ["unk__7", 2])}
    return save(path, nodes, inputs, outputs, weights, opsets)


def keras_cnn(path: Path, as_nchw: bool) -> Path:
    """
    A convolution and a layer. Keras has the channels last, ONNX first, so images are transposed on their way in and
    out; the batch of the flat features is computed with integers. ``as_nchw`` is the option ``--inputs-as-nchw``.
    """
    nodes = [helper.make_node("Transpose", [SERVED], ["new_input"], perm=[0, 2, 3, 1])] if as_nchw else []
    seen = "new_input" if as_nchw else SERVED
    nodes += [
        helper.make_node("Transpose", [seen], [f"{LAYER}/conv2d/Conv2D__6:0"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", [f"{LAYER}/conv2d/Conv2D__6:0", "conv"], ["conv_out"], strides=[2, 2]),
        helper.make_node("Relu", ["conv_out"], ["relu"]),
        helper.make_node("Transpose", ["relu"], [f"{LAYER}/conv2d/Relu__12:0"], perm=[0, 2, 3, 1]),
        helper.make_node("Shape", [f"{LAYER}/conv2d/Relu__12:0"], ["Shape:0"]),
        helper.make_node("Slice", ["Shape:0", "zero", "one"], ["strided_slice:0"]),
        helper.make_node("Concat", ["strided_slice:0", "rest"], ["Reshape/shape_Concat__20:0"], axis=0),
        helper.make_node("Reshape", [f"{LAYER}/conv2d/Relu__12:0", "Reshape/shape_Concat__20:0"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], [RESULT]),
    ]
    weights = {
        "conv": np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32),
        "dense": weights_of(3 * 3 * 4, 2),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "rest": np.array([3 * 3 * 4], np.int64),
    }
    shape = ["unk__21", 2, 7, 9] if as_nchw else ["unk__21", 7, 9, 2]
    inputs, outputs = {SERVED: (FLOAT, shape)}, {RESULT: (FLOAT, ["unk__22", 2])}
    return save(path, nodes, inputs, outputs, weights, [("", 13)])


def test_the_form_of_tf2onnx(tmp_path: Path) -> None:
    path = keras_mlp(tmp_path / "keras.onnx")
    with pytest.raises(AgentError, match=r"does not say what its output StatefulPartitionedCall:0 .*'unk__7', 2"):
        load_teacher(path, env_id="CartPole-v1", device="cpu")
    options = {"answers": "q_values", "output": RESULT}
    teacher = load_teacher(path, env_id="CartPole-v1", teacher_kwargs=options, device="cpu")
    hidden = (observations().numpy() @ weights_of(4, 8) + weights_of(1, 8, 1)).clip(0)
    expected = hidden @ weights_of(8, 2, 2)
    assert np.allclose(teacher.answer(observations())[0].q_values, expected, atol=1e-4)
    quick: dict[str, Any] = {"learning_starts": 16, "n_teacher_episodes": 0, "buffer_size": 50, "device": "cpu"}
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", path, teacher_kwargs=options, **quick).learn(30)
    assert model._n_updates > 0


@pytest.mark.parametrize("as_nchw", [True, False], ids=["inputs as nchw", "channels last"])
def test_images_in_the_form_of_tf2onnx(as_nchw: bool, tmp_path: Path) -> None:
    path, space = keras_cnn(tmp_path / "keras.onnx", as_nchw), spaces.Box(0, 255, (2, 7, 9), np.uint8)
    env: Any = type("Env", (), {"observation_space": space, "action_space": spaces.Discrete(2)})
    options = {"answers": "logits", "scale": 255}
    teacher = load_teacher(path, env=env, teacher_kwargs=options, device="cpu")
    assert teacher.observation_space == space
    obs = np.random.default_rng(0).integers(0, 256, (5, *space.shape), np.uint8)
    conv = th.as_tensor(np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32))
    features = F.conv2d(th.as_tensor(obs) / 255, conv, stride=2).relu().permute(0, 2, 3, 1).flatten(1)
    expected = (features @ th.as_tensor(weights_of(36, 2))).log_softmax(dim=1)
    assert th.allclose(teacher.answer(th.as_tensor(obs))[0].log_probs, expected, atol=1e-5)
    # A kernel at each of 3 x 4 places, then a layer
    assert count_macs(teacher) == 3 * 4 * (3 * 2 * 3 * 3) + 36 * 2
