"""Rebuilds SB3's policies from their weights: the shapes of the tensors give the architecture."""

from collections.abc import Callable
from typing import Any

from gymnasium import spaces

from sb3_distill.agents.rebuild.actor_critic import build_actor_critic
from sb3_distill.agents.rebuild.dqn import build_dqn
from sb3_distill.agents.rebuild.qrdqn import build_qrdqn
from sb3_distill.agents.rebuild.students import build_actor_critic_student, build_student
from sb3_distill.agents.rebuild.weights import Weights

BUILDERS: dict[str, Callable[[Weights, spaces.Space, spaces.Space, dict[str, Any]], Any]] = {
    "dqn": build_dqn,
    "qrdqn": build_qrdqn,
    "ppo": build_actor_critic,
    "a2c": build_actor_critic,
    "trpo": build_actor_critic,
    "pd": build_student,
    "qpd": build_actor_critic_student,
}
