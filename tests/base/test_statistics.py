"""A teacher without statistics in an environment that normalises observations."""

import warnings

import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import QPD, PolicyDistillation, RealTimeDistillDQN, load_teacher

SMALL = {"n_steps": 16, "batch_size": 16, "device": "cpu", "seed": 0}
QUICK = {"learning_starts": 16, "buffer_size": 200, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}


def normalized(**kwargs):
    return VecNormalize(make_vec_env("CartPole-v1", 1, seed=0), **kwargs)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An agent that was trained behind VecNormalize, without and with its statistics beside it."""
    folder = tmp_path_factory.mktemp("run")
    model = PPO("MlpPolicy", normalized(), **SMALL).learn(32)
    for name in ("alone", "whole"):
        (folder / name).mkdir()
        model.save(folder / name / "agent")
    model.get_vec_normalize_env().save(folder / "whole" / "vecnormalize.pkl")
    return folder


def messages_of(make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    return [str(warning.message) for warning in caught if "normalises observations" in str(warning.message)]


@pytest.mark.parametrize("cls", [PolicyDistillation, QPD])
def test_a_teacher_that_lost_its_statistics_is_named_once(cls, run):
    alone = run / "alone" / "agent.zip"
    for teacher in (PPO.load(alone, device="cpu"), str(alone), load_teacher(alone)):

        def learn_in_pieces(teacher=teacher):
            model = cls("MlpPolicy", normalized(), teacher, **QUICK)
            model.learn(20).learn(20, reset_num_timesteps=False)

        (message,) = messages_of(learn_in_pieces)
        assert "no statistics of its own" in message and "vecnormalize.pkl" in message
        assert load_teacher(teacher).source in message


def test_nothing_is_said_where_nothing_is_missing(run):
    statistics = VecNormalize.load(str(run / "whole" / "vecnormalize.pkl"), make_vec_env("CartPole-v1", 1))
    whole = PPO.load(run / "alone" / "agent.zip", env=statistics, device="cpu")
    assert np.array_equal(load_teacher(whole).normalization.mean, statistics.obs_rms.mean)
    raw = make_vec_env("CartPole-v1", 1)
    for env, teacher in (
        (normalized(), whole),
        (normalized(), str(run / "whole" / "agent.zip")),
        (normalized(norm_obs=False), str(run / "alone" / "agent.zip")),
        (raw, str(run / "alone" / "agent.zip")),
    ):
        assert not messages_of(lambda env=env, teacher=teacher: QPD("MlpPolicy", env, teacher, **QUICK).learn(20))


def test_a_resumed_student_says_it_too(run, tmp_path):
    alone = str(run / "alone" / "agent.zip")
    QPD("MlpPolicy", make_vec_env("CartPole-v1", 1), alone, **QUICK).learn(20).save(tmp_path / "student")
    resumed = QPD.load(tmp_path / "student", env=normalized(), device="cpu")
    assert len(messages_of(lambda: resumed.learn(20))) == 1


def test_an_agent_to_start_from(run):
    """In real-time distillation it gets the normalised observations, so the advice is another one."""
    teacher = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, buffer_size=100, device="cpu")
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "buffer_size": 100, "eval_freq": -1, "device": "cpu"}
    make = lambda env: RealTimeDistillDQN("MlpPolicy", env, ["MlpPolicy"], teacher, **kwargs)  # noqa: E731
    (message,) = messages_of(lambda: make(normalized()))
    assert "leave VecNormalize out" in message
    assert not messages_of(lambda: make(make_vec_env("CartPole-v1", 1)))
