"""Small students of PPD that several test files make."""

from typing import Any

from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import ProximalPolicyDistillation

KWARGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 32,
    "n_epochs": 2,
    "n_teacher_episodes": 0,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}},
}


def make(
    teacher: Any, env: Any = "CartPole-v1", policy: str = "MlpPolicy", **kwargs: Any
) -> ProximalPolicyDistillation:
    """A student with one hidden layer in two environments, which has learned nothing yet."""
    env = make_vec_env(env, 2, seed=0) if isinstance(env, str) else env
    return ProximalPolicyDistillation(policy, env, teacher, **{**KWARGS, **kwargs})
