"""What a teacher of QPD must be."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import ActorCriticTeacher
from sb3_distill.agents.checks import check_discrete
from sb3_distill.networks.actor_critic_policies import is_known_distribution

# Why a temperature is not chosen from the teacher's answers
NO_AUTO = (
    "the teachers of QPD answer with distributions over actions, which have no scale of rewards. Pass a number: 1 "
    "leaves the distributions as they are."
)


def check_actor_critic(teacher: Any, env: VecEnv) -> None:
    """
    :param teacher: the teacher
    :param env: the student's environment
    :raises ValueError: it is no actor-critic agent with actions of the environment's kind and a distribution over them
        that can be distilled
    """
    if not isinstance(teacher, ActorCriticTeacher):
        raise ValueError(
            f"The teacher {teacher.source} is a {teacher.algo} agent, which has no distribution over actions and "
            "no critic: distill it with PolicyDistillation (--algo pd)."
        )
    if not teacher.has_critic:
        raise ValueError(
            f"The teacher {teacher.source} has no value_net, so its critic cannot be distilled: pass the whole "
            "agent, as SB3 saves it."
        )
    if isinstance(env.action_space, spaces.Discrete):
        check_discrete(teacher, env)
    elif teacher.action_space.shape != env.action_space.shape:
        raise ValueError(
            f"The teacher {teacher.source} has the action space {teacher.action_space}, but the environment has "
            f"{env.action_space}: they must have the same shape."
        )
    distribution = teacher.policy.action_dist
    if not is_known_distribution(distribution):
        raise ValueError(
            f"The teacher {teacher.source} draws actions from a squashed {type(distribution).__name__}; "
            "distillation supports only categorical and diagonal Gaussian distributions. Train the teacher without "
            "squash_output."
        )


def check_compile(weight_bits: Any, compile_update: bool | None) -> None:
    """
    :param weight_bits: see ``QPD``
    :param compile_update: see ``QPD``
    :raises ValueError: a student with few bits is to be compiled
    """
    if weight_bits is not None and compile_update:
        raise ValueError(
            "compile_update=True does not go with weight_bits, because the precision changes during training: leave "
            "one of them out."
        )
