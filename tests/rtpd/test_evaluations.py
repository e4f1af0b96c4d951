"""Teacher and students are scored while they learn, and what is written meanwhile."""

import csv
from collections import OrderedDict
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.config import read_keywords, read_yaml
from tests.helpers import preferences, same
from tests.rtpd.students import SMALL, make


def test_evaluations_are_paired_logged_and_written(tmp_path: Path):
    model = make(eval_freq=40, n_eval_episodes=3, results_dir=str(tmp_path)).learn(400)
    players = ["teacher", "small", "other"]
    assert [entry["player"] for entry in model.evaluations[:3]] == players
    assert [entry["n_updates"] for entry in model.evaluations] == sorted(
        entry["n_updates"] for entry in model.evaluations
    )
    assert len(model.evaluations) == 3 * (model._n_updates // 40)
    with (tmp_path / "learning_curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean_reward"]) for row in rows] == [entry["mean_reward"] for entry in model.evaluations]
    assert all(float(row["min_reward"]) <= float(row["mean_reward"]) <= float(row["max_reward"]) for row in rows)
    assert (tmp_path / "learning_curves.png").read_bytes()[:4] == b"\x89PNG"
    student = load_teacher(tmp_path / "students/small/pd/CartPole-v1_1")
    assert student.algo == "pd" and student.env_id == "CartPole-v1"


def test_what_temperatures_make_of_the_teachers_values_now(capsys):
    """They grow while the teacher learns, so it is said at every evaluation."""
    students = {"sharp": SMALL, "flat": {**SMALL, "temperature": 2.0}, "none": {**SMALL, "loss": "mse"}}
    model = make(students=students, eval_freq=40, n_eval_episodes=1, verbose=1).learn(300)
    lines = [line for line in capsys.readouterr().out.splitlines() if "its two best actions differ" in line]
    assert len(lines) == len(set(lines)) == len(model.evaluations) / 4 > 1
    assert all("Temperature 0.1 gives" in line and line.count("gives the best action") == 2 for line in lines)
    assert same(model.student_nets, make(students=students, eval_freq=40, n_eval_episodes=1).learn(300).student_nets)
    make(students={"none": {**SMALL, "loss": "mse"}}, eval_freq=40, n_eval_episodes=1, verbose=1).learn(200)
    assert "its two best actions" not in capsys.readouterr().out


def test_evaluations_use_the_runs_normalisation(tmp_path: Path):
    env = VecNormalize(make_vec_env("CartPole-v1", n_envs=2, monitor_dir=str(tmp_path)), norm_reward=False)
    model = make(env=env, eval_freq=40, n_eval_episodes=2).learn(300)
    assert model.evaluations and (tmp_path / "learning_curves.csv").is_file()
    student = load_teacher(tmp_path / "students/small/pd/CartPole-v1_1")
    assert np.array_equal(student.normalization.mean, env.obs_rms.mean)


def in_other_processes(folder: Path) -> SubprocVecEnv:
    kwargs = {"vec_env_cls": SubprocVecEnv, "vec_env_kwargs": {"start_method": "fork"}}
    return make_vec_env("CartPole-v1", 2, monitor_dir=str(folder), **kwargs)


def test_environments_in_other_processes(tmp_path: Path):
    env = in_other_processes(tmp_path)
    model = make(env=env, eval_freq=40, n_eval_episodes=2, results_dir=str(tmp_path / "results")).learn(300)
    env.close()
    assert model.evaluations and (tmp_path / "results" / "learning_curves.csv").is_file()


def test_students_are_written_without_evaluations_and_when_stopped(tmp_path: Path):
    make(eval_freq=-1, results_dir=str(tmp_path / "never")).learn(200)
    assert load_teacher(tmp_path / "never/students/small/pd/CartPole-v1_1").algo == "pd"
    assert not (tmp_path / "never" / "learning_curves.csv").exists()
    model = make(eval_freq=40, n_eval_episodes=1, results_dir=str(tmp_path / "stopped"))

    def stop(variables, _):
        if model.evaluations:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        model.learn(400, callback=stop)
    assert (tmp_path / "stopped" / "learning_curves.png").is_file()
    assert load_teacher(tmp_path / "stopped/students/other/pd/CartPole-v1_1").algo == "pd"


def test_environments_that_hide_their_folder_are_said(tmp_path: Path):
    env = in_other_processes(tmp_path)
    with pytest.warns(UserWarning, match="only to a folder that is named: pass results_dir="):
        make(env=env).learn(50)
    env.close()


# --- Bad input


def test_evaluations_need_a_registered_environment():
    env = DummyVecEnv([lambda: FakeImageEnv(discrete=True)])
    with pytest.raises(ValueError, match=r"no registered id.*eval_freq=-1"):
        make(policy="CnnPolicy", env=env, students=["Net5Policy"], eval_freq=10, policy_kwargs={}).learn(10)


def test_wrappers_that_the_id_does_not_tell_are_refused():
    env = gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"differs from a fresh CartPole-v1.*eval_freq=-1"):
        make(env=env, eval_freq=10).learn(10)


def test_wrappers_that_evaluations_leave_out_are_named():
    env = gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: 0.1 * reward)
    with pytest.warns(UserWarning, match="fresh CartPole-v1, without the training environment's TransformReward"):
        make(env=env, eval_freq=100).learn(10)


def test_students_are_read_with_their_own_policy(tmp_path: Path):
    """Their folders lie in that of a teacher with other policy arguments."""
    (tmp_path / "CartPole-v1").mkdir()
    config = OrderedDict(policy="MlpPolicy", normalize=False, policy_kwargs="dict(activation_fn=nn.Tanh, net_arch=[5])")
    # As the Zoo writes it
    (tmp_path / "CartPole-v1" / "config.yml").write_text(yaml.dump(config))
    students = {
        "default": "MlpPolicy",
        "elu": {"policy": "MlpPolicy", "policy_kwargs": {"activation_fn": th.nn.ELU, "net_arch": [7]}},
        "sigmoid": {"policy": "MlpPolicy", "policy_kwargs": {"activation_fn": th.nn.Sigmoid, "net_arch": []}},
    }
    teacher = {"activation_fn": th.nn.Tanh, "net_arch": [5]}
    model = make(students=students, policy_kwargs=teacher, results_dir=str(tmp_path)).learn(200)
    obs = th.randn(64, 4)
    for name in students:
        folder = tmp_path / "students" / name / "pd" / "CartPole-v1_1"
        student = load_teacher(folder, device="cpu")
        with th.no_grad():
            expected = preferences(model.player(name), obs)
        assert th.allclose(preferences(student, obs), expected, atol=1e-6)
        own = read_yaml(folder / "CartPole-v1" / "config.yml")
        assert (own["policy"], own["normalize"]) == ("MlpPolicy", False)
        keywords = read_keywords(own["policy_kwargs"])
        assert keywords.get("net_arch") == {"default": None, "elu": [7], "sigmoid": []}[name]


class PartsOfCartPole(gym.ObservationWrapper):
    """CartPole with Dict observations."""

    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))
        part = gym.spaces.Box(-10, 10, (2,), np.float32)
        self.observation_space = gym.spaces.Dict({"cart": part, "pole": part})

    def observation(self, observation):
        return {"cart": observation[:2], "pole": observation[2:]}


def test_students_of_normalised_dict_observations_are_written(tmp_path: Path):
    env = VecNormalize(DummyVecEnv([PartsOfCartPole]))
    model = make(
        policy="MultiInputPolicy", env=env, students=["MultiInputPolicy"], policy_kwargs={}, results_dir=str(tmp_path)
    ).learn(150)
    path = next(tmp_path.glob("students/multiinput/pd/*/*.zip"))
    student = PolicyDistillation.load(path, device="cpu")
    assert model._n_updates > 0 and same(student.policy, model.player("multiinput"))

    agent, raw = load_teacher(path, device="cpu"), {"cart": np.ones((1, 2)), "pole": np.full((1, 2), -0.5)}
    with th.no_grad():
        obs = student.policy.obs_to_tensor(env.normalize_obs(raw))[0]
        expected = student.policy.q_net(obs)
        answers, _ = agent.answer({key: th.as_tensor(part) for key, part in raw.items()})
    assert th.allclose(answers.q_values, expected, atol=1e-6)
    assert not th.allclose(expected, student.policy.q_net({key: th.as_tensor(v).float() for key, v in raw.items()}))
