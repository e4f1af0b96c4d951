"""What the algorithms ask of an environment, and the native counterpart of Atari environments."""

from pathlib import Path

from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecFrameStack

from sb3_distill.common.atari import NativeAtariVecEnv, native_atari
from sb3_distill.common.teachers import Teacher


def frame_channels_of(env: VecEnv) -> int:
    """
    :param env: a vector environment
    :return: planes of one frame of its images: 3 for colour, also within a ``VecFrameStack``, else 1
    """
    shape = env.observation_space.shape or ()
    while isinstance(env, VecEnvWrapper):
        if isinstance(env, VecFrameStack) and isinstance(env.observation_space, spaces.Box):
            n_planes = min(env.observation_space.shape[0], env.observation_space.shape[-1])
            return max(n_planes // env.stacked_obs.n_stack, 1)
        env = env.venv
    return 3 if len(shape) == 3 and 3 in (shape[0], shape[-1]) else 1


def monitor_folder(env: VecEnv) -> Path | None:
    """
    :param env: a vector environment
    :return: the folder of its Monitor files, which the Zoo makes the run's folder; None where it writes none, or where
        other processes do
    """
    base = env.unwrapped
    if isinstance(base, NativeAtariVecEnv) and base.source is not None:
        base = base.source
    # Open files do not pass between processes.
    if not isinstance(base, DummyVecEnv):
        return None
    try:
        writer = base.get_attr("results_writer", indices=0)[0]
    except AttributeError:
        return None
    return None if writer is None else Path(writer.file_handler.name).parent


def native_or_same(env: VecEnv, verbose: int = 0) -> VecEnv:
    """
    Replace Atari games behind Python wrappers by the same games behind native ones, where they have a counterpart.

    :param env: the environment that the user built
    :param verbose: Verbosity level
    :return: the native environment, or the one that came
    """
    native = native_atari(env)
    if native is None:
        return env
    if verbose >= 1:
        print("Stepping the Atari games natively.")
    return native


def describe_space_mismatch(expected: spaces.Space, actual: spaces.Space) -> str:
    """
    :param expected: the teacher's observation space
    :param actual: the environment's observation space
    :return: how they differ in shape or type, the empty string where they fit
    """
    if isinstance(expected, spaces.Dict) or isinstance(actual, spaces.Dict):
        if not (isinstance(expected, spaces.Dict) and isinstance(actual, spaces.Dict)):
            return f"{expected} against {actual}."
        if set(expected.spaces) != set(actual.spaces):
            return f"the keys {sorted(expected.spaces)} against {sorted(actual.spaces)}."
        problems = {key: describe_space_mismatch(expected.spaces[key], actual.spaces[key]) for key in expected.spaces}
        return "; ".join(f"key {key!r}: {problem}" for key, problem in problems.items() if problem)
    if type(expected) is not type(actual):
        return f"{expected} against {actual}."
    if expected.shape != actual.shape:
        hint = ""
        if expected.shape and actual.shape and expected.shape[1:] == actual.shape[1:] and len(expected.shape) == 3:
            hint = (
                f" The teacher sees a stack of {expected.shape[0]} frames: stack as many with VecFrameStack, or "
                f"`frame_stack: {expected.shape[0]}` in the Zoo's hyperparameters."
            )
        return f"the shape {expected.shape} against {actual.shape}.{hint}"
    if expected.dtype != actual.dtype:
        return f"the type {expected.dtype} against {actual.dtype}."
    return ""


def check_discrete(teacher: Teacher, env: VecEnv) -> None:
    """
    Check that teacher and environment have the same discrete actions.

    :param teacher: the loaded teacher
    :param env: the student's environment
    :raises ValueError: they have not
    """
    who = f"The teacher {teacher.source}"
    if not isinstance(teacher.action_space, spaces.Discrete):
        raise ValueError(
            f"{who} has the action space {teacher.action_space}; policy distillation needs Discrete actions. "
        )
    if not isinstance(env.action_space, spaces.Discrete) or env.action_space.n != teacher.action_space.n:
        raise ValueError(
            f"{who} chooses among {teacher.action_space.n} actions, but the environment's action space is "
            f"{env.action_space}: they must be the same."
        )


def check_teacher(teacher: Teacher, env: VecEnv, env_id: str | None, allow_env_mismatch: bool) -> None:
    """
    Check that a teacher knows what an environment shows.

    :param teacher: the loaded teacher
    :param env: the student's environment
    :param env_id: its id, None where it has none
    :param allow_env_mismatch: accept a teacher of an environment with another id
    :raises ValueError: what differs, and what to do
    """
    who = f"The teacher {teacher.source}"
    problem = describe_space_mismatch(teacher.observation_space, env.observation_space)
    if problem:
        raise ValueError(f"{who} and the environment differ in their observations: {problem}")
    if None not in (teacher.env_id, env_id) and teacher.env_id != env_id and not allow_env_mismatch:
        raise ValueError(
            f"{who} was trained on {teacher.env_id}, but the student's environment is {env_id}. "
            "Pass allow_env_mismatch=True if that is meant."
        )
