"""What a teacher and a student of QPD must be."""

import numbers
import warnings
from typing import Any

from gymnasium import spaces

from sb3_distill.agents.agent import Teacher

# Why a temperature is not chosen from the teacher's answers
NO_AUTO = (
    "distributions over actions have no scale of rewards from which to choose it. Pass a number: 1 leaves a "
    "distribution as it is; Q-values are divided by it."
)

# Algorithms whose agents can be found as teachers: of discrete actions, and of continuous ones or any
DISCRETE_TEACHERS = ("ppo", "a2c", "trpo")
TEACHERS = ("sac", "tqc", "crossq", "td3", "ddpg", "ppo", "trpo", "a2c", "ars")
# What agents need that are not searched but can be named
OTHER_TEACHERS = "Agents with Q-values can be named with a temperature, or take --algo pd (PolicyDistillation)."


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


def check_coefficients(**coefficients: float) -> None:
    """
    :param coefficients: coefficients of terms of the loss, by name
    :raises ValueError: one is below 0, or no number
    """
    for name, value in coefficients.items():
        if not isinstance(value, numbers.Real) or not value >= 0:
            raise ValueError(f"{name} is a coefficient and must be at least 0, not {value!r}.")


def check_compile(weight_bits: Any, compile_update: bool | None) -> None:
    """
    :param weight_bits: see ``QPD``
    :param compile_update: see ``QPD``
    :raises ValueError: a student with few bits is to be compiled
    """
    if weight_bits is not None and compile_update:
        raise ValueError(
            f"compile_update=True does not go with weight_bits={weight_bits}, because the precision changes during "
            "training: leave it out, or set weight_bits to None for full precision."
        )


def check_updates(learning_starts: int, total_timesteps: int, start: int = 0) -> None:
    """
    :param learning_starts: steps before the first update
    :param total_timesteps: steps of a run whose student gets few bits
    :param start: steps before it
    :raises ValueError: the run has no update
    """
    if start + total_timesteps <= learning_starts:
        raise ValueError(
            f"learning_starts={learning_starts} leaves no update in {total_timesteps} timesteps, so that the student "
            "never reaches its final precision: lower learning_starts, learn for longer, or set weight_bits and "
            "activation_bits to None for full precision."
        )
