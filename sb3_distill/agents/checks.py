"""Checks that a teacher fits the environment of its student."""

import warnings
from collections.abc import Iterable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_distill.agents.agent import ActorCriticTeacher, Teacher
from sb3_distill.common.finite import has_bounds
from sb3_distill.common.utils import earlier_versions, setting
from sb3_distill.envs.inspection import check_masks, describe_space_mismatch, frame_stack_of
from sb3_distill.envs.views import FLAT_VIEW, ObservationView
from sb3_distill.networks.actor_critic_policies import is_known_distribution


def check_discrete(teacher: Teacher, env: VecEnv) -> None:
    """
    Check that teacher and environment have the same ``Discrete`` action space.

    :param teacher: the loaded teacher
    :param env: the student's environment
    :raises ValueError: the action spaces differ, or are not ``Discrete``
    """
    who = f"The teacher {teacher.source}"
    if not isinstance(teacher.action_space, spaces.Discrete):
        raise ValueError(
            f"{who} has the action space {teacher.action_space}; policy distillation needs Discrete actions: use a "
            "teacher with Discrete actions, or QPD for continuous ones."
        )
    if not isinstance(env.action_space, spaces.Discrete) or env.action_space.n != teacher.action_space.n:
        raise ValueError(
            f"{who} chooses among {teacher.action_space.n} actions, but the environment's action space is "
            f"{env.action_space}: use a teacher with the same action space as the environment."
        )


def check_actions(teacher: Teacher, env: VecEnv) -> None:
    """
    Check that teacher and environment have actions of the same kind and shape, discrete or continuous.

    :param teacher: the teacher
    :param env: the student's environment
    :raises ValueError: they have not, or the teacher draws its actions from a distribution that no loss compares
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


def check_teacher(
    teacher: Teacher, env: VecEnv, env_id: str | None, allow_env_mismatch: bool, has_keys: bool = True
) -> None:
    """
    Check that a teacher was trained on observations like those of an environment, on the same environment id or an
    earlier version of it, and with the same bounds of continuous actions.

    :param teacher: the loaded teacher
    :param env: the student's environment
    :param env_id: the environment's id, None if it has none
    :param allow_env_mismatch: accept a teacher that was trained on an environment with another id, and warn where its
        actions had other bounds
    :param has_keys: whether the algorithm takes ``teacher_keys``
    :raises ValueError: the observation spaces, the environment ids or the bounds of the actions differ, or the teacher
        needs action masks that the environment does not have
    """
    who = f"The teacher {teacher.source}"
    if teacher.needs_masks:
        check_masks(env, f"{who} was trained with action masks (MaskablePPO). It")
    seen = env.teacher_space if isinstance(env, ObservationView) else env.observation_space
    problem = describe_space_mismatch(teacher.observation_space, seen)
    if problem:
        hint = _keys_hint(teacher, env, seen, has_keys)
        raise ValueError(f"{who} and the environment differ in their observations: {problem}{hint}")
    if not allow_env_mismatch:
        check_env_ids(who, teacher.env_id, "student's environment", env_id)
    mine, its = teacher.action_space, env.action_space
    if isinstance(mine, spaces.Box) and isinstance(its, spaces.Box) and not same_bounds(mine, its):
        problem = (
            f"{who} was trained with actions from {_bounds(mine)}, but those of the student's environment go from "
            f"{_bounds(its)}: the same number can be another action there."
        )
        if teacher.policy.squash_output or not teacher.has_distribution:
            raise ValueError(
                f"{problem} This teacher answers on the scale of its own bounds, so the environment must have them: "
                "wrap it in gymnasium.wrappers.RescaleAction."
            )
        if not allow_env_mismatch:
            raise ValueError(f"{problem} Pass {setting('allow_env_mismatch', 'True')} if this is intended.")
        warnings.warn(problem)


def _keys_hint(teacher: Teacher, env: VecEnv, seen: spaces.Space, has_keys: bool) -> str:
    """What to do about Dict observations that a teacher does not know; nothing for others."""
    if not isinstance(env, ObservationView) or not isinstance(whole := env.venv.observation_space, spaces.Dict):
        return ""
    keys, mine, n_stack = ", ".join(whole), teacher.observation_space, frame_stack_of(env) or 1
    has = f" The environment has the keys {keys}"
    if not isinstance(seen, spaces.Dict):
        return f"{has}, and teacher_keys={env.teacher_keys!r} names this one."
    if not isinstance(mine, spaces.Dict) or set(mine) != set(seen):
        if _sees_a_row(teacher):
            return " Pass its path, or load it with env=: it then takes the parts, and puts them in a row itself."
        if not has_keys:
            return f"{has}. Here the teacher sees all of them; pd, qpd and mtpd can show it a part."
        return f"{has}: name with teacher_keys what the teacher sees."
    if n_stack > 1 and _is_stacked(mine, whole, n_stack):
        return (
            f" VecFrameStack stacks {n_stack} of them. Of a stack, a teacher sees the newest only where it "
            "sees a single key (teacher_keys): leave out VecFrameStack, or take a teacher trained with it."
        )
    return ""


def check_masked_loss(teacher: Teacher, losses: Iterable[str]) -> None:
    """
    :param teacher: the loaded teacher
    :param losses: the losses by which students learn from it
    :raises ValueError: one of them is infinite where the teacher rules an action out
    """
    for loss in losses:
        if teacher.needs_masks and loss in ("mse", "reverse_kl"):
            raise ValueError(
                f"loss={loss!r} does not go with the teacher {teacher.source}: actions that are not allowed have a "
                "probability of 0, where this loss is infinite. Take loss='kl' or loss='nll'."
            )


def check_env_ids(who: str, trained_on: str | None, what: str, env_id: str | None) -> None:
    """
    Check that a teacher was trained on an environment, or on an earlier version of it, which is said.

    :param who: the teacher, for the message
    :param trained_on: id of the environment on which it was trained, if known
    :param what: what the student's environment is, for the message
    :param env_id: its id, None if it has none
    :raises ValueError: they are different environments, or the teacher's is the later version
    """
    if trained_on is None or env_id is None or trained_on == env_id:
        return
    if trained_on in earlier_versions(env_id):
        warnings.warn(
            f"{who} was trained on {trained_on}, an earlier version of {env_id}: it is taken, because its observations "
            "and actions fit. Compare its score here with the one that was published for the earlier version."
        )
        return
    raise ValueError(
        f"{who} was trained on {trained_on}, but the {what} is {env_id}. Pass "
        f"{setting('allow_env_mismatch', 'True')} if this is intended."
    )


def same_bounds(mine: spaces.Box, its: spaces.Box) -> bool:
    """
    :param mine: actions of an agent
    :param its: actions of an environment
    :return: whether they have the same bounds, where those of the agent are known
    """
    return not has_bounds(mine).all() or (np.allclose(mine.low, its.low) and np.allclose(mine.high, its.high))


def _sees_a_row(teacher: Teacher) -> bool:
    """Whether it is our own export for Dict observations, which was loaded without an environment."""
    recipe = teacher.facts.recipe
    return recipe is not None and any(wrapper.name == FLAT_VIEW for wrapper in recipe.vec_wrappers)


def _is_stacked(single: spaces.Dict, stacked: spaces.Dict, n_stack: int) -> bool:
    """Whether every part is as large as that of ``n_stack`` observations."""
    sizes = [{key: np.prod(part.shape) for key, part in space.items()} for space in (single, stacked)]  # type: ignore[arg-type]
    return {key: n_stack * size for key, size in sizes[0].items()} == sizes[1]


def _bounds(space: spaces.Box) -> str:
    return f"{space.low.tolist()} to {space.high.tolist()}"


def lacks_statistics(teacher: Teacher, env: VecEnv) -> bool:
    """
    :param teacher: the loaded teacher
    :param env: the student's environment
    :return: whether the environment normalises observations, while the teacher has no statistics of its own
    """
    vec_normalize = unwrap_vec_normalize(env)
    return vec_normalize is not None and vec_normalize.norm_obs and teacher.normalization is None


def warn_of_missing_statistics(teacher: Teacher, env: VecEnv) -> None:
    """
    Say that a teacher is asked about raw observations, in an environment that normalises them for the student.

    :param teacher: the loaded teacher
    :param env: the student's environment
    """
    # The settings of its run say how its environments were made, and a run that normalised has statistics.
    if lacks_statistics(teacher, env) and teacher.facts.recipe is None:
        warnings.warn(
            f"The student's environment normalises observations (VecNormalize), but the teacher {teacher.source} has "
            "no statistics of its own, so it gets raw observations. That is right only if it was trained on raw "
            "observations. If it was trained behind VecNormalize, put its vecnormalize.pkl beside its zip and pass the "
            "zip; or, in Python, load the model together with its environment: PPO.load(path, "
            "env=VecNormalize.load(statistics, venv))."
        )


def check_temperature(teacher: Teacher, temperature: float | None) -> None:
    """
    :param teacher: the teacher
    :param temperature: see ``QPD``
    :raises ValueError: it is not named, and the teacher has Q-values, which are a distribution at a temperature alone
    """
    if temperature is None and isinstance(teacher.action_space, spaces.Discrete) and not teacher.has_distribution:
        raise ValueError(
            f"The teacher {teacher.source} ({teacher.algo}) answers with Q-values, which become a distribution over "
            f"actions at a temperature: pass one, such as {setting('temperature', '0.1')}. The gap between its two "
            "best actions is the scale (docs/pd.md, The temperature)."
        )
