"""Small students of QPD that several test files make."""

from typing import Any

from sb3_distill import QPD

BITS = {"weight_bits": 3, "activation_bits": 4, "first_layer_bits": 5, "last_layer_bits": 6}
KWARGS: dict[str, Any] = {
    "learning_starts": 64,
    "n_teacher_episodes": 0,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}},
}


def make(teacher: Any, env: Any = "CartPole-v1", policy: str = "MlpPolicy", **kwargs: Any) -> QPD:
    """A student with one hidden layer, which has learned nothing yet."""
    return QPD(policy, env, teacher, **{**KWARGS, **kwargs})
