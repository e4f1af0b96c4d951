from pathlib import Path

import numpy as np
import pytest
import torch as th
from qpd_students import BITS, KWARGS, make
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_distill import QPD, load_teacher
from sb3_distill.export.export import ExportError, export_agent
from sb3_distill.quantization.layers import quantized_layers, quantizers
from sb3_distill.quantization.precision import set_precision

# The warning is that weight_bits has no layer left in students this small.
pytestmark = pytest.mark.filterwarnings("ignore:The actor has no layer between")
FOUR_BITS = dict.fromkeys(BITS, 4)


def frames_env() -> VecFrameStack:
    return VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(n_channels=1, discrete=True)]), 4)


@pytest.fixture(scope="module")
def image_teacher() -> PPO:
    return PPO("CnnPolicy", frames_env(), n_steps=8, batch_size=8, device="cpu")


def make_image_student(teacher: PPO, **kwargs) -> QPD:
    settings = {"policy_kwargs": {}, "learning_starts": 16, "buffer_size": 100, **kwargs}
    return make(teacher, env=frames_env(), policy="Net5Policy", **settings)


def precision_of(model: QPD) -> list[tuple[float, int, bool]]:
    return [(float(q.blend), int(q.bits), q.step.requires_grad) for q in quantizers(model.policy)]


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


def test_frozen_step_sizes_stay(ppo_teacher):
    model = make(ppo_teacher, **BITS, full_precision_fraction=0.2, final_fraction=0.7)
    model.learn(600)
    before = [quantizer.step.clone() for quantizer in quantizers(model.policy)]
    weight = quantized_layers(model.policy)[0].weight.clone()
    model._current_progress_remaining = 0.0
    model.train(5, 32)
    assert all(th.equal(old, quantizer.step) for old, quantizer in zip(before, quantizers(model.policy), strict=True))
    assert not th.equal(weight, quantized_layers(model.policy)[0].weight)


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


# --- Going on


@pytest.mark.parametrize("schedule", ["blend", "bits"])
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "continued"])
@pytest.mark.parametrize("share", [None, 0.5, 1.0], ids=["before", "in the middle", "after"])
def test_precision_never_goes_back(ppo_teacher, schedule, reset, share, tmp_path: Path):
    kwargs = {"full_precision_fraction": 0.2, "final_fraction": 0.4, "quantization_schedule": schedule, **BITS}
    model = make(ppo_teacher, **kwargs)
    stop = {None: 0.15, 0.5: 0.4, 1.0: 1.0}[share]
    model.learn(400, callback=lambda local, _: model.num_timesteps < 400 * stop)
    before = precision_of(model)
    model.save(tmp_path / "student")
    resumed = QPD.load(tmp_path / "student", env=make_vec_env("CartPole-v1"), teacher=ppo_teacher, device="cpu")
    seen = []
    resumed.learn(400, callback=lambda local, _: seen.append(precision_of(resumed)) or True, reset_num_timesteps=reset)
    assert len(seen) == 400
    for first, later in zip([before, *seen], [*seen, precision_of(resumed)], strict=True):
        for (blend, bits, _), (later_blend, later_bits, _) in zip(first, later, strict=True):
            # The "bits" schedule begins, once, above the final bits of a student of full precision.
            assert later_blend >= blend and (later_bits <= bits or blend == 0.0)
    assert all(state[0] == 1.0 and not state[2] for state in precision_of(resumed))
    assert [state[1] for state in precision_of(resumed)] == [5, 5, 6, 6]
    if share == 1.0:
        # After the updates wait for the memory, which a resumed run begins without
        assert before == precision_of(model) == seen[-1]
        steps = [quantizer.step for quantizer in quantizers(model.policy)]
        assert all(th.equal(old, new.step) for old, new in zip(steps, quantizers(resumed.policy), strict=True))


def test_step_sizes_wait_for_the_memory(ppo_teacher, tmp_path: Path):
    model = make(ppo_teacher, learning_starts=200, **BITS)
    model.learn(1_000, callback=lambda local, _: model.num_timesteps < 390).save(tmp_path / "student")
    resumed = QPD.load(tmp_path / "student", env=make_vec_env("CartPole-v1"), teacher=ppo_teacher, device="cpu")
    sizes = []

    def note(local, _):
        if resumed.transition_share is not None:
            sizes.append(resumed.replay_buffer.size())
        return True

    resumed.learn(610, callback=note, reset_num_timesteps=False)
    assert sizes[0] >= 200


def test_frames_are_scaled_before_step_sizes_are_chosen(image_teacher, monkeypatch):
    fitted = []
    model = make_image_student(image_teacher, weight_bits=4, full_precision_fraction=0.0)
    scaler = model.policy.pi_features_extractor.scaler
    outputs = model.policy.outputs
    monkeypatch.setattr(model.policy, "outputs", lambda obs: (fitted.append(bool(scaler.fitted)), outputs(obs))[1])
    model.learn(24)
    assert fitted and all(fitted)


# --- Loading with bits


def test_a_student_of_full_precision_is_quantized_later(ppo_teacher, tmp_path: Path):
    model = make(ppo_teacher).learn(300)
    model.save(tmp_path / "full")
    loaded = QPD.load(tmp_path / "full", env=make_vec_env("CartPole-v1"), teacher=ppo_teacher, device="cpu", **BITS)
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    loaded.learn(300)
    assert [state[:2] for state in precision_of(loaded)] == [(1.0, 5), (1.0, 5), (1.0, 6), (1.0, 6)]
    assert loaded.stored_bytes() < model.stored_bytes()
    loaded.save(tmp_path / "few")
    assert QPD.load(tmp_path / "few", weight_bits=3, device="cpu").stored_bytes() == loaded.stored_bytes()
    cases = [
        ("few", {"weight_bits": 2}, r"quantized already \(weight_bits=3, .*so weight_bits cannot change"),
        ("few", {"weight_bits": None}, "quantized already"),
        ("full", {"weight_bits": 12}, "weight_bits must be a whole number between 2 and 8"),
        ("full", {"activation_bits": 4}, "activation_bits=4 needs weight_bits"),
    ]
    for name, bits, message in cases:
        with pytest.raises(ValueError, match=message):
            QPD.load(tmp_path / name, device="cpu", **bits)


# --- Students that are not finished


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
        assert student.stored_bytes == full
        with pytest.raises(ExportError, match=rf"still in the transition \({transition}\): finish its training"):
            export_agent(student, tmp_path / "out", "CartPole-v1")
    set_precision(model.policy, "bits", 1.0)
    assert model.stored_bytes() == few


# --- Arguments


def test_bits_may_be_numpys(ppo_teacher):
    bits = dict(zip(BITS, np.array([3, 4, 5, 6]), strict=True))
    assert precision_of(make(ppo_teacher, **bits)) == precision_of(make(ppo_teacher, **BITS))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weight_bits": {}}, r"weight_bits={} says nothing of 'conv' layers"),
        ({"weight_bits": {"conv": 4}}, r"weight_bits={'conv': 4} says nothing of 'linear' layers"),
        ({"weight_bits": 4, "activation_bits": {"linear": 4}}, r"activation_bits={'linear': 4} says nothing of 'conv'"),
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


def test_runs_that_end_before_the_first_update_are_refused(ppo_teacher):
    with pytest.raises(ValueError, match=r"learning_starts=300 leaves no update in 300 timesteps"):
        make(ppo_teacher, **{**KWARGS, **BITS, "learning_starts": 300}).learn(300)
    make(ppo_teacher, learning_starts=100).learn(50)
