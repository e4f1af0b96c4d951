"""Policies in integers against the same agents under torch."""

import dataclasses
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN, CrossQ
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_distill import load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.export import integer_policy as runner
from sb3_distill.export.export import disagreement
from sb3_distill.export.integer_policy import TANH, IntegerPolicy, rescale, tanh
from sb3_distill.export.integers import _as_multiplier, fixed_point, integer_policy
from sb3_distill.quantization.layers import quantized_layers
from tests.export.integers import (
    AGENTS,
    FRAMES,
    VECTOR,
    frame_agent,
    observations_of,
    quantize_randomly,
    student,
    vector_agent,
)
from tests.helpers import preferences, run_python


def answers_of(agent: Teacher, observations: np.ndarray) -> np.ndarray:
    """Logits, Q-values, or actions."""
    if isinstance(agent.action_space, spaces.Box):
        return agent.predict(observations)[0]
    return preferences(agent, th.as_tensor(observations)).numpy()


def integer_answers(policy: IntegerPolicy, observations: np.ndarray) -> np.ndarray:
    actions, outputs = policy.predict(observations)
    return actions if policy.action_shape is not None else outputs * policy.output_scale


@pytest.mark.parametrize("name", AGENTS)
def test_integers_compute_what_the_agent_does(name):
    agent = AGENTS[name]()
    observations = observations_of(agent.observation_space, 300)
    expected = answers_of(agent, observations)
    assert len(np.unique(expected, axis=0)) > 20
    apart = np.abs(integer_answers(integer_policy(agent), observations) - expected)
    # The table of tanh is not exact, and a value on the border between two levels may fall to either side.
    assert np.median(apart) <= (5e-3 if name in ("tanh", "sigmoid", "squashed") else 1e-4) * np.abs(expected).max()
    assert np.mean(apart <= 0.02 * np.abs(expected).max()) > 0.95


@pytest.mark.parametrize("bits", range(2, 9))
def test_agents_of_all_precisions_choose_their_actions(bits):
    agent = vector_agent(weights=bits, inputs=bits)
    observations = observations_of(agent.observation_space, 1_000)
    exported = integer_policy(agent).predict(observations)[0]
    assert np.mean(exported == agent.predict(observations)[0]) >= 0.995


def test_multipliers_come_near_to_any_ratio():
    for exponent in range(-46, 15):
        for ratio in (2.0**exponent, 1.37 * 2.0**exponent, 1.99999 * 2.0**exponent):
            multiplier, shift = _as_multiplier(ratio)
            assert 0 <= multiplier < 2**16 and 1 <= shift <= 47
            error = abs(multiplier / 2.0**shift - ratio)
            # Of sums up to 2^31 the product is right to less than half, or beyond every bound.
            assert error <= ratio * 2.0**-16 or error * 2**31 <= 2.0**-16 or ratio > 2**14
    assert _as_multiplier(1e30) == (2**16 - 1, 1) and _as_multiplier(1e-30)[0] == 0


def test_rounding_and_tables():
    assert rescale(np.array([-6, -5, -3, -1, 1, 3, 5, 100]), 1, 1, -2, 40).tolist() == [-2, -2, -1, 0, 1, 2, 3, 40]
    values = np.arange(-32767, 32768)
    assert np.abs(tanh(values) / 32767 - np.tanh(values / 4096)).max() < 5e-4
    assert (np.diff(tanh(values)) >= 0).all() and len(TANH) == 129


def test_values_that_are_no_numbers_or_out_of_range():
    agent = vector_agent()
    policy = integer_policy(agent)
    ordinary = observations_of(agent.observation_space, 1)[0]

    def outputs(value: float) -> list[int]:
        changed = ordinary.copy()
        changed[3] = value
        return policy.predict(changed)[1].tolist()

    assert outputs(np.nan) == outputs(0.0) == outputs(-0.0)
    assert outputs(np.inf) == outputs(1e30) and outputs(-np.inf) == outputs(-1e30) != outputs(np.inf)


def test_sums_of_32_bits_are_proved_and_wider_ones_are_taken_where_they_are_needed():
    agent = vector_agent(widths=(3,))
    policy = integer_policy(agent)
    assert not policy.wide
    for layer in policy.layers:
        largest = 127 if layer is policy.layers[0] else 255
        reach = (np.abs(layer.weight.reshape(len(layer.weight), -1).astype(int)) * largest).sum(axis=1)
        assert (reach + np.abs(layer.bias)).max() < 2**31
    with th.no_grad():
        quantized_layers(agent.policy)[1].bias[0] = 1e9
    wide = integer_policy(agent)
    assert wide.wide and wide.predict(observations_of(agent.observation_space))[0].tolist() == [0] * 100
    with th.no_grad():
        quantized_layers(agent.policy)[1].bias[0] = 1e17
    with pytest.raises(
        AgentError, match=r"a sum of layer 2 could reach [\d,]+, and 70,368,744,177,664 fits in 64 bits"
    ):
        integer_policy(agent)


@pytest.mark.parametrize("bits", [3, 8])
def test_entries_of_very_different_scales_count_alike(bits):
    """What an entry's steps and its weights say together is what counts, so that sums of 32 bits hold all of them."""
    scales = np.array([1e-4, 1, 30, 1, 1e3, 1], np.float32)
    agent, plain = vector_agent(weights=bits), vector_agent(weights=bits)
    first = quantized_layers(agent.policy)[0]
    with th.no_grad():
        first.input_quantizer.unit.mul_(th.as_tensor(scales))
        first.weight.div_(th.as_tensor(scales))
    policy, observations = integer_policy(agent), observations_of(plain.observation_space, 300)
    assert not policy.wide
    assert np.mean(policy.predict(observations * scales)[0] == agent.predict(observations * scales)[0]) > 0.99
    assert np.mean(agent.predict(observations * scales)[0] == plain.predict(observations)[0]) > 0.99


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((3, 1), np.float32, r"must have the shape \(6,\), alone or in a batch, not \(3, 1\)"),
        ((1, 5), np.float32, r"must have the shape \(6,\)"),
        ((), np.float32, r"must have the shape \(6,\)"),
        ((2, 1, 6), np.float32, r"must have the shape \(6,\)"),
    ],
)
def test_observations_of_another_shape_are_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        integer_policy(vector_agent()).predict(np.zeros(shape, dtype))


def test_frames_must_be_bytes():
    policy = integer_policy(AGENTS["frames"]())
    with pytest.raises(ValueError, match=r"are bytes, 0 to 255, not float32"):
        policy.predict(np.zeros(policy.shape, np.float32))


def test_statistics_of_vecnormalize_are_in_the_input():
    env = VecNormalize(make_vec_env("CartPole-v1"), clip_obs=0.5)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=64, seed=0, device="cpu", policy_kwargs={"net_arch": [8]})
    agent = quantize_randomly(load_teacher(model.learn(128), device="cpu"))
    observations = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32) * [3, 1, 0.2, 1]
    with th.no_grad():
        # Steps with which the levels go beyond the clip
        quantized_layers(agent.policy)[0].input_quantizer.unit.mul_(th.tensor([1.0, 2, 4, 1]))
    policy = integer_policy(agent)
    low, high = policy.inputs.low.tolist(), policy.inputs.high.tolist()
    assert policy.inputs.offset.shape == (4,) and low == [-level for level in high] and high[2] < high[1] < 127
    assert np.mean(policy.predict(observations)[0] == agent.predict(observations)[0]) > 0.99


def test_qr_dqn_is_the_mean_of_its_quantiles():
    model = QRDQN("MlpPolicy", "CartPole-v1", buffer_size=10, policy_kwargs={"net_arch": [8], "n_quantiles": 5}, seed=0)
    agent = quantize_randomly(load_teacher(model, device="cpu"))
    observations = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    policy = integer_policy(agent)
    answers, expected = integer_answers(policy, observations), answers_of(agent, observations)
    assert policy.n_actions == 2 and np.median(np.abs(answers - expected)) < 2e-3 * np.abs(expected).max()


def mean_frame() -> Teacher:
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    return quantize_randomly(student("Net5Policy", space, {"features_extractor_kwargs": {"standardize": "frame"}}))


def crossq() -> Teacher:
    model = CrossQ("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [4]}, device="cpu")
    return quantize_randomly(load_teacher(model, device="cpu"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (mean_frame, r"its FrameScaler subtracts a mean frame \(standardize='frame'\)"),
        (crossq, r"its layer BatchRenorm1d"),
        (lambda: vector_agent(nn.ELU), r"its layer ELU\(alpha=1.0\) has no counterpart in integers"),
        (
            lambda: student("MlpPolicy", spaces.Box(-1, 1, (3,)), {"net_arch": [4]}),
            r"its layer Linear.* has no counter",
        ),
    ],
    ids=["mean frame", "renorm", "elu", "floats"],
)
def test_what_cannot_be_expressed_is_named(make, message):
    with pytest.raises(AgentError, match=rf"cannot be exported as C: {message}"):
        integer_policy(make())


@pytest.mark.parametrize("name", ["tanh", "frames", "squashed"])
def test_files_give_the_policy_back(name):
    agent = AGENTS[name]()
    policy = integer_policy(agent)
    content = policy.to_bytes()
    read = IntegerPolicy.load(content)
    assert content == read.to_bytes() == integer_policy(AGENTS[name]()).to_bytes()
    observations = observations_of(agent.observation_space)
    for own, other in zip(policy.predict(observations), read.predict(observations), strict=True):
        assert own.dtype == other.dtype and np.array_equal(own, other)
    assert np.array_equal(read.predict(observations[7])[1], read.predict(observations)[1][7])


def _changed(policy: IntegerPolicy, **changes: Any) -> IntegerPolicy:
    return dataclasses.replace(policy, layers=(dataclasses.replace(policy.layers[0], **changes), *policy.layers[1:]))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (1, 1, 60)},
        {"bias": np.zeros(3, np.int64)},
        {"activation": "system"},
        {"low": "0}; int main"},
        {"bits": 9},
        {"shift": np.full(8, 60, np.uint8)},
        {"stride": (0, 1)},
        {"weight": np.zeros((7, 1, 1, 6), np.int8)},
    ],
    ids=str,
)
def test_files_whose_parts_do_not_fit_are_refused(changes):
    content = _changed(integer_policy(vector_agent()), **changes).to_bytes()
    with pytest.raises(ValueError, match=r"policy.npz is no integer policy .*: export the agent again"):
        IntegerPolicy.load(content)


def test_other_files_are_refused(tmp_path: Path):
    for content in (b"", b"nothing", integer_policy(vector_agent()).to_bytes()[:-200]):
        with pytest.raises(ValueError, match="is no integer policy"):
            IntegerPolicy.load(content)
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(json.dumps({"layers": [], "inputs": None})))
    with pytest.raises(ValueError, match="is no integer policy"):
        IntegerPolicy.load(buffer.getvalue())


def test_the_runner_needs_numpy_alone(tmp_path: Path):
    agent = vector_agent()
    policy = integer_policy(agent)
    (tmp_path / "policy.npz").write_bytes(policy.to_bytes())
    observations = observations_of(agent.observation_space, 5)
    np.save(tmp_path / "observation.npy", observations)
    (tmp_path / "integer_policy.py").write_bytes(Path(runner.__file__).read_bytes())
    code = "import runpy, sys; runpy.run_path('integer_policy.py', run_name='__main__'); print('torch' in sys.modules)"
    result = run_python(tmp_path, "-c", code, "policy.npz", "observation.npy")
    assert result.stdout.split("\n")[:2] == [str(policy.predict(observations)[0]), "False"]
    assert "torch" in sys.modules


class Valves(gym.Env):
    """Actions from 0 to 10."""

    observation_space = VECTOR
    action_space = spaces.Box(0, 10, (3,), np.float32)


def uneven_agent(idle: Sequence[int] = (), bias: float = 0.0) -> Teacher:
    """Some of its actions do not depend on the observation."""
    model = PPO("MlpPolicy", DummyVecEnv([Valves]), policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    agent = quantize_randomly(load_teacher(model, device="cpu"))
    last = quantized_layers(nn.ModuleList(agent.acting_modules))[-1]
    with th.no_grad():
        last.bias += 5.0
        for row in idle:
            last.weight[row], last.bias[row] = 0.0, bias
    return agent


@pytest.mark.parametrize("bias", [0.0, 3.0, 9.7])
def test_an_action_without_weights_costs_the_others_nothing(bias):
    observations = observations_of(VECTOR, 300)
    agent = uneven_agent([0], bias)
    exported, expected = integer_policy(agent).predict(observations)[0], agent.predict(observations)[0]
    assert np.abs(exported - expected).max() < 5e-3
    assert disagreement(exported, expected, agent.action_space) < 0.005
    assert integer_policy(agent).layers[-1].scale == integer_policy(uneven_agent()).layers[-1].scale


@pytest.mark.parametrize("level", [0, 4, 11, 23])
def test_empty_places_have_the_levels_of_the_agent(level):
    agent = AGENTS["grid"]()
    first, second = quantized_layers(nn.ModuleList(agent.acting_modules))[:2]
    with th.no_grad():
        # In turns above and below the border of two levels, by less than the integers can tell
        sides = th.tensor([1.0, -1.0, 1.0, -1.0])
        first.bias.copy_(second.input_quantizer.step_sizes() * (level + 0.5 + 1e-6 * sides))
    layer = integer_policy(agent).layers[0]
    empty = layer(np.zeros((1, math.prod(layer.shape)), np.int64)).reshape(4, -1)
    assert empty[:, 0].tolist() == [level + 1, level, level + 1, level] and (empty == empty[:, :1]).all()


@pytest.mark.parametrize(("activation", "bits"), [(nn.Tanh, 2), (nn.Tanh, 4), (nn.Sigmoid, 4)])
def test_inputs_of_0_have_the_levels_of_the_agent_behind_activations(activation, bits):
    agent = vector_agent(activation, weights=4, inputs=bits)
    first, second = quantized_layers(nn.ModuleList(agent.acting_modules))[:2]
    lowest = second.input_quantizer.levels()[0] if activation is nn.Tanh else 0
    # As near above and below the border of two levels as floats can be
    border = 0.5 * second.input_quantizer.step_sizes()
    start = (th.atanh if activation is nn.Tanh else th.logit)(border)
    with th.no_grad():
        first.bias.copy_(start * (1 + 2e-7 * th.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0])))
    observation = th.zeros(1, *agent.observation_space.shape)
    expected = second.input_quantizer.to_integers(activation()(first(observation))) - lowest
    layer = integer_policy(agent).layers[0]
    assert len(set(expected.reshape(-1).tolist())) == 2
    assert layer(np.zeros((1, math.prod(layer.shape)), np.int64)).reshape(-1).tolist() == expected.reshape(-1).tolist()


def test_no_action_is_beyond_its_bounds_by_the_last_bit():
    # (0.5 + 0.7) / 2 + (0.7 - 0.5) / 2 is 0.70000005 in float32, in which the bound is 0.69999999.
    low, high = np.float32([0.5, -0.1, -2, 0.3, 1000]), np.float32([0.7, 0.3, 2, 0.3, 1000.1])
    centre, half = fixed_point(low, high)
    policy = dataclasses.replace(integer_policy(AGENTS["continuous"]()), action_shape=(5,), centre=centre, half=half)
    lowest, middle, highest = policy.to_actions(np.array([[-32767] * 5, [0] * 5, [32767] * 5]))
    assert (low <= lowest).all() and (highest <= high).all()
    assert np.allclose([lowest, middle, highest], [low, (low + high) / 2, high], rtol=4e-7, atol=1e-8)
    assert (lowest[2], highest[2]) == (-2, 2)


def test_bytes_are_bytes_in_every_type_of_integers():
    policy = integer_policy(frame_agent())
    frames = observations_of(FRAMES, 3)
    assert np.array_equal(policy.predict(frames.astype(np.int64))[1], policy.predict(frames)[1])
    for wrong in (-1, 256):
        frames = frames.astype(np.int64)
        frames[0, 0, 0, 0] = wrong
        with pytest.raises(ValueError, match=f"bytes, 0 to 255, not .*{wrong}"):
            policy.predict(frames)
