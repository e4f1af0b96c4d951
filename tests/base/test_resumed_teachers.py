"""The teacher of a run that goes on is the one with which it began, or a warning says that it is not."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import MultiTaskDistillation, PolicyDistillation, ProximalPolicyDistillation, load_teacher

ENV, TASKS = "CartPole-v1", ["CartPole-v1"]
OFF_POLICY: dict[str, Any] = {"learning_starts": 20, "buffer_size": 500, "device": "cpu", "seed": 0}


def pd(teacher: Any) -> PolicyDistillation:
    return PolicyDistillation("MlpPolicy", make_vec_env(ENV, 1), teacher, n_teacher_episodes=0, **OFF_POLICY)


def ppd(teacher: Any) -> ProximalPolicyDistillation:
    settings: dict[str, Any] = {"n_steps": 20, "batch_size": 20, "device": "cpu", "seed": 0}
    return ProximalPolicyDistillation("MlpPolicy", make_vec_env(ENV, 1), teacher, n_teacher_episodes=0, **settings)


def mtpd(teacher: Any) -> MultiTaskDistillation:
    env = make_vec_env("MultiTask-v0", 1, env_kwargs={"env_ids": TASKS})
    teachers = dict.fromkeys(TASKS, teacher)
    return MultiTaskDistillation("MultiTaskMlpPolicy", env, teachers, n_eval_episodes=0, **OFF_POLICY)


@pytest.mark.parametrize("make", [pd, ppd, mtpd])
def test_another_teacher_is_noticed(make: Callable[[Any], Any], tmp_path: Path) -> None:
    path = tmp_path / "teacher.zip"

    def put_teacher(seed: int) -> str:
        PPO("MlpPolicy", ENV, n_steps=8, batch_size=8, seed=seed, device="cpu").save(path)
        return load_teacher(path).sha256

    before = put_teacher(0)
    make(path).learn(40).save_run_state(tmp_path / "state.zip")
    model = make(path)
    model.load_run_state(tmp_path / "state.zip")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*goes on with another one")
        model.learn(20)
    after = put_teacher(1)
    model = make(path)
    model.load_run_state(tmp_path / "state.zip")
    with pytest.warns(UserWarning, match=rf"from a teacher with sha256 {before}; it goes on with another .* {after}"):
        model.learn(20)
