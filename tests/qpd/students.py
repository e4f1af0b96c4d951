"""Small students of QPD that several test files make."""

from typing import Any

import pytest

from sb3_distill import QPD
from sb3_distill.quantization.layers import quantizers

BITS = {"weight_bits": 3, "activation_bits": 4, "first_layer_bits": 5, "last_layer_bits": 6}

KWARGS: dict[str, Any] = {
    "learning_starts": 64,
    "n_teacher_episodes": 0,
    # Full precision, where a test names no bits
    "weight_bits": None,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}},
}

# The warning is that weight_bits has no layer left in students this small.
SMALL_STUDENTS = pytest.mark.filterwarnings("ignore:The actor has no layer between")


def make(teacher: Any, env: Any = "CartPole-v1", policy: str = "MlpPolicy", **kwargs: Any) -> QPD:
    """A student with one hidden layer, which has learned nothing yet."""
    return QPD(policy, env, teacher, **{**KWARGS, **kwargs})


def precision_of(model: QPD) -> list[tuple[float, int, bool]]:
    """Of every quantizer: its blend, its bits, and whether its step size is learned."""
    return [(float(q.blend), int(q.bits), q.step.requires_grad) for q in quantizers(model.policy)]
