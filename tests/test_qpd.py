from pathlib import Path

import numpy as np
import pytest
import torch as th
from conftest import run_python
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from torch import nn
from torch.distributions import Normal, kl_divergence

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.common.losses import gaussian_kl_loss, kl_loss
from sb3_distill.common.packing import pack_bits, pack_layers, stored_bytes, unpack_bits
from sb3_distill.common.quantization import (
    QuantizedLinear,
    Quantizer,
    quantized_layers,
    quantizers,
    set_blend,
)
from sb3_distill.qpd import quantize_after_training

KWARGS = {
    "learning_starts": 64,
    "n_teacher_episodes": 0,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}},
}
BITS = {"weight_bits": 3, "activation_bits": 4, "first_layer_bits": 5, "last_layer_bits": 6}


@pytest.fixture(scope="module")
def teacher() -> PPO:
    return PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=1, device="cpu")


@pytest.fixture(scope="module")
def gaussian_teacher() -> A2C:
    model = A2C("MlpPolicy", "Pendulum-v1", seed=1, device="cpu")
    with th.no_grad():
        model.policy.log_std.fill_(-0.7)
    return model


def make(teacher, env="CartPole-v1", policy="MlpPolicy", **kwargs) -> QPD:
    return QPD(policy, env, teacher, **{**KWARGS, **kwargs})


def same(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(th.equal(states[0][key], states[1][key]) for key in states[0])


# --- Quantizers and packed bytes


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


def test_stored_bytes_are_counted_by_hand(teacher):
    model = make(teacher, **BITS)
    # 4 x 8 weights of 5 bits, 8 x 2 of 6 bits; float32: a step size and a bias per output, a step size per
    # entry of the observation and one for the second layer's input
    assert model.stored_bytes() == 32 * 5 // 8 + 16 * 6 // 8 + 4 * (8 + 2) + 4 * (8 + 2) + 4 * (4 + 1)
    assert make(teacher).stored_bytes() == 4 * (4 * 8 + 8 + 8 * 2 + 2)


def test_packed_weights_are_what_the_layers_compute_with(teacher):
    model = make(teacher, **BITS).learn(300)
    set_blend(model.policy, 1.0)
    parts = dict(pack_layers(nn.ModuleList(model.policy.actor_modules())))
    for index, layer in enumerate(quantized_layers(nn.ModuleList(model.policy.actor_modules()))):
        quantizer = layer.weight_quantizer
        integers = unpack_bits(parts[f"{index}.weight"], int(quantizer.bits), layer.weight.numel())
        steps = np.frombuffer(parts[f"{index}.weight_step"], dtype=np.float32)
        rebuilt = (integers + quantizer.levels()[0]).reshape(layer.weight.shape) * np.abs(steps)[:, None]
        assert np.allclose(rebuilt, quantizer(layer.weight).detach().numpy(), atol=1e-6)


# --- Losses


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_gaussian_divergence_is_the_closed_form(temperature):
    th.manual_seed(0)
    means, log_stds = th.randn(2, 6, 3, dtype=th.float64), th.randn(2, 6, 3, dtype=th.float64)
    teacher = Normal(means[0], log_stds[0].exp() * temperature**0.5)
    expected = kl_divergence(teacher, Normal(means[1], log_stds[1].exp())).sum(1).mean()
    result = gaussian_kl_loss(means[0], log_stds[0], means[1], log_stds[1], temperature)
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_has_its_three_terms(teacher, gaussian_teacher):
    model = make(teacher, temperature=0.5, value_coef=0.3, ent_coef=0.1).learn(200)
    samples = model.replay_buffer.sample(16)
    outputs, label = model.policy.outputs(samples.observations), samples.teacher_logits
    probabilities = outputs[:, :2].exp()
    assert th.allclose(probabilities.sum(1), th.ones(16))
    expected = (
        kl_loss(label[:, :2], outputs[:, :2], 0.5, 1.0)
        + 0.3 * (outputs[:, 2] - label[:, 2]).square().mean()
        + 0.1 * (probabilities * outputs[:, :2]).sum(1).mean()
    )
    assert model._eager_loss(samples)[0].item() == pytest.approx(expected.item(), rel=1e-5)

    model = make(gaussian_teacher, env="Pendulum-v1", value_coef=0.0).learn(200)
    samples = model.replay_buffer.sample(16)
    distribution = model.policy.get_distribution(samples.observations).distribution
    theirs = gaussian_teacher.policy.get_distribution(samples.observations).distribution
    expected = kl_divergence(theirs, distribution).sum(1).mean()
    assert model._eager_loss(samples)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_labels_are_the_teachers(teacher):
    model = make(teacher).learn(200)
    samples = model.replay_buffer.sample(32)
    with th.no_grad():
        expected = teacher.policy.get_distribution(samples.observations).distribution.logits
        values = teacher.policy.predict_values(samples.observations)
    assert th.allclose(samples.teacher_logits, th.cat([expected, values], dim=1), atol=1e-5)


# --- The schedule


@pytest.mark.parametrize("schedule", ["blend", "bits"])
def test_precision_falls_in_three_phases(teacher, schedule):
    model = make(teacher, **BITS, quantization_schedule=schedule)
    seen = []

    def note(local, _):
        progress = 1 - model._current_progress_remaining
        states = [(float(q.blend), int(q.bits), q.step.requires_grad) for q in quantizers(model.policy)]
        seen.append((progress, states))

    model.learn(1_000, callback=note)
    final = [5, 5, 6, 6]
    for progress, states in seen:
        blends, bits, learned = zip(*states, strict=True)
        if progress < 0.4:
            assert set(blends) == {0.0} and all(learned)
        elif progress > 0.72:
            assert set(blends) == {1.0} and list(bits) == final and not any(learned)
        elif progress > 0.45:
            assert (0 < blends[0] < 1) if schedule == "blend" else (set(blends) == {1.0} and bits[0] >= final[0])
    shares = [states[0][0 if schedule == "blend" else 1] for progress, states in seen if progress > 0.45]
    assert shares == sorted(shares, reverse=schedule == "bits")


def test_frozen_step_sizes_stay(teacher):
    model = make(teacher, **BITS, full_precision_fraction=0.2, final_fraction=0.7)
    model.learn(600)
    before = [quantizer.step.clone() for quantizer in quantizers(model.policy)]
    weight = quantized_layers(model.policy)[0].weight.clone()
    model._current_progress_remaining = 0.0
    model.train(5, 32)
    assert all(th.equal(old, quantizer.step) for old, quantizer in zip(before, quantizers(model.policy), strict=True))
    assert not th.equal(weight, quantized_layers(model.policy)[0].weight)


def test_bits_differ_by_kind_of_layer(teacher):
    env = VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(n_channels=1, discrete=True)]), 4)
    ppo = PPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    model = make(
        ppo,
        env=env,
        policy="Net5Policy",
        policy_kwargs={},
        weight_bits={"conv": 4, "linear": 3},
        activation_bits={"conv": 5, "linear": 6},
        last_layer_bits=7,
        learning_starts=16,
        buffer_size=100,
    )
    layers = quantized_layers(model.policy)
    assert [int(layer.weight_quantizer.bits) for layer in layers] == [8, 4, 4, 3, 7]
    # The frames are exact
    assert layers[0].input_quantizer is None
    assert [int(layer.input_quantizer.bits) for layer in layers[1:]] == [5, 5, 6, 7]
    model.learn(60)
    assert bool(model.policy.pi_features_extractor.scaler.fitted) and model._n_updates > 0


# --- SB3's idioms


@pytest.mark.parametrize("bits", [{}, BITS], ids=["full", "quantized"])
@pytest.mark.parametrize("rollout_policy", ["teacher", "student", "linear"])
def test_same_seed_same_bits(teacher, bits, rollout_policy):
    models = [make(teacher, rollout_policy=rollout_policy, **bits).learn(400) for _ in range(2)]
    assert models[0]._n_updates > 0 and same(models[0].policy, models[1].policy)


def test_teachers_with_state_dependent_exploration():
    ppo = PPO("MlpPolicy", "Pendulum-v1", use_sde=True, n_steps=8, batch_size=8, device="cpu")
    model = make(ppo, env="Pendulum-v1").learn(200)
    samples = model.replay_buffer.sample(16)
    expected = ppo.policy.get_distribution(samples.observations).distribution
    assert th.allclose(samples.teacher_logits[:, :1], expected.mean, atol=1e-5)
    assert th.allclose(samples.teacher_logits[:, 1:2], expected.stddev.log(), atol=1e-5)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_save_load_predict_resume(env_id, teacher, gaussian_teacher, tmp_path: Path):
    source = teacher if env_id == "CartPole-v1" else gaussian_teacher
    model = make(source, env=env_id, **BITS).learn(400)
    model.save(tmp_path / "model")
    loaded = QPD.load(tmp_path / "model", device="cpu")
    obs = np.random.default_rng(0).normal(size=(50, *model.observation_space.shape)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert same(loaded.policy, model.policy) and loaded.stored_bytes() == model.stored_bytes()
    resumed = QPD.load(tmp_path / "model", env=make_vec_env(env_id), teacher=source, device="cpu")
    resumed.learn(200, reset_num_timesteps=False)
    assert resumed._n_updates > model._n_updates


@pytest.mark.parametrize("bits", [{}, BITS], ids=["full", "quantized"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "separate"])
def test_students_are_read_without_unpickling(bits, share, teacher, tmp_path: Path):
    kwargs = {"net_arch": {"pi": [8, 6], "vf": [5]}, "share_features_extractor": share}
    model = make(teacher, policy_kwargs=kwargs, **bits).learn(400)
    model.save(tmp_path / "student")
    student = load_teacher(tmp_path / "student.zip", device="cpu")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert student.algo == "qpd" and student.stored_bytes == (
        model.stored_bytes() if bits else sum(4 * p.numel() for p in model.policy.parameters())
    )
    assert np.array_equal(student.predict(obs)[0], model.predict(obs, deterministic=True)[0])


def test_image_students_are_read_without_unpickling(tmp_path: Path):
    env = VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(n_channels=1, discrete=True)]), 4)
    ppo = PPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    model = make(ppo, env=env, policy="Net5Policy", policy_kwargs={}, weight_bits=4, learning_starts=16, buffer_size=99)
    model.learn(60).save(tmp_path / "student")
    student = load_teacher(tmp_path / "student.zip", device="cpu")
    obs = np.random.default_rng(0).integers(0, 255, size=(8, 4, 84, 84), dtype=np.uint8)
    assert np.array_equal(student.predict(obs)[0], model.predict(obs, deterministic=True)[0])
    assert student.stored_bytes == model.stored_bytes()


def test_shared_and_separate_trunks(teacher):
    for share in (True, False):
        model = make(teacher, policy_kwargs={"net_arch": [8], "share_features_extractor": share}).learn(200)
        assert model._n_updates > 0


def test_post_training_quantization(teacher):
    student = make(teacher).learn(300)
    obs = student.replay_buffer.sample(200).observations
    with th.no_grad():
        reference = student.policy.outputs(obs)
        errors = []
        for bits in (8, 4, 2):
            quantized = quantize_after_training(student.policy, bits, bits, obs)
            errors.append((quantized.outputs(obs) - reference)[:, :2].abs().mean().item())
            assert stored_bytes(nn.ModuleList(quantized.actor_modules())) < student.stored_bytes()
    assert errors == sorted(errors) and errors[0] < 0.05
    assert not quantized_layers(student.policy)


def test_post_training_quantization_of_other_students(cartpole_teacher: Path):
    student = PolicyDistillation("MlpPolicy", "CartPole-v1", cartpole_teacher, policy_kwargs={"net_arch": [16]})
    obs = th.randn(50, 4)
    quantized = quantize_after_training(student.policy, 8, 8, obs)
    with th.no_grad():
        assert th.allclose(quantized.logits(obs), student.policy.logits(obs), atol=0.1)


# --- Bad input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weight_bits": 1}, "weight_bits must be between 2 and 8 bits, or None; not 1"),
        ({"weight_bits": 9}, "weight_bits must be between 2 and 8"),
        ({"weight_bits": 4.0}, "weight_bits must be between 2 and 8"),
        ({"weight_bits": 4, "activation_bits": 0}, "activation_bits must be between"),
        ({"weight_bits": {"conv": 4, "lstm": 4}}, "weight_bits: Unknown layer 'lstm': choose one of conv, linear"),
        ({"first_layer_bits": 16}, "first_layer_bits must be between"),
        ({"last_layer_bits": None}, "last_layer_bits must be between"),
        ({"quantization_schedule": "steps"}, "Unknown quantization_schedule 'steps': choose one of blend, bits"),
        ({"full_precision_fraction": 0.8, "final_fraction": 0.3}, "schedule never reaches the final precision"),
        ({"final_fraction": 0.0}, "schedule never reaches the final precision"),
        ({"value_coef": -1.0}, "value_coef is a coefficient"),
        ({"temperature": 0.0}, "temperature must be a positive finite number"),
        ({"policy": "Net1Polcy"}, r"Unknown policy 'Net1Polcy'.*Did you mean 'Net1Policy'"),
    ],
)
def test_bad_input_is_refused_at_construction(teacher, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(teacher, **kwargs)


def test_teachers_that_do_not_fit_are_refused(teacher, gaussian_teacher):
    dqn = DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu")
    kwargs = {"n_steps": 8, "batch_size": 8, "device": "cpu"}
    squashed = PPO("MlpPolicy", "Pendulum-v1", use_sde=True, policy_kwargs={"squash_output": True}, **kwargs)
    cases = [
        (dqn, "CartPole-v1", r"is a dqn agent.*PolicyDistillation \(--algo pd\)"),
        (squashed, "Pendulum-v1", r"squashed StateDependentNoiseDistribution.*without squash_output"),
        (teacher, "Acrobot-v1", "chooses among 2 actions"),
        (gaussian_teacher, "MountainCarContinuous-v0", "differ in their observations"),
        (teacher, "Pendulum-v1", "has the actions"),
    ]
    for source, env, message in cases:
        with pytest.raises(ValueError, match=message):
            make(source, env=env)


# --- The Zoo


def test_zoo_trains_and_enjoys(teacher, tmp_path: Path):
    teacher.save(tmp_path / "teacher")
    params = ["-params", "teacher:'teacher.zip'", "learning_starts:100", "n_teacher_episodes:2"]
    arguments = ["--algo", "qpd", "--env", "CartPole-v1", "-f", "logs"]
    run_python(tmp_path, "-m", "rl_zoo3.train", *arguments, "-n", "800", "--eval-freq", "400", *params)
    run_python(tmp_path, "-m", "rl_zoo3.enjoy", *arguments, "-n", "30", "--no-render")
    assert isinstance(QPD.load(tmp_path / "logs/qpd/CartPole-v1_1/CartPole-v1.zip").action_space, spaces.Discrete)
