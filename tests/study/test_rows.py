"""Rows of one cell."""

from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv

from sb3_distill import MultiTaskDistillation
from sb3_distill.common.files import model_zip
from sb3_distill.study.cell import Cell
from sb3_distill.study.rows import multi_task_rows

GAMES = ["Left-v0", "Right-v0"]
IMAGES = {"screen_height": 36, "screen_width": 36, "n_channels": 4, "channel_first": True, "discrete": True}


@pytest.mark.parametrize(("standardize", "n_stored"), [("scalar", 0), ("frame", 36 * 36)])
def test_bytes_of_several_tasks_count_a_mean_frame(standardize, n_stored, tmp_path: Path, monkeypatch):
    for game in GAMES:
        monkeypatch.setitem(gym.registry, game, EnvSpec(game, FakeImageEnv, kwargs=IMAGES))
        kwargs = {"buffer_size": 10, "policy_kwargs": {"net_arch": [4]}, "seed": 0, "device": "cpu"}
        DQN("MlpPolicy", game, **kwargs).save(tmp_path / game)
    teachers = {game: str(tmp_path / f"{game}.zip") for game in GAMES}
    kwargs = {"features_extractor_kwargs": {"channels": (2, 2, 2), "features_dim": 4, "standardize": standardize}}
    env = gym.make("MultiTask-v0", env_ids=GAMES)
    model = MultiTaskDistillation("MultiTaskCnnPolicy", env, teachers, policy_kwargs=kwargs, device="cpu")
    model.save(model_zip(tmp_path, "MultiTask-v0"))
    evaluation = {"n_episodes": 1, "teachers": teachers}
    cell = Cell("mtpd", "MultiTask-v0", 0, evaluation=evaluation, env_kwargs={"env_ids": GAMES})
    rows = multi_task_rows(cell, tmp_path, tmp_path)
    # All scores are 0 or more: the quotient is known where the teacher's is above 0.
    assert all((row.quotient is None) == (not row.teacher_mean) for row in rows[:-1])
    assert {row.n_bytes - 4 * row.n_parameters for row in rows} == {4 * n_stored}
