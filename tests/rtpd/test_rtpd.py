"""A DQN that learns as SB3's does while students learn from it."""

import copy
import csv
import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_distill import PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.normalization import Normalization
from sb3_distill.buffers.replay import FrameReplayBuffer
from sb3_distill.networks.frozen import hash_weights
from tests.helpers import run_python, same
from tests.rtpd.students import DQN_KWARGS, SMALL, make

# --- The teacher is SB3's DQN


@pytest.mark.parametrize(
    ("ours", "dqn"),
    [
        ({"students": None}, {}),
        ({}, {}),
        ({}, {"n_steps": 3}),
        ({"teacher_source": "best", "eval_freq": 50, "n_eval_episodes": 2}, {}),
    ],
    ids=["no students", "students", "three steps", "students of the best"],
)
def test_the_teacher_is_bit_equal_to_sb3s_dqn(ours, dqn):
    reference = DQN("MlpPolicy", "CartPole-v1", **DQN_KWARGS, **dqn).learn(600)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(**ours, **dqn).learn(600)
    assert same(model.policy, reference.policy)
    assert model._n_updates == reference._n_updates > 0


@pytest.mark.parametrize(("n_channels", "n_stack", "n_envs"), [(1, 4, 1), (1, 4, 2), (3, 1, 1), (3, 4, 2)])
def test_a_teacher_of_images_is_bit_equal_with_frames_stored_once(n_channels, n_stack, n_envs):
    """Also when the memory is full, over the ends of many episodes, all by a time limit."""

    def image_env(seed):
        env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=n_channels, discrete=True)
        env.observation_space.seed(seed)
        return env

    def venv():
        env = DummyVecEnv([lambda seed=seed: image_env(seed) for seed in range(n_envs)])
        return env if n_stack == 1 else VecFrameStack(env, n_stack)

    small = {"net_arch": [16], "features_extractor_kwargs": {"features_dim": 16}}
    kwargs = {**DQN_KWARGS, "policy_kwargs": small, "buffer_size": 60, "learning_starts": 80, "train_freq": 8}
    reference = DQN("CnnPolicy", venv(), **kwargs).learn(160)
    model = RealTimeDistillDQN("CnnPolicy", venv(), students=["MlpPolicy"], eval_freq=-1, **kwargs).learn(160)
    assert model.replay_buffer.full and model._n_updates == reference._n_updates > 5
    assert type(reference.replay_buffer) is ReplayBuffer and type(model.replay_buffer) is FrameReplayBuffer
    assert same(model.policy, reference.policy)


def test_students_of_images_estimate_their_pixel_statistics():
    venv = VecFrameStack(DummyVecEnv([lambda: FakeImageEnv(n_channels=1, discrete=True)]), 4)
    model = make(policy="CnnPolicy", env=venv, students=["Net5Policy"], policy_kwargs={"net_arch": [16]}).learn(110)
    assert bool(model.player("net5").q_net.features_extractor.scaler.fitted)


# --- Who teaches


def test_students_of_the_best_wait_for_it_and_follow_it():
    model = make(teacher_source="best", eval_freq=40, n_eval_episodes=2, verbose=0)
    before = copy.deepcopy(model.player("small"))
    model.learn(140)
    assert model._n_updates == 20 and not model.evaluations
    assert same(model.player("small"), before)
    model.learn(200, reset_num_timesteps=False)
    assert len(model.evaluations) > 3
    assert not same(model.best_q_net, model.q_net)
    assert not same(model.player("small"), before)


def test_students_of_the_latest_and_the_best_share_a_run():
    students = {"latest": SMALL, "best": {**SMALL, "teacher_source": "best"}}
    kwargs = {"eval_freq": 40, "n_eval_episodes": 2}
    model = make(students=students, **kwargs).learn(340)
    assert same(model.player("latest"), make(students={"latest": SMALL}, **kwargs).learn(340).player("latest"))
    assert not same(model.player("latest"), model.player("best"))
    # Each names the network that taught it.
    hashes = {name: model.student_model(name).teacher_sha256 for name in students}
    assert hashes == {"latest": hash_weights(model.policy), "best": hash_weights(model.best_q_net)}


def test_warm_start_takes_the_weights(cartpole_teacher: Path):
    trained = DQN.load(cartpole_teacher)
    model = make(teacher=cartpole_teacher, policy_kwargs={"net_arch": [32]})
    assert same(model.q_net, trained.q_net) and same(model.q_net_target, trained.q_net)


@pytest.mark.parametrize(
    ("policy_kwargs", "message"), [({"net_arch": [16]}, "another network than policy and policy_kwargs define")]
)
def test_warm_start_needs_the_same_network(policy_kwargs, message, cartpole_teacher: Path):
    with pytest.raises(ValueError, match=message):
        make(teacher=cartpole_teacher, policy_kwargs=policy_kwargs)


def test_warm_start_is_from_a_dqn():
    ppo = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match=r"\(ppo\) is no DQN; real-time distillation goes on with a DQN"):
        make(teacher=ppo)


def test_warm_start_is_from_a_teacher_that_fits():
    trained = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [32]}, device="cpu")
    other = load_teacher(trained, env_id="CartPole-v2")
    with pytest.raises(ValueError, match=r"was trained on CartPole-v2.*allow_env_mismatch=True"):
        make(teacher=other)
    make(teacher=other, allow_env_mismatch=True)
    normalized = load_teacher(trained)
    normalization = Normalization(np.zeros(4), np.ones(4), 1e-8, 10.0)
    normalized.facts = dataclasses.replace(normalized.facts, normalization=normalization)
    with pytest.raises(ValueError, match="trained behind VecNormalize"):
        make(teacher=normalized)


# --- Saving, resuming, acting


def test_save_load_and_resume(tmp_path: Path):
    straight = make().learn(400)
    first = make().learn(200)
    first.save(tmp_path / "model")
    first.save_replay_buffer(tmp_path / "replay")
    loaded = RealTimeDistillDQN.load(tmp_path / "model", env=make_vec_env("CartPole-v1"), device="cpu")
    assert same(loaded.policy, first.policy) and same(loaded.student_nets, first.student_nets)
    for name in first.students:
        states = [model.student_nets[name].optimizer.state_dict()["state"] for model in (first, loaded)]
        assert all(th.equal(states[0][key]["exp_avg"], states[1][key]["exp_avg"]) for key in states[0])
    loaded.load_replay_buffer(tmp_path / "replay")
    loaded.learn(200, reset_num_timesteps=False)
    assert loaded.num_timesteps == straight.num_timesteps and loaded._n_updates > first._n_updates
    assert not same(loaded.student_nets, first.student_nets)


def test_act_with_chooses_the_player(tmp_path: Path):
    model = make().learn(300)
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model.save(tmp_path / "model")
    for name in ("teacher", *model.students):
        loaded = RealTimeDistillDQN.load(tmp_path / "model", act_with=name)
        expected = model.player(name).predict(obs, deterministic=True)[0]
        assert np.array_equal(loaded.predict(obs, deterministic=True)[0], expected)
        assert np.array_equal(loaded.predict(obs[0], deterministic=True)[0], expected[0])
    with pytest.raises(ValueError, match=r"Unknown act_with 'smal'.*teacher, small, other.*Did you mean 'small'"):
        RealTimeDistillDQN.load(tmp_path / "model", act_with="smal")


def test_act_with_a_student_does_not_change_who_collects():
    assert same(make(act_with="small").learn(300).policy, make().learn(300).policy)


def test_students_are_written_as_pd_zips(tmp_path: Path):
    model = make().learn(300)
    path = tmp_path / "small.zip"
    model.student_model("small").save(path)
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    expected = model.player("small").predict(obs, deterministic=True)[0]
    assert np.array_equal(PolicyDistillation.load(path).predict(obs, deterministic=True)[0], expected)
    teacher = load_teacher(path)
    assert teacher.algo == "pd" and np.array_equal(teacher.predict(obs)[0], expected)


@pytest.mark.parametrize("name", ["learn", "prepare", "each", "update_targets"])
def test_students_may_be_called_like_methods_of_ours(name, tmp_path):
    model = make(students={name: SMALL}).learn(200)
    model.save(tmp_path / "model")
    assert same(RealTimeDistillDQN.load(tmp_path / "model").player(name), model.player(name))


def test_an_agent_that_started_from_another_is_no_student(tmp_path):
    make().save(tmp_path / "first")
    model = make(teacher=tmp_path / "first.zip").learn(100)
    model.save(tmp_path / "second")
    facts = load_teacher(tmp_path / "second.zip").facts
    assert (facts.algo, facts.taught_by) == ("dqn", None) and model.taught_by == str(tmp_path / "first.zip")


def test_a_student_model_goes_on_as_a_student():
    """Out of one run, distilled further by another teacher, and into the next run."""
    student = make().learn(200).student_model("small")
    model = make(students={"again": student})
    assert same(model.player("again"), student.policy)


def test_writing_a_student_changes_nothing():
    straight = make().learn(200).learn(100, reset_num_timesteps=False)
    interrupted = make().learn(200)
    interrupted.student_model("small")
    interrupted.learn(100, reset_num_timesteps=False)
    assert same(straight.policy, interrupted.policy) and same(straight.student_nets, interrupted.student_nets)


def test_progress_bar_tells_of_updates():
    model = make(train_freq=100, gradient_steps=200)
    shown = []
    model.learn(300, progress_bar=True, callback=lambda *_: shown.append(model._progress_bar.pbar.desc) or True)
    assert "update 200 of 200" in shown


def test_an_agent_that_learns_alone_is_no_student(tmp_path: Path):
    kwargs = {"features_extractor_kwargs": {"channels": (8, 8, 8), "features_dim": 16, "pool": "max"}}
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", 1), 4)
    with pytest.warns(UserWarning, match="There are no students"):
        model = RealTimeDistillDQN(
            "StudentCnnPolicy", env, buffer_size=50, learning_starts=8, policy_kwargs=kwargs, seed=0, device="cpu"
        ).learn(20)
    model.save(tmp_path / "model")
    agent = load_teacher(tmp_path / "model.zip", device="cpu")
    assert agent.algo == "dqn" and agent.facts.taught_by is None
    # 4x8x8x8 + 8, 8x8x4x4 + 8, 8x8x3x3 + 8, 8x16 + 16, 16x6 + 6
    assert agent.n_parameters == 2056 + 1032 + 584 + 144 + 102
    obs = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84)).astype(np.uint8)
    assert np.array_equal(agent.predict(obs)[0], model.predict(obs, deterministic=True)[0])


# --- Bad input


IMAGE_STUDENT = {"policy": "Net1Policy"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"students": {}}, "students is empty: name at least one"),
        ({"students": "Net1Policy"}, "students must be a dictionary from names to policies"),
        ({"students": ["MlpPolicy", "MlpPolicy"]}, "names 'MlpPolicy' twice"),
        ({"students": {"teacher": SMALL}}, "'teacher' cannot be the name of a student"),
        ({"students": {"a.b": SMALL}}, "'a.b' cannot be the name of a student"),
        ({"students": {"keys": SMALL}}, "'keys' cannot be the name of a student"),
        ({"students": {"a": "MlpPolcy"}}, r"students\['a'\]: Unknown policy 'MlpPolcy'.*Did you mean 'MlpPolicy'"),
        ({"students": {"a": {"policy": "MlpPolicy", "temprature": 1}}}, "Unknown entry 'temprature'.*'temperature'"),
        ({"students": {"a": {"temperature": 1.0}}}, "Unknown policy None"),
        ({"students": {"a": IMAGE_STUDENT}}, r"students\['a'\]: A CNN student needs channels-first images"),
        ({"students": {"a": {**SMALL, "temperature": 0.0}}}, r"students\['a'\]: temperature must be a positive"),
        (
            {"students": {"a": {**SMALL, "learning_rate": "cos_1"}}},
            r"students\['a'\]: learning_rate must be a positive number",
        ),
        ({"students": {"a": {**SMALL, "learning_rate": 0.0}}}, "learning_rate must be a positive number"),
        ({"temperature": -1.0}, "temperature must be a positive finite number"),
        ({"loss": "kll"}, "Unknown loss 'kll'.*Did you mean 'kl'"),
        ({"self_learning": -1.0}, "self_learning is a coefficient"),
        ({"self_learning": "1"}, "self_learning is a coefficient"),
        ({"self_learning": float("inf")}, "self_learning is a coefficient"),
        ({"students": [SMALL, SMALL]}, "name this student in a dictionary"),
        ({"students": {"a": {**SMALL, "policy_kwargs": {"width": 3}}}}, r"students\['a'\]: .*'width'"),
        ({"students": None, "teacher_source": "bests"}, "Unknown teacher_source 'bests'"),
        ({"students": None, "temperature": 0.0}, "temperature must be a positive finite number"),
        ({"n_eval_episodes": -3}, "n_eval_episodes must be a whole number, at least 0"),
        ({"n_eval_episodes": "few"}, "n_eval_episodes must be a whole number, at least 0.*not 'few'"),
        ({"n_eval_episodes": 2.5}, "n_eval_episodes must be a whole number.*not 2.5"),
        ({"teacher_source": "bests"}, "Unknown teacher_source 'bests'.*latest, best.*Did you mean 'best'"),
        ({"teacher_source": "best", "eval_freq": -1}, "eval_freq=-1 and n_eval_episodes=30 evaluate nothing"),
        ({"teacher_source": "best", "n_eval_episodes": 0}, "evaluate nothing"),
        ({"eval_eps": 1.5}, r"eval_eps is a probability and must lie in \[0, 1\]"),
        ({"act_with": "big"}, "Unknown act_with 'big'"),
        ({"policy": "Net1Policy"}, "Unknown policy 'Net1Policy': choose one of MlpPolicy, CnnPolicy"),
        ({"env": "Pendulum-v1"}, "Discrete"),
    ],
)
def test_bad_input_is_refused_at_construction(kwargs, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        make(**{"eval_freq": 100, **kwargs})


def test_students_of_other_spaces_are_refused(cartpole_teacher: Path):
    student = PolicyDistillation("MlpPolicy", "CartPole-v1", teacher=cartpole_teacher)
    with pytest.raises(ValueError, match="student 'a' differ in their observations: the shape"):
        make(env="Acrobot-v1", students={"a": student})
    student.action_space = spaces.Discrete(3)
    with pytest.raises(ValueError, match=r"differ in their actions: Discrete\(2\) against Discrete\(3\)"):
        make(students={"a": student})


# --- The Zoo


@pytest.mark.ci
def test_zoo_trains_resumes_and_enjoys_students(zoo, tmp_path: Path):
    game = ["--env", "CartPole-v1", "-f"]
    train = ["--algo", "rtpd", *game, "logs", "-n", "1500", "--eval-freq", "-1", "--seed", "0"]
    params = ["-params", "eval_freq:250", "n_eval_episodes:2"]
    result = run_python(tmp_path, "-m", "rl_zoo3.train", *train, *params)
    run = tmp_path / "logs/rtpd/CartPole-v1_1"
    assert "mean of last" in result.stdout
    assert (run / "learning_curves.png").is_file()
    for name in ("large", "medium", "small"):
        zoo(tmp_path, "enjoy", "--algo", "pd", *game, run / "students" / name, "-n", 20, "--no-render")
    zoo(tmp_path, "enjoy", "--algo", "rtpd", *game, "logs", "-n", 20, "--no-render")
    zoo(tmp_path, "train", *train, "-i", run / "CartPole-v1.zip", *params)
    with (tmp_path / "logs/rtpd/CartPole-v1_2/learning_curves.csv").open() as file:
        updates = [int(row["n_updates"]) for row in csv.DictReader(file)]
    with (run / "learning_curves.csv").open() as file:
        assert updates[-1] > int(list(csv.DictReader(file))[-1]["n_updates"])
