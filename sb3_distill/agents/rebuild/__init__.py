"""Rebuilds SB3's policies from their weights: the shapes of the tensors give the architecture."""

from collections.abc import Callable
from typing import Any

from gymnasium import spaces

from sb3_distill.agents.rebuild.actor_critic import build_actor_critic
from sb3_distill.agents.rebuild.ars import build_ars
from sb3_distill.agents.rebuild.dqn import build_dqn
from sb3_distill.agents.rebuild.maskable import build_maskable
from sb3_distill.agents.rebuild.off_policy import build_crossq, build_sac, build_td3, build_tqc
from sb3_distill.agents.rebuild.qrdqn import build_qrdqn
from sb3_distill.agents.rebuild.recurrent import build_recurrent
from sb3_distill.agents.rebuild.students import build_actor_critic_student, build_student
from sb3_distill.agents.rebuild.weights import Weights

BUILDERS: dict[str, Callable[[Weights, spaces.Space, spaces.Space, dict[str, Any]], Any]] = {
    "dqn": build_dqn,
    "qrdqn": build_qrdqn,
    "ppo": build_actor_critic,
    "a2c": build_actor_critic,
    "trpo": build_actor_critic,
    "ppo_lstm": build_recurrent,
    "ppo_mask": build_maskable,
    "sac": build_sac,
    "tqc": build_tqc,
    "crossq": build_crossq,
    "td3": build_td3,
    "ddpg": build_td3,
    "ars": build_ars,
    "pd": build_student,
    "qpd": build_actor_critic_student,
    "ppd": build_actor_critic_student,
}
