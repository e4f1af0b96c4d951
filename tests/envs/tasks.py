"""An environment of two tasks that several test files make."""

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

IDS = ["CartPole-v1", "MountainCar-v0"]
ENV_KWARGS = {"env_ids": IDS, "pad": True}


def make_env(n_envs: int = 2, **kwargs) -> VecEnv:
    return make_vec_env("MultiTask-v0", n_envs, env_kwargs={**ENV_KWARGS, **kwargs})
