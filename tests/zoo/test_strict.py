"""The papers' settings: what ``strict:True`` changes, and what it leaves to the user."""

import math

import pytest
import torch as th
import yaml
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_distill import CappedRMSprop, PolicyDistillation, PythonAtari, RealTimeDistillDQN
from sb3_distill.algorithms import ALGORITHMS
from sb3_distill.common.files import default_config, run_folder
from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.study.file import known_hyperparams
from sb3_distill.study.plan.strict import with_paper

PONG = "PongNoFrameskip-v4"
RAW = {"ortho_init": False, "features_extractor_kwargs": {"standardize": None}}
RMSPROP = {"optimizer_class": CappedRMSprop, "optimizer_kwargs": {"max_rate": 0.01, "alpha": 0.95}}
NATURE = {"optimizer_class": CappedRMSprop, "optimizer_kwargs": {"alpha": 0.95, "eps": 0.01, "centered": True}}


def env_of(algo):
    return "MultiTaskAtari-v0" if algo.startswith("mt") else PONG


@pytest.mark.parametrize("algo", ["pd", "mtpd"])
def test_policy_distillation_is_as_published(algo):
    found = with_paper(algo, env_of(algo), {"strict": True})
    # Ten thousand minibatches after every hour of 54,000 steps, 500 hours, ten of them in memory
    assert found["train_freq"] * found["n_envs"] == 54_000 and found["gradient_steps"] == 10_000
    # SB3 makes no updates as long as there are learning_starts steps or fewer: the first block follows the first hour.
    assert found["learning_starts"] == 54_000 - 1
    assert found["n_timesteps"] == 500 * 54_000 and found["buffer_size"] == 10 * 54_000
    assert 1e-4 <= found["learning_rate"] <= 1e-3 and 1e-3 <= RMSPROP["optimizer_kwargs"]["max_rate"] <= 1e-1
    assert found["policy_kwargs"] == {**RAW, **RMSPROP}
    assert found["bf16"] is False and found["rollout_policy"] == "teacher" and found["teacher_eps"] == 0.05


@pytest.mark.parametrize("algo, n_timesteps", [("rtpd", 10_000_000), ("mtdqn", 27_000_000)])
def test_the_dqn_is_that_of_nature(algo, n_timesteps):
    found = with_paper(algo, env_of(algo), {"strict": True})
    expected = {
        "buffer_size": 1_000_000,
        "target_update_interval": 10_000,
        "learning_starts": 50_000,
        "learning_rate": 2.5e-4,
        "exploration_final_eps": 0.1,
        "exploration_fraction": 1e6 / n_timesteps,
        "batch_size": 32,
        "train_freq": 4,
        "gradient_steps": 1,
        "n_envs": 1,
        "gamma": 0.99,
        "max_grad_norm": math.inf,
        "policy_kwargs": NATURE,
    }
    assert expected.items() <= found.items() and found["n_timesteps"] == n_timesteps
    # A million steps of a shorter run, whoever says how long it is
    assert with_paper(algo, env_of(algo), {"strict": True}, 2_000_000)["exploration_fraction"] == 0.5
    assert with_paper(algo, env_of(algo), {"strict": True, "n_timesteps": 4e6})["exploration_fraction"] == 0.25


def test_students_beside_a_teacher_are_strict_too():
    found = with_paper("rtpd", PONG, {"strict": True})
    assert list(found["students"]) == ["net1", "net2", "net3"]
    # Who names students names all of them.
    students = {"net4": "Net4Policy", "own": {"policy": "Net5Policy", "policy_kwargs": {"ortho_init": True}}}
    found = with_paper("rtpd", PONG, {"strict": True, "students": students})
    assert found["students"] == {
        "net4": {"policy": "Net4Policy", "policy_kwargs": {**RAW, **NATURE}},
        "own": {"policy": "Net5Policy", "policy_kwargs": {**RAW, **NATURE, "ortho_init": True}},
    }
    assert with_paper("rtpd", PONG, {"strict": True, "students": None})["students"] is None
    (further,) = with_paper("pd", PONG, {"strict": True, "students": ["Net3Policy"]})["students"].values()
    assert further == {"policy": "Net3Policy", "policy_kwargs": {**RAW, **RMSPROP}}


def test_further_students_take_over_the_first_ones_network():
    own = {
        "strict": True,
        "policy": "CnnPolicy",
        "policy_kwargs": {"features_extractor_kwargs": {"channels": [8, 8, 8]}},
    }
    students = {"b": {"temperature": 0.1}, "c": "Net3Policy"}
    found = with_paper("pd", PONG, {**own, "students": students})
    assert found["students"]["b"] == {"temperature": 0.1}
    assert found["students"]["c"] == {"policy": "Net3Policy", "policy_kwargs": {**RAW, **RMSPROP}}


def test_the_students_of_actor_mimic_play():
    found = with_paper("pd", PONG, {"strict": True, "policy": "MaxPoolCnnPolicy"})
    assert found["rollout_policy"] == "student" and found["student_exploration"] == "softmax"
    assert found["temperature"] == found["student_temperature"] == 0.01
    assert found["policy_kwargs"] == {**RAW, "optimizer_class": th.optim.Adam} and found["n_timesteps"] == 20_000_000


def test_the_user_has_the_last_word():
    own = {"strict": True, "n_envs": 1, "policy_kwargs": {"features_extractor_kwargs": {"pool": "max"}}}
    found = with_paper("pd", PONG, own)
    assert found["n_envs"] == 1 and "strict" not in found
    assert found["policy_kwargs"]["features_extractor_kwargs"] == {"standardize": None, "pool": "max"}
    assert with_paper("pd", PONG, {"strict": False, "n_envs": 1}) == {"n_envs": 1}
    assert with_paper("pd", "CartPole-v1", {"temperature": 1.0}) == {"temperature": 1.0}


@pytest.mark.parametrize(
    "env_id, own, message",
    [
        ("CartPole-v1", {"strict": True}, "for Atari games, and CartPole-v1 is none: leave it out"),
        (PONG, {"strict": "yes"}, "strict must be True or False, not 'yes'"),
        (PONG, {"strict": True, "policy_kwargs": "dict(net_arch=[])"}, "policy_kwargs, which is the text"),
    ],
)
def test_what_strict_refuses(env_id, own, message):
    with pytest.raises(ValueError, match=message):
        with_paper("pd", env_id, own)


def test_strict_refuses_an_algorithm_without_such_settings():
    with pytest.raises(ValueError, match="strict:True has no settings for ppd"):
        with_paper("ppd", PONG, {"strict": True})


@pytest.mark.parametrize("algo", [algo for algo in ALGORITHMS if algo != "ppd"])
def test_every_algorithm_takes_its_strict_settings(algo):
    found = with_paper(algo, env_of(algo), {"strict": True})
    assert found.keys() <= {*known_hyperparams(algo), "n_timesteps", "vec_env_wrapper"}
    # The settings that they replace or complete
    ours = yaml.safe_load(default_config(algo).read_text())
    assert ours["MultiTaskAtari-v0" if algo.startswith("mt") else "atari"]


def pong():
    env = make_atari_env(PONG, 1, seed=0, vec_env_cls=DummyVecEnv, env_kwargs={"render_mode": None})
    return VecFrameStack(env, 4)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.zip"
    small = {"features_extractor_kwargs": {"features_dim": 8}}
    DQN("CnnPolicy", pong(), buffer_size=10, seed=0, policy_kwargs=small).save(path)
    return path


def train(zoo, folder, algo, *own):
    arguments = ("--env", PONG, "-n", 80, "--eval-freq", -1, "--seed", 0, "-f", folder, "--verbose", 0)
    zoo(folder, "train", "--algo", algo, *arguments, "-params", "strict:True", *own)
    return run_folder(folder, algo, PONG)


def test_a_strict_run_of_pd(zoo, tmp_path, teacher):
    shortened = ("train_freq:20", "learning_starts:39", "n_envs:1", "gradient_steps:2", "buffer_size:100")
    run = train(zoo, tmp_path, "pd", f"teacher:{str(teacher)!r}", "n_teacher_episodes:0", *shortened)
    model = PolicyDistillation.load(run / f"{PONG}.zip")
    assert isinstance(model.policy.optimizer, CappedRMSprop) and model._n_updates == 6
    assert model.policy.optimizer.param_groups[0]["max_rate"] == 0.01
    extractor = model.policy.q_net.features_extractor
    assert extractor.scaler.standardize is None and extractor.train_dtype == th.float32
    assert not model.policy.ortho_init
    # What resume and other readers of the run find
    config = (run / PONG / "config.yml").read_text()
    assert "sb3_distill.networks.rmsprop.CappedRMSprop" in config and "strict" not in config


def test_a_strict_run_of_rtpd(zoo, tmp_path):
    shortened = ("buffer_size:100", "learning_starts:60", "students:{'net5': 'Net5Policy'}", "eval_freq:-1")
    run = train(zoo, tmp_path, "rtpd", *shortened)
    model = RealTimeDistillDQN.load(run / f"{PONG}.zip")
    (student,) = (student for _, student in model.student_nets.each())
    for optimizer in (model.policy.optimizer, student.optimizer):
        assert isinstance(optimizer, CappedRMSprop) and optimizer.param_groups[0]["centered"]
    assert student.policy.q_net.features_extractor.train_dtype == th.float32
    assert model.exploration_rate == pytest.approx(0.1 + 0.9 * (1 - 80 / 80), abs=0.02)


def test_sb3s_wrappers_step_the_games():
    env = PythonAtari(make_atari_env(PONG, 1, seed=0, vec_env_cls=DummyVecEnv, env_kwargs={"render_mode": None}))
    python = PolicyDistillation("Net5Policy", VecFrameStack(env, 4), buffer_size=10, _init_setup_model=False)
    native = PolicyDistillation("Net5Policy", pong(), buffer_size=10, _init_setup_model=False)
    assert isinstance(python.get_env().unwrapped, DummyVecEnv)
    assert isinstance(native.get_env().unwrapped, NativeAtariVecEnv)
