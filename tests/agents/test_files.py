"""What belongs to an agent is known by what is in its folder, under every name that SB3 and the Zoo give it."""

import shutil

import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import load_teacher

SMALL = {"n_steps": 16, "batch_size": 16, "device": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A run of PPO behind VecNormalize, with the checkpoints that SB3 writes of both."""
    folder = tmp_path_factory.mktemp("checkpoints")
    env = VecNormalize(make_vec_env("CartPole-v1", 1, seed=0))
    callback = CheckpointCallback(16, str(folder), name_prefix="my_run", save_vecnormalize=True)
    model = PPO("MlpPolicy", env, **SMALL).learn(32, callback=callback)
    assert (folder / "my_run_vecnormalize_16_steps.pkl").is_file()
    model.save(folder / "final")
    return folder


def mean_of(path):
    return VecNormalize.load(str(path), make_vec_env("CartPole-v1", 1)).obs_rms.mean


@pytest.mark.parametrize("steps", [16, 32])
def test_a_checkpoint_has_the_statistics_that_were_saved_with_it(checkpoints, steps):
    teacher = load_teacher(checkpoints / f"my_run_{steps}_steps.zip")
    expected = mean_of(checkpoints / f"my_run_vecnormalize_{steps}_steps.pkl")
    assert np.array_equal(teacher.normalization.mean, expected)
    # SB3 leaves the ending out too.
    assert np.array_equal(load_teacher(checkpoints / f"my_run_{steps}_steps").normalization.mean, expected)
    assert load_teacher(checkpoints / "final.zip").normalization is None


@pytest.mark.parametrize(
    "name",
    [
        "CartPole-v1/vecnormalize.pkl",
        "CartPole-v1/vec_normalize.pkl",
        "vecnormalize.pkl",
        "vec_normalize.pkl",
        "rl_model_vecnormalize_16_steps.pkl",
        # The Zoo's SaveVecNormalizeCallback with a prefix
        "rl_model_16_steps.pkl",
        "vecnormalize_16_steps.pkl",
    ],
)
def test_a_checkpoint_in_a_run_folder_finds_every_name_of_the_statistics(checkpoints, name, tmp_path):
    run = tmp_path / "ppo" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    (run / "CartPole-v1" / "config.yml").write_text("normalize: true\npolicy: MlpPolicy\n")
    shutil.copy(checkpoints / "my_run_16_steps.zip", run / "rl_model_16_steps.zip")
    shutil.copy(checkpoints / "my_run_vecnormalize_16_steps.pkl", run / name)
    # The statistics of another checkpoint are not taken.
    shutil.copy(checkpoints / "my_run_vecnormalize_32_steps.pkl", run / "rl_model_vecnormalize_32_steps.pkl")
    expected = mean_of(checkpoints / "my_run_vecnormalize_16_steps.pkl")
    assert np.array_equal(load_teacher(run / "rl_model_16_steps.zip").normalization.mean, expected)


def test_a_checkpoint_prefers_its_own_statistics_to_those_of_the_run(checkpoints, tmp_path):
    run = tmp_path / "ppo" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    shutil.copy(checkpoints / "my_run_16_steps.zip", run / "rl_model_16_steps.zip")
    shutil.copy(checkpoints / "my_run_32_steps.zip", run / "CartPole-v1.zip")
    shutil.copy(checkpoints / "my_run_vecnormalize_16_steps.pkl", run / "rl_model_vecnormalize_16_steps.pkl")
    shutil.copy(checkpoints / "my_run_vecnormalize_32_steps.pkl", run / "CartPole-v1" / "vecnormalize.pkl")
    means = [load_teacher(run / f"{name}.zip").normalization.mean for name in ("rl_model_16_steps", "CartPole-v1")]
    for steps, mean in zip((16, 32), means, strict=True):
        assert np.array_equal(mean, mean_of(checkpoints / f"my_run_vecnormalize_{steps}_steps.pkl"))
