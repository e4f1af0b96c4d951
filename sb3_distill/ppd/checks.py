"""What a teacher of PPD must be."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.checks import check_actions
from sb3_distill.common.utils import counted, setting
from sb3_distill.quantization.precision import share_at

# Why a temperature is not chosen from the teacher's answers
NO_AUTO = (
    "the student meets its teacher's answers while it plays. Pass a number: 1 leaves distributions as they are; for "
    "Q-values it should be near the differences between actions (see docs/ppd.md)."
)

# What agents need that are not searched but can be named
OTHER_TEACHERS = (
    "Agents with Q-values can be named with a temperature; those that squash their actions (SAC, TQC, CrossQ) need a "
    "student that does, policy_kwargs=dict(squash_output=True), and others one that does not."
)

# Algorithms whose agents do not squash their actions, and those that do
_PLAIN, _SQUASHING = ("ppo", "a2c", "trpo"), ("sac", "tqc", "crossq")


def teacher_algorithms(action_space: spaces.Space | None, squashes: bool | None) -> tuple[str, ...]:
    """
    :param action_space: the environment's actions; None: not known
    :param squashes: whether the student squashes its actions; None: not known
    :return: see ``TeacherMixin``
    """
    if squashes is None and not isinstance(action_space, spaces.Discrete):
        return _PLAIN + _SQUASHING
    return _SQUASHING if squashes else _PLAIN


def check_divergence(teacher: Teacher, env: VecEnv, policy: Any) -> None:
    """
    :param teacher: the teacher
    :param env: the student's environment
    :param policy: the student's policy
    :raises ValueError: there is no divergence between what the two answer
    """
    check_actions(teacher, env)
    if isinstance(env.action_space, spaces.Discrete):
        return
    who = f"The teacher {teacher.source} ({teacher.algo})"
    if not teacher.has_distribution:
        raise ValueError(
            f"{who} answers with an action and no distribution: there is no divergence between it and the student. "
            "Take a teacher of PPO, A2C, TRPO, SAC, TQC or CrossQ; or QPD (--algo qpd), which compares actions."
        )
    if teacher.policy.squash_output != policy.squash_output:
        its, own = ("squashes", "does not") if teacher.policy.squash_output else ("does not squash", "does")
        raise ValueError(
            f"{who} {its} its actions, but the student {own}: there is no divergence between their distributions. "
            f"Pass {setting('policy_kwargs', f'dict(squash_output={not policy.squash_output})')}, with all that "
            "policy_kwargs has to say besides, such as net_arch; or take QPD (--algo qpd), which compares actions."
        )


def check_length(
    total_timesteps: int, n_steps: int, full_precision_fraction: float, final_fraction: float, start: int = 0
) -> None:
    """
    :param total_timesteps: steps of a run whose student gets few bits
    :param n_steps: steps of a rollout, of all environments together
    :param full_precision_fraction: see ``ProximalPolicyDistillation``
    :param final_fraction: see ``ProximalPolicyDistillation``
    :param start: steps before the run
    :raises ValueError: the last rollout would begin before the student has its final precision
    """
    n_before = max(-(-total_timesteps // n_steps) - 1, 0)
    remaining = 1.0 - (start + n_before * n_steps) / (start + total_timesteps)
    if n_before == 0 or share_at(1.0 - remaining, full_precision_fraction, final_fraction) < 1.0:
        raise ValueError(
            f"total_timesteps={total_timesteps} makes {counted(n_before + 1, 'rollout')} of n_steps * n_envs = "
            f"{n_steps} steps, too few for the student to learn at its final precision: learn for longer, or lower "
            "n_steps."
        )
