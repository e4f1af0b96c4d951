"""The temperature that is chosen from the gaps between a teacher's actions."""

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import DQN

from sb3_distill import PolicyDistillation
from sb3_distill.common.answers import Answers, Gaussian
from sb3_distill.common.temperature import choose_temperature, describe_temperature
from sb3_distill.networks.frozen import hash_weights
from tests.base.test_resuming import KWARGS


def q_values(*rows):
    return Answers(q_values=th.tensor(rows))


def test_it_is_the_median_of_the_deviations():
    # Deviations 1, 0.5 and 4
    assert choose_temperature(q_values([1.0, 3.0], [0.0, 1.0], [-4.0, 4.0])) == 1.0


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 10**6))
def test_it_has_the_scale_of_the_values_whatever_their_level(scale, level, seed):
    values = th.randn(50, 4, dtype=th.float64, generator=th.Generator().manual_seed(seed))
    unit = choose_temperature(Answers(q_values=values))
    assert choose_temperature(Answers(q_values=scale * values + level)) == pytest.approx(scale * unit, rel=1e-6)


def test_distributions_stay_as_they_are():
    assert choose_temperature(Answers(log_probs=th.log_softmax(th.randn(9, 3), dim=1))) == 1.0
    assert choose_temperature(Answers(gaussian=Gaussian(th.zeros(9, 2), th.ones(9, 2)))) == 1.0


def test_a_teacher_that_tells_nothing():
    assert choose_temperature(q_values([2.0, 2.0], [5.0, 5.0])) == 1.0


def test_the_gaps_are_described():
    said = describe_temperature(q_values([0.0, 1.0, 0.5], [3.0, 0.0, 0.0], [0.0, 0.0, 2.0]), 1.0)
    assert "Q-values of its two best actions differ by 1.25 to 2.5 (quartiles; median 2)." in said
    assert "Temperature 1 gives the best action 73% of the probability on average." in said
    assert "gives the best action 100%" in describe_temperature(q_values([1.0]), 0.1)
    both = describe_temperature(Answers(log_probs=th.tensor([[0.9, 0.1]]).log()), 1.0, 0.5)
    assert "log-probabilities of its two best actions differ by 2.2 to 2.2" in both
    assert "Temperature 1 gives the best action 90%" in both and "Temperature 0.5 gives the best action 99%" in both


def make(**kwargs):
    agent = DQN("MlpPolicy", "CartPole-v1", seed=1, device="cpu", policy_kwargs={"net_arch": [16]})
    return PolicyDistillation("MlpPolicy", "CartPole-v1", agent, **{**KWARGS, "n_teacher_episodes": 0, **kwargs})


def test_a_run_chooses_it_once_and_keeps_it(tmp_path, capsys):
    model = make(temperature="auto", verbose=1)
    assert model.temperature == "auto"
    model.learn(80)
    assert model.temperature == "auto"
    model.learn(160)
    chosen = model.temperature
    assert isinstance(chosen, float) and model.student.loss.temperature == chosen
    assert f"Temperature {chosen:.3g} gives the best action" in capsys.readouterr().out
    model.learn(200, reset_num_timesteps=False)
    assert model.temperature == chosen and "gives the best action" not in capsys.readouterr().out
    # It is saved, with the student and with the state of the run.
    model.save(tmp_path / "student")
    assert PolicyDistillation.load(tmp_path / "student", device="cpu").temperature == chosen
    model.save_run_state(tmp_path / "state.zip")
    resumed = make(temperature="auto")
    resumed.load_run_state(tmp_path / "state.zip")
    for each in (model, resumed):
        each.learn(100, reset_num_timesteps=False)
    assert resumed.temperature == resumed.student.loss.temperature == chosen
    assert hash_weights(resumed.policy) == hash_weights(model.policy)


def test_a_number_that_is_given_is_described_and_kept(capsys):
    assert make(temperature=0.25, verbose=1).learn(120).temperature == 0.25
    assert "Temperature 0.25 gives the best action" in capsys.readouterr().out
    make(loss="mse", verbose=1).learn(120)
    assert "gives the best action" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["AUTO", "0.1", 0, -1.0, None, float("nan")])
def test_what_is_no_temperature(wrong):
    with pytest.raises(ValueError, match="temperature must be"):
        make(temperature=wrong)
