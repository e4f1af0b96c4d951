"""Integer files of 2 to 8 bits against the model, at observations on and around every border between two levels."""

import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces

from sb3_distill import load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.base.students import student_model
from sb3_distill.export.graph import build_graph
from sb3_distill.export.runner import PolicyRunner
from sb3_distill.quantization.layers import calibrate, quantize, quantized_layers, quantizers, set_blend
from tests.helpers import preferences

N_INPUTS = 6
# Of each layer: the same for all, or mixed
EQUAL = [(bits,) * 4 for bits in range(2, 9)]
MIXED = [(8, 2, 5, 3), (2, 8, 3, 7), (5, 3, 7, 2), (4, 6, 2, 5)]


def quantized_agent(policy: str, space: spaces.Box, kwargs: dict, weights, inputs, calibrated_on: th.Tensor) -> Teacher:
    """A student with random weights and biases, in these bits."""
    th.manual_seed(0)
    student = student_model(policy, kwargs, space, spaces.Discrete(4), "cpu")
    agent = load_teacher(student, device="cpu")
    for name, parameter in agent.policy.named_parameters():
        if name.endswith("bias"):
            parameter.data.uniform_(-0.3, 0.3)
    quantize(
        agent.policy,
        agent.acting_modules,
        lambda position, n_layers, layer: weights[position],
        # Frames are exact.
        lambda position, n_layers, layer: None if position == 0 and space.dtype == np.uint8 else inputs[position],
    )
    calibrate(agent.policy, lambda: agent.answer(calibrated_on))
    set_blend(agent.policy, 1.0)
    return agent


def on_vectors(weights, inputs) -> Teacher:
    """Two hidden layers, on entries of different scales."""
    space = spaces.Box(-np.inf, np.inf, (N_INPUTS,), np.float32)
    obs = th.randn(500, N_INPUTS, generator=th.Generator().manual_seed(1)) * th.tensor([1.0, 2, 4, 1, 2, 4])
    return quantized_agent("MlpPolicy", space, {"net_arch": [16, 16]}, weights, inputs, obs)


@th.no_grad()
def make_exact(agent: Teacher) -> None:
    """Step sizes that are powers of two and biases with few digits: no sum is rounded, whatever its order."""
    for quantizer in quantizers(agent.policy):
        quantizer.unit.copy_(2.0 ** quantizer.step_sizes().log2().round())
        quantizer.step.fill_(1.0)
    for layer in quantized_layers(agent.policy):
        layer.bias.copy_((layer.bias * 64).round() / 64)


def edge_observations(agent: Teacher) -> np.ndarray:
    """In each entry all levels, all borders between two, the floats next to these, and the ends of floats."""
    quantizer = quantized_layers(agent.policy)[0].input_quantizer
    low, high = quantizer.levels()
    halves = np.arange(2 * low - 4, 2 * high + 5) / 2
    extremes = [-np.inf, -1e30, -1e-45, -0.0, 0.0, 1e-45, 1e30, np.inf]
    rng = np.random.default_rng(0)
    observations = []
    steps = quantizer.step_sizes().detach().numpy()
    for entry, step in enumerate(steps):
        points = (halves * step).astype(np.float32)
        around = [np.nextafter(points, np.float32(side)) for side in (-np.inf, np.inf)]
        values = np.concatenate([points, *around, np.array(extremes, np.float32)])
        batch = rng.integers(2 * low - 2, 2 * high + 3, (len(values), N_INPUTS)) / 2 * steps
        batch[:, entry] = values
        observations.append(batch.astype(np.float32))
    return np.concatenate(observations)


@pytest.mark.parametrize("bits", [*EQUAL, *MIXED], ids=str)
def test_sums_that_are_exact_are_equal(bits):
    agent = on_vectors(bits, bits[::-1][1:])
    make_exact(agent)
    observations = edge_observations(agent)
    expected = preferences(agent, th.as_tensor(observations)).numpy()
    assert np.isfinite(expected).all() and len(np.unique(expected, axis=0)) > 10
    for opset in (18, 21):
        graph = build_graph(agent, opset)
        n_short = sum(item.data_type == onnx.TensorProto.INT4 for item in graph.graph.initializer)
        assert n_short == (sum(n <= 4 for n in bits[:3]) if opset == 21 else 0)
        for unpack in (True, False):
            actions, logits = PolicyRunner(graph.SerializeToString(), unpack=unpack).predict(observations)
            assert np.array_equal(logits, expected), f"opset {opset}, unpack {unpack}"
            assert np.array_equal(actions, agent.predict(observations)[0])


@pytest.mark.parametrize("bits", [*EQUAL, *MIXED], ids=str)
def test_steps_of_any_size(bits):
    agent = on_vectors(bits, bits[::-1][1:])
    observations = edge_observations(agent)
    expected = preferences(agent, th.as_tensor(observations)).numpy()
    for unpack in (True, False):
        _, logits = PolicyRunner(build_graph(agent).SerializeToString(), unpack=unpack).predict(observations)
        apart = np.abs(logits - expected).max(axis=1) > 1e-4 * np.abs(expected).max()
        # Sums of another order may fall to the other side of a border.
        assert apart.mean() < 0.01


@pytest.mark.parametrize("bits", [(n,) * 5 for n in range(2, 8)] + [(2, 7, 3, 6, 4), (6, 2, 5, 3, 7)], ids=str)
def test_frames(bits):
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (60, *space.shape), np.uint8)
    # Black, white, and both in turn
    frames[:3] = [np.zeros(space.shape), np.full(space.shape, 255), 255 * (np.indices(space.shape).sum(axis=0) % 2)]
    agent = quantized_agent("Net5Policy", space, {}, bits, bits[::-1], th.as_tensor(frames))
    scaler = agent.acting_modules[0].scaler
    scaler.mean.fill_(100.0)
    scaler.scale.fill_(64.0)
    make_exact(agent)
    expected = preferences(agent, th.as_tensor(frames)).numpy()
    assert len(np.unique(expected, axis=0)) > 10
    for unpack in (True, False):
        _, logits = PolicyRunner(build_graph(agent).SerializeToString(), unpack=unpack).predict(frames)
        assert np.array_equal(logits, expected), f"unpack {unpack}"
