"""Which layer takes how many bits, and how a run gets there."""

from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack
from torch import nn

from sb3_distill import QPD, load_teacher
from sb3_distill.export.export import ExportError, export_agent
from sb3_distill.quantization.layers import quantized_layers, quantizers
from sb3_distill.quantization.precision import set_precision, transition_share
from tests.qpd.students import BITS, SMALL_STUDENTS, make, precision_of

pytestmark = SMALL_STUDENTS


FOUR_BITS = dict.fromkeys(BITS, 4)


def frames_env() -> VecFrameStack:
    return VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(n_channels=1, discrete=True)]), 4)


@pytest.fixture(scope="module")
def image_teacher() -> PPO:
    return PPO("CnnPolicy", frames_env(), n_steps=8, batch_size=8, device="cpu")


def states_of(policy: nn.Module) -> list[tuple[float, int]]:
    return [(float(quantizer.blend), int(quantizer.bits)) for quantizer in quantizers(policy)]


def make_image_student(teacher: PPO, **kwargs) -> QPD:
    settings = {"policy_kwargs": {}, "learning_starts": 16, "buffer_size": 100, **kwargs}
    return make(teacher, env=frames_env(), policy="Net5Policy", **settings)


@pytest.mark.parametrize("schedule", ["blend", "bits"])
def test_precision_falls_in_three_phases(ppo_teacher, schedule):
    model = make(ppo_teacher, **BITS, quantization_schedule=schedule)
    seen = []

    def note(local, _):
        progress = 1 - model._current_progress_remaining
        states = [(float(q.blend), int(q.bits), q.step.requires_grad) for q in quantizers(model.policy)]
        seen.append((progress, states))
        return True

    model.learn(1_000, callback=note)
    assert len(seen) == 1_000
    final = [5, 5, 6, 6]
    for progress, states in seen:
        blends, bits, learned = zip(*states, strict=True)
        if progress < 0.4:
            assert set(blends) == {0.0} and all(learned)
        elif progress > 0.72:
            assert set(blends) == {1.0} and list(bits) == final and not any(learned)
        elif 0.45 < progress < 0.7:
            assert (0 < blends[0] < 1) if schedule == "blend" else (set(blends) == {1.0} and bits[0] >= final[0])
    shares = [states[0][0 if schedule == "blend" else 1] for progress, states in seen if progress > 0.45]
    assert shares == sorted(shares, reverse=schedule == "bits")


@pytest.mark.parametrize("schedule", ["blend", "bits"])
@pytest.mark.parametrize("bits", [BITS, dict.fromkeys(BITS, 8)], ids=["few", "eight"])
def test_parameters_tell_the_share_of_the_transition(ppo_teacher, schedule, bits):
    policy = make(ppo_teacher, **bits).policy
    assert transition_share(policy, schedule) is None
    for share in (0.3, 0.75, 1.0):
        set_precision(policy, schedule, share)
        assert transition_share(policy, schedule, share) == pytest.approx(share)
        found, before = transition_share(policy, schedule), states_of(policy)
        set_precision(policy, schedule, found)
        assert states_of(policy) == before


def test_every_number_of_bits_has_the_same_part_of_the_transition(ppo_teacher):
    """The final one, too: its step sizes are learned before they are frozen."""
    policy = make(ppo_teacher, **{**BITS, "weight_bits": 6, "activation_bits": 6}).policy
    bits = []
    for share in (0.0, 0.3, 0.34, 0.6, 0.67, 0.9, 1.0):
        set_precision(policy, "bits", share)
        bits.append(quantized_layers(policy)[1].weight_quantizer.bits)
    assert bits == [8, 8, 7, 7, 6, 6, 6]


def test_frozen_step_sizes_stay(ppo_teacher):
    model = make(ppo_teacher, **BITS, full_precision_fraction=0.2, final_fraction=0.7)
    model.learn(600)
    before = [quantizer.step.clone() for quantizer in quantizers(model.policy)]
    weight = quantized_layers(model.policy)[0].weight.clone()
    model._current_progress_remaining = 0.0
    model.train(5, 32)
    assert all(th.equal(old, quantizer.step) for old, quantizer in zip(before, quantizers(model.policy), strict=True))
    assert not th.equal(weight, quantized_layers(model.policy)[0].weight)


def test_frames_are_scaled_before_step_sizes_are_chosen(image_teacher, monkeypatch):
    fitted = []
    model = make_image_student(image_teacher, weight_bits=4, full_precision_fraction=0.0)
    scaler = model.policy.pi_features_extractor.scaler
    answer = model.policy.answer
    monkeypatch.setattr(model.policy, "answer", lambda obs: (fitted.append(bool(scaler.fitted)), answer(obs))[1])
    model.learn(24)
    assert fitted and all(fitted)


def test_unfinished_students_count_as_float32_and_are_not_exported(ppo_teacher, tmp_path: Path):
    model = make(ppo_teacher, **FOUR_BITS).learn(400)
    few, full = model.stored_bytes(), make(ppo_teacher).stored_bytes()
    assert few < full
    for schedule, share, transition in (
        ("blend", 0.49, "blend 0.49, 4 bits of 4"),
        ("bits", 0.5, "blend 1.00, 6 bits of 4"),
    ):
        set_precision(model.policy, schedule, share)
        assert model.stored_bytes() == full
        model.save(tmp_path / "student")
        with pytest.warns(UserWarning, match=rf"still in the transition .* \({transition}\).*best_model.zip"):
            student = load_teacher(tmp_path / "student.zip", device="cpu")
        assert student.n_bytes == full
        with pytest.raises(ExportError, match=rf"still in the transition \({transition}\): finish its training"):
            export_agent(student, tmp_path / "out", "CartPole-v1")
    set_precision(model.policy, "bits", 1.0)
    assert model.stored_bytes() == few


# --- Bits of layers


def test_bits_differ_by_kind_of_layer(image_teacher):
    model = make_image_student(
        image_teacher,
        weight_bits={"conv": 4, "linear": 3},
        activation_bits={"conv": 5, "linear": 6},
        last_layer_bits=7,
    )
    layers = quantized_layers(model.policy)
    assert [int(layer.weight_quantizer.bits) for layer in layers] == [8, 4, 4, 3, 7]
    # The frames are exact
    assert layers[0].input_quantizer is None
    assert [int(layer.input_quantizer.bits) for layer in layers[1:]] == [5, 5, 6, 7]
    model.learn(60)
    assert bool(model.policy.pi_features_extractor.scaler.fitted) and model._n_updates > 0


def test_weight_and_input_of_the_outer_layers_may_differ(ppo_teacher):
    """Inputs take no bytes, so few bits of weights need not mean few bits of inputs."""
    few = {"weight_bits": 2, "activation_bits": 8, "first_layer_bits": 2, "last_layer_bits": 2}
    parts = {"weight": 2, "input": 7}
    model = make(ppo_teacher, **few | {"first_layer_bits": parts, "last_layer_bits": parts})
    layers = quantized_layers(model.policy)
    assert [layer.weight_quantizer.bits for layer in layers] == [2, 2]
    assert [layer.input_quantizer.bits for layer in layers] == [7, 7]
    assert model.learn(400).stored_bytes() == make(ppo_teacher, **few).learn(400).stored_bytes()


def test_bits_may_be_numpys(ppo_teacher):
    bits = dict(zip(BITS, np.array([3, 4, 5, 6]), strict=True))
    assert precision_of(make(ppo_teacher, **bits)) == precision_of(make(ppo_teacher, **BITS))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weight_bits": {}}, r"weight_bits={} has no entry for the actor's 'conv' layers"),
        ({"weight_bits": {"conv": 4}}, r"weight_bits={'conv': 4} has no entry for the actor's 'linear' layers"),
        (
            {"weight_bits": 4, "activation_bits": {"linear": 4}},
            r"activation_bits={'linear': 4} has no entry for the actor's 'conv'",
        ),
        ({"weight_bits": {"conv": 9}}, r"weight_bits\['conv'\] must be a whole number between 2 and 8 bits, not 9"),
    ],
)
def test_bits_of_kinds_of_layers(image_teacher, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_image_student(image_teacher, **kwargs)


@pytest.mark.filterwarnings("default:The actor has no layer between")
def test_bits_that_no_layer_takes_are_named(ppo_teacher):
    with pytest.warns(UserWarning, match="weight_bits=4 applies to none: first_layer_bits=8 and last_layer_bits=8 do"):
        make(ppo_teacher, weight_bits=4)
