"""What a teacher and a student of QPD must be."""

import warnings
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import ActorCriticTeacher, Teacher
from sb3_distill.agents.checks import check_discrete
from sb3_distill.networks.actor_critic_policies import is_known_distribution

# Why a temperature is not chosen from the teacher's answers
NO_AUTO = (
    "distributions over actions have no scale of rewards from which to choose it. Pass a number: 1 leaves a "
    "distribution as it is; Q-values are divided by it."
)


# Those of which an agent can teach actions of some kind
TEACHER_ALGORITHMS = ("sac", "tqc", "crossq", "td3", "ddpg", "ppo", "trpo", "a2c", "ars")


def teacher_algorithms(action_space: spaces.Space) -> tuple[str, ...]:
    """
    :param action_space: the environment's actions
    :return: the algorithms among whose agents a teacher is searched, in the order of preference where no scores are
        recorded
    """
    return ("ppo", "a2c", "trpo") if isinstance(action_space, spaces.Discrete) else TEACHER_ALGORITHMS


def check_kind(teacher: Teacher, env: VecEnv) -> None:
    """
    :param teacher: the teacher
    :param env: the student's environment
    :raises ValueError: its actions are not of the environment's kind, or its answers are of a kind that no loss
        compares
    """
    if type(teacher.action_space) is not type(env.action_space):
        raise ValueError(
            f"The teacher {teacher.source} has the action space {teacher.action_space}, but the environment has "
            f"{env.action_space}: choose a teacher with actions of the same kind."
        )
    if isinstance(env.action_space, spaces.Discrete):
        check_discrete(teacher, env)
    elif teacher.action_space.shape != env.action_space.shape:
        raise ValueError(
            f"The teacher {teacher.source} has the action space {teacher.action_space}, but the environment has "
            f"{env.action_space}: they must have the same shape."
        )
    if isinstance(teacher, ActorCriticTeacher) and not is_known_distribution(teacher.policy.action_dist):
        raise ValueError(
            f"The teacher {teacher.source} draws actions from a {type(teacher.policy.action_dist).__name__}; "
            "distillation supports only categorical and diagonal Gaussian distributions: train the teacher with "
            "Discrete or Box actions."
        )


def check_temperature(teacher: Teacher, temperature: float | None) -> None:
    """
    :param teacher: the teacher
    :param temperature: see ``QPD``
    :raises ValueError: it is not named, and the teacher has Q-values, which are a distribution at a temperature alone
    """
    if temperature is None and isinstance(teacher.action_space, spaces.Discrete) and not teacher.has_distribution:
        raise ValueError(
            f"The teacher {teacher.source} is a {teacher.algo} agent, whose Q-values become a distribution over "
            "actions at a temperature: pass temperature=, such as 0.1. The gap between its two best actions is the "
            "scale (docs/pd.md, The temperature)."
        )


def compares_distributions(teacher: Teacher, policy: Any) -> bool:
    """
    :param teacher: the teacher
    :param policy: the student's policy
    :return: whether both have distributions between which there is a divergence; else they meet as actions
    """
    if isinstance(teacher.action_space, spaces.Discrete):
        return True
    return teacher.has_distribution and teacher.policy.squash_output == policy.squash_output


def check_entropy(teacher: Teacher, policy: Any, ent_coef: float) -> None:
    """
    :param teacher: the teacher
    :param policy: the student's policy
    :param ent_coef: see ``QPD``
    :raises ValueError: a wide distribution would be rewarded, and nothing would hold it
    """
    if ent_coef > 0 and not compares_distributions(teacher, policy):
        raise ValueError(
            f"ent_coef={ent_coef:g} rewards a wide distribution over actions, but this teacher ({teacher.algo}) and "
            "this student meet as actions, which hold no distribution: leave ent_coef at 0."
        )


def warn_of_missing_critic(teacher: Teacher) -> None:
    """
    Say that the student's critic learns nothing, where its teacher has none.

    :param teacher: the teacher
    """
    if not teacher.has_critic:
        warnings.warn(
            f"The teacher {teacher.source} has no critic, so the critic's part of the loss is left out and the "
            "student's critic learns nothing. It is not needed to act; value_coef=0 leaves it out without this warning."
        )


def check_policy_kwargs(policy_kwargs: Mapping[str, Any], action_space: spaces.Space) -> None:
    """
    :param policy_kwargs: arguments of the student's policy
    :param action_space: its actions
    :raises ValueError: it is to explore with gSDE, or to squash actions that are not continuous
    """
    if policy_kwargs.get("use_sde"):
        raise ValueError(
            "policy_kwargs: use_sde=True is not supported, students of QPD have a Gaussian whose deviation depends "
            "on no observation: leave it out."
        )
    if policy_kwargs.get("squash_output") and not isinstance(action_space, spaces.Box):
        raise ValueError(
            f"policy_kwargs: squash_output=True needs continuous actions, not {action_space}: leave it out."
        )


def check_coefficients(**coefficients: float) -> None:
    """
    :param coefficients: coefficients of terms of the loss, by name
    :raises ValueError: one is below 0, or no number
    """
    for name, value in coefficients.items():
        if not value >= 0:
            raise ValueError(f"{name} is a coefficient and must be at least 0, not {value!r}.")


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


def check_new_bits(bits: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """
    :param bits: numbers of bits of a student that is loaded
    :param changed: those that it is to have instead
    :raises ValueError: the student is quantized already
    """
    if changed and bits["weight_bits"] is not None:
        own = ", ".join(f"{name}={value}" for name, value in bits.items())
        raise ValueError(
            f"This student is quantized already ({own}), so {', '.join(changed)} cannot change: load a student at full "
            "precision with other bits, or distill a new one."
        )
