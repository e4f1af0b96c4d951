"""Small students of several tasks that several test files make."""

from stable_baselines3.common.vec_env import VecEnv

from sb3_distill import MultiTaskDistillation
from tests.envs.tasks import make_env

KWARGS = {
    "learning_starts": 100,
    "buffer_size": 1_000,
    "n_eval_episodes": 0,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"trunk_arch": [16], "net_arch": [8]},
}


def make(teachers, env: VecEnv | None = None, **kwargs) -> MultiTaskDistillation:
    env = make_env() if env is None else env
    return MultiTaskDistillation("MultiTaskMlpPolicy", env, teachers, **{**KWARGS, **kwargs})
