from pathlib import Path

import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from qpd_students import BITS, make
from stable_baselines3 import DQN
from torch import nn

from sb3_distill import PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.errors import TeacherError
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.export.cli import main as export
from sb3_distill.networks.actor_critic_policies import actor_modules
from sb3_distill.qpd import quantize_agent
from sb3_distill.quantization.layers import QuantizedConv2d, QuantizedLinear, quantized_layers, set_blend
from sb3_distill.quantization.packing import pack_bits, pack_layers, unpack_bits
from sb3_distill.quantization.quantizer import Quantizer, has_exact_input

# The warning is that weight_bits has no layer left in students this small.
pytestmark = pytest.mark.filterwarnings("ignore:The actor has no layer between")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1_000), bits=st.integers(2, 8), positive=st.booleans(), n_channels=st.sampled_from([1, 4]))
def test_quantized_values_lie_on_the_grid_and_near(seed, bits, positive, n_channels):
    th.manual_seed(seed)
    x = th.randn(4, 6).abs() if positive else th.randn(4, 6)
    quantizer = Quantizer(bits, n_channels)
    quantizer.fit(x)
    quantizer.blend.fill_(1.0)
    result = quantizer(x)
    low, high = quantizer.levels()
    assert high - low + 1 == (2**bits if positive else 2**bits - 1)
    integers = quantizer.to_integers(x)
    assert th.equal(integers, integers.round()) and integers.min() >= low and integers.max() <= high
    steps = quantizer.step.reshape(-1, 1)
    assert th.allclose(result, integers * steps, atol=1e-5)
    # Never worse than rounding everything to zero
    assert (result - x).square().sum() <= x.square().sum() + 1e-5


def test_more_bits_are_closer():
    th.manual_seed(0)
    x, errors = th.randn(8, 32), []
    for bits in range(2, 9):
        quantizer = Quantizer(bits, 8)
        quantizer.fit(x)
        quantizer.blend.fill_(1.0)
        errors.append((quantizer(x) - x).square().mean().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3


def test_entries_of_different_scales_have_steps_of_their_own():
    x = th.randn(200, 3) * th.tensor([0.01, 1.0, 100.0])
    layer = QuantizedLinear(nn.Linear(3, 2), 8, 8, is_first=True)
    quantizer = layer.input_quantizer
    assert quantizer is not None
    quantizer.fit(x)
    quantizer.blend.fill_(1.0)
    errors = (quantizer(x) - x).square().mean(dim=0).sqrt() / x.std(dim=0)
    assert (errors < 0.02).all()
    sizes = quantizer.step_sizes()
    assert sizes[0] < sizes[1] < sizes[2]
    # They are learned in proportion.
    quantizer(x).square().sum().backward()
    assert th.equal(quantizer.step, th.ones(3)) and quantizer.step.grad is not None


def test_entries_that_were_idle_can_come_to_life():
    quantizer = Quantizer(8, 2, axis=1, relative=True)
    quantizer.fit(th.tensor([[0.0, 3.0], [0.0, -1.0]]))
    quantizer.blend.fill_(1.0)
    assert th.allclose(quantizer(th.tensor([[0.5, 2.0]])), th.tensor([[0.5, 2.0]]), atol=0.02)


def test_weights_may_change_their_sign():
    layer = QuantizedLinear(nn.Linear(3, 2), 4, None)
    layer.weight.data.abs_()
    layer.weight_quantizer.fit(layer.weight)
    assert layer.weight_quantizer.levels() == (-7, 7)


def test_convolutions_keep_their_geometry():
    th.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, padding_mode="circular")
    x = th.randn(2, 4, 11, 11)
    assert th.equal(QuantizedConv2d(plain, 8, None)(x), plain(x))


def test_blend_goes_from_full_to_quantized():
    x, quantizer = th.randn(3, 5), Quantizer(2, 3)
    quantizer.fit(x)
    assert th.equal(quantizer(x), x)
    quantizer.blend.fill_(1.0)
    quantized = quantizer(x)
    quantizer.blend.fill_(0.25)
    assert th.allclose(quantizer(x), x + 0.25 * (quantized - x))


def test_gradients_are_those_of_the_paper():
    """Esser et al. 2020, Eq. 3, and the gradient's scale of section 2.2, computed value by value."""
    quantizer = Quantizer(3)
    quantizer.blend.fill_(1.0)
    with th.no_grad():
        quantizer.step.fill_(0.5)
    x = th.tensor([0.1, 0.7, -1.2, 3.0, -9.0], requires_grad=True)
    quantizer(x).sum().backward()
    low, high = quantizer.levels()
    ratio = (x / 0.5).detach()
    expected = th.where(ratio <= low, low, th.where(ratio >= high, high, ratio.round() - ratio)).sum()
    assert th.allclose(quantizer.step.grad, expected / (5 * high) ** 0.5)
    assert th.equal(x.grad, ((ratio > low) & (ratio < high)).float())


@given(
    bits=st.integers(1, 8),
    values=st.lists(st.integers(0, 255), min_size=1, max_size=50),
)
def test_packing_is_dense_and_reversible(bits, values):
    integers = np.array(values) % 2**bits
    data = pack_bits(integers, bits)
    assert len(data) == -(-len(values) * bits // 8)
    assert np.array_equal(unpack_bits(data, bits, len(values)), integers)


def test_stored_bytes_are_counted_by_hand(ppo_teacher):
    model = make(ppo_teacher, **BITS)
    set_blend(model.policy, 1.0)
    # 4 x 8 weights of 5 bits, 8 x 2 of 6 bits; float32: a step size and a bias per output, a step size per
    # entry of the observation and one for the second layer's input
    assert model.stored_bytes() == 32 * 5 // 8 + 16 * 6 // 8 + 4 * (8 + 2) + 4 * (8 + 2) + 4 * (4 + 1)
    assert make(ppo_teacher).stored_bytes() == 4 * (4 * 8 + 8 + 8 * 2 + 2)


def test_packed_weights_are_what_the_layers_compute_with(ppo_teacher):
    model = make(ppo_teacher, **BITS).learn(300)
    set_blend(model.policy, 1.0)
    actor = nn.ModuleList(actor_modules(model.policy))
    parts = dict(pack_layers(actor))
    for index, layer in enumerate(quantized_layers(actor)):
        quantizer = layer.weight_quantizer
        integers = unpack_bits(parts[f"{index}.weight"], int(quantizer.bits), layer.weight.numel())
        steps = np.frombuffer(parts[f"{index}.weight_step"], dtype=np.float32)
        rebuilt = (integers + quantizer.levels()[0]).reshape(layer.weight.shape) * np.abs(steps)[:, None]
        assert np.allclose(rebuilt, quantizer(layer.weight).detach().numpy(), atol=1e-6)


# --- The size of what acts


def test_sizes_are_those_of_the_actor_alone(ppo_teacher):
    """A teacher, a student of full precision and a quantized one: weights and biases of what acts."""
    teacher = load_teacher(ppo_teacher)
    n_parameters = 4 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2
    assert (teacher.n_parameters, teacher.stored_bytes) == (n_parameters, 4 * n_parameters) == (4610, 18_440)
    students = [load_teacher(make(ppo_teacher, **bits)) for bits in ({}, BITS)]
    assert {student.n_parameters for student in students} == {4 * 8 + 8 + 8 * 2 + 2}
    quantized = quantize_agent(students[0], 4, 4)
    assert quantized.n_parameters == students[0].n_parameters
    # Half a byte for each weight; a bias and a step size per output, a step size per input and for the second layer's
    assert quantized.stored_bytes == (4 * 8 + 8 * 2) // 2 + 4 * 2 * (8 + 2) + 4 * (4 + 1)


# --- Quantization after training


@pytest.fixture(scope="module")
def agents(ppo_teacher, gaussian_teacher, cartpole_teacher, tmp_path_factory) -> dict[str, Path]:
    """Zips of every kind of agent, each as its algorithm leaves it."""
    folder = tmp_path_factory.mktemp("agents")
    kwargs = {"n_teacher_episodes": 0, "learning_starts": 64, "seed": 0, "device": "cpu"}
    pd = PolicyDistillation("MlpPolicy", "CartPole-v1", cartpole_teacher, policy_kwargs={"net_arch": [16]}, **kwargs)
    pd.learn(100).save(folder / "pd")
    ppo_teacher.save(folder / "ppo")
    gaussian_teacher.save(folder / "a2c")
    make(ppo_teacher).learn(100).save(folder / "qpd")
    run = folder / "rtpd"
    rtpd = RealTimeDistillDQN(
        "MlpPolicy",
        "CartPole-v1",
        {"small": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [8]}}},
        learning_starts=16,
        buffer_size=200,
        eval_freq=-1,
        results_dir=str(run),
        seed=0,
        device="cpu",
    )
    rtpd.learn(64).save(run / "CartPole-v1")
    return {
        **{name: folder / f"{name}.zip" for name in ("pd", "ppo", "a2c", "qpd")},
        "dqn": cartpole_teacher,
        "rtpd": run / "CartPole-v1.zip",
        "student of rtpd": run / "students/small/pd/CartPole-v1_1",
    }


@pytest.mark.parametrize("name", ["pd", "ppo", "a2c", "qpd", "dqn", "rtpd", "student of rtpd"])
def test_agents_of_every_kind_are_quantized_on_their_own_episodes(agents, name):
    agent = load_teacher(agents[name], device="cpu")
    env_id = "Pendulum-v1" if name == "a2c" else "CartPole-v1"
    observations = record_observations(agent, env_id, 200)
    expected, _ = agent.predict(observations)
    errors = []
    for bits in (8, 2):
        quantized = quantize_agent(agents[name], bits, bits, env_id, n_observations=200)
        assert {int(layer.weight_quantizer.bits) for layer in quantized_layers(quantized.policy)} == {bits}
        assert quantized.stored_bytes < agent.stored_bytes and quantized.algo == agent.algo
        actions, _ = quantized.predict(observations)
        errors.append(np.abs(actions - expected).mean())
    assert errors[0] <= errors[1] and errors[0] < 0.3
    assert not quantized_layers(agent.policy)


@pytest.mark.parametrize(
    ("space", "exact"),
    [
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), True),
        (spaces.Box(0, 1, (10, 10, 4), bool), True),
        (spaces.Discrete(5), True),
        (spaces.Box(-1, 1, (4,)), False),
        (spaces.Dict({"a": spaces.Box(0, 255, (2,), np.uint8)}), False),
    ],
)
def test_which_observations_are_exact(space, exact):
    assert has_exact_input(space) == exact


def test_a_mean_frame_is_stored():
    frames = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    sizes = []
    for standardize in ("scalar", "frame"):
        kwargs = {"features_extractor_kwargs": {"standardize": standardize}}
        student = PolicyDistillation.of_policy("Net5Policy", kwargs, frames, spaces.Discrete(6), "cpu")
        sizes.append(load_teacher(student, device="cpu").stored_bytes)
    assert sizes[1] - sizes[0] == 4 * 84 * 84


def test_frames_stay_as_they_are():
    env = "PongNoFrameskip-v4"
    frames = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    student = PolicyDistillation.of_policy("Net5Policy", {}, frames, spaces.Discrete(6), "cpu")
    quantized = quantize_agent(student, 4, 4, env, n_observations=8)
    assert [layer.input_quantizer is None for layer in quantized_layers(quantized.policy)] == [True, *[False] * 4]


def test_what_cannot_be_quantized_is_named(agents, ppo_teacher, tmp_path: Path):
    for bits, message in (((1, 8), "weight_bits must be a whole number"), ((8, 9.0), "activation_bits must be a")):
        with pytest.raises(ValueError, match=message):
            quantize_agent(agents["dqn"], *bits, "CartPole-v1")
    with pytest.raises(TeacherError, match="quantized already"):
        quantize_agent(make(ppo_teacher, **BITS), 4, 4)
    cases = {
        "Nonsense-v0": "Nonsense-v0 of .* cannot be made.*--env",
        "LunarLander-v2": "cannot be made.*LunarLander-v3",
        "Pendulum-v1": "cannot play Pendulum-v1: it was trained with observations",
    }
    for env_id, message in cases.items():
        with pytest.raises(ValueError, match=message):
            quantize_agent(agents["dqn"], 8, 8, env_id)
    dictionary = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (2,))})
    for policy, space in (("MultiInputPolicy", dictionary), ("MlpPolicy", spaces.Discrete(4))):
        student = PolicyDistillation.of_policy(policy, {}, space, spaces.Discrete(2), "cpu")
        with pytest.raises(TeacherError, match="is no chain of layers: its features extractor is"):
            quantize_agent(student, 8, 8, "CartPole-v1")
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu").save(tmp_path / "agent")
    with pytest.raises(TeacherError, match=r"does not say its environment: name it with --env \(in Python, env_id=\)"):
        quantize_agent(tmp_path / "agent.zip", 8, 8)


def test_export_takes_bits(agents, tmp_path: Path, capsys):
    command = [str(agents["student of rtpd"]), "-o", str(tmp_path), "--n-observations", "60"]
    assert export([*command, "--bits", "3", "--max-disagreement", "1"]) == 0
    graph = onnx.load(tmp_path / "policy_int.onnx").graph
    assert (tmp_path / "policy.onnx").is_file()
    assert sum(item.data_type == onnx.TensorProto.INT4 for item in graph.initializer) == 2
    with pytest.raises(SystemExit):
        export([*command, "--bits", "9"])
    assert "--bits must be between 2 and 8, not 9" in capsys.readouterr().err
