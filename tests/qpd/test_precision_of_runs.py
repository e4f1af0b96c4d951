"""Precision where runs go on, are loaded with bits, or end early."""

from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import ConvertCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import QPD
from sb3_distill.quantization.layers import describe_transition, quantizers
from tests.qpd.students import BITS, KWARGS, SMALL_STUDENTS, make, precision_of

pytestmark = SMALL_STUDENTS


@pytest.mark.parametrize("schedule", ["blend", "bits"])
@pytest.mark.parametrize(
    ("share", "reset"),
    [(None, False), (0.5, False), (0.5, True), (1.0, False)],
    ids=["before", "in the middle", "in the middle, reset", "after"],
)
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


@pytest.mark.parametrize("schedule", ["blend", "bits"])
@pytest.mark.parametrize("stop", [60, 120, 200], ids=["before", "in the middle", "after"])
def test_parameters_bring_their_precision(ppo_teacher, schedule, stop, tmp_path: Path):
    kwargs = {**BITS, "learning_starts": 32, "full_precision_fraction": 0.4, "quantization_schedule": schedule}
    model = make(ppo_teacher, **kwargs).learn(200, callback=lambda local, _: local["self"].num_timesteps < stop)
    before, steps = precision_of(model), [quantizer.step_sizes() for quantizer in quantizers(model.policy)]
    model.save(tmp_path / "student")
    other, seen = make(ppo_teacher, **kwargs), []
    # The parameters of the agent before leave nothing behind.
    for source in (make(ppo_teacher, **kwargs).learn(200).get_parameters(), tmp_path / "student.zip"):
        other.set_parameters(source)
    assert precision_of(other) == before
    other.learn(80, callback=lambda local, _: seen.append(precision_of(other)) or True)
    for first, later in zip([before, *seen], [*seen, precision_of(other)], strict=True):
        for (blend, bits, _), (later_blend, later_bits, _) in zip(first, later, strict=True):
            assert later_blend >= blend and (later_bits <= bits or blend == 0.0)
    assert all(blend == 1.0 and not learned for blend, _, learned in precision_of(other))
    if stop == 200:
        # Nothing is fitted or trained anew.
        kept = zip(steps, quantizers(other.policy), strict=True)
        assert all(th.equal(old, quantizer.step_sizes()) for old, quantizer in kept)


def test_updates_without_a_run(ppo_teacher):
    """As a benchmark makes them."""
    model = make(ppo_teacher, **BITS, full_precision_fraction=0.0, final_fraction=1.0).learn(100)
    fresh = make(ppo_teacher, **BITS, full_precision_fraction=0.0, final_fraction=1.0)
    fresh.replay_buffer, fresh._logger, fresh._n_collected = model.replay_buffer, model.logger, 100
    fresh.train(2, 32)
    assert fresh.transition_share == 1.0


def test_best_model_has_the_final_precision(ppo_teacher, tmp_path: Path):
    """Of every student, whatever was reached before; each comes to its own final precision at its own time."""
    model = make(
        ppo_teacher,
        **{**BITS, "full_precision_fraction": 0.2, "final_fraction": 0.6, "rollout_policy": "teacher"},
        students={"later": {"final_fraction": 0.2}, "full": {"weight_bits": None, "activation_bits": None}},
    )
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1"),
        eval_freq=25,
        n_eval_episodes=2,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path / "best"),
        verbose=0,
    )
    seen = []

    def claim_more_than_can_be_reached(local, _):
        further = evaluation.callback.callbacks[0]
        if model.num_timesteps == 100:
            evaluation.best_mean_reward = 1e6
            further.best_mean_rewards.update(dict.fromkeys(model.students, 1e6))
        known = {"train": evaluation.best_mean_reward, **further.best_mean_rewards}
        policies = {"train": model.policy, "later": model.student_model("later").policy}
        final = {name: not describe_transition(policy) for name, policy in policies.items()}
        if model.num_timesteps > 100:
            seen.append(final)
            assert all((known.get(name, 0.0) == 1e6) == (not is_final) for name, is_final in final.items())
            assert known["full"] == 1e6
        return True

    model.learn(400, callback=[evaluation, ConvertCallback(claim_more_than_can_be_reached)])
    assert seen[-1] == {"train": True, "later": True}
    assert {"train": True, "later": False} in seen
    (later,) = (tmp_path / "students" / "later").rglob("best_model.zip")
    for path in (tmp_path / "best" / "best_model.zip", later):
        assert [state[:2] for state in precision_of(QPD.load(path, device="cpu"))] == [
            (1.0, bits) for bits in (5, 5, 6, 6)
        ]


@pytest.mark.parametrize("exact_match", [True, False])
def test_parameters_of_other_bits_are_refused(ppo_teacher, exact_match, tmp_path: Path):
    """And leave nothing behind."""
    model, other = make(ppo_teacher, **BITS), make(ppo_teacher, **{**BITS, "last_layer_bits": 2}, seed=1)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    other.save(tmp_path / "other")
    for source in (other.get_parameters(), tmp_path / "other.zip"):
        with pytest.raises(ValueError, match=r"end at \[5, 5, 6, 6\] bits .* with \[5, 5, 2, 2\]"):
            model.set_parameters(source, exact_match)
    assert all(th.equal(value, before[name]) for name, value in model.policy.state_dict().items())


def test_the_first_of_several_calls_goes_through_the_whole_schedule(ppo_teacher):
    """As the documentation says."""
    model = make(ppo_teacher, **BITS)
    assert model.learn(200).transition_share == 1.0
    assert model.learn(200, reset_num_timesteps=False).transition_share == 1.0


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


def test_runs_that_end_before_the_first_update_are_refused(ppo_teacher):
    with pytest.raises(ValueError, match=r"learning_starts=300 leaves no update in 300 timesteps"):
        make(ppo_teacher, **{**KWARGS, **BITS, "learning_starts": 300}).learn(300)
    make(ppo_teacher, learning_starts=100).learn(50)
