"""The environments on which scores are measured."""

from collections.abc import Callable
from typing import Any

import ale_py
import gymnasium as gym
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from sb3_distill.envs.minatar import register_minatar
from sb3_distill.envs.native import native_atari

gym.register_envs(ale_py)


register_minatar()


def is_atari(env_id: str) -> bool:
    """
    :param env_id: a registered environment
    :return: whether it is an Atari game
    """
    return "AtariEnv" in str(gym.spec(env_id).entry_point)


def make_eval_env(
    env_id: str,
    n_envs: int = 1,
    frame_stack: int = 4,
    env_kwargs: dict[str, Any] | None = None,
    start_wrapper: Callable[[gym.Env], gym.Env] | None = None,
    native: bool = False,
) -> VecEnv:
    """
    Make the environment on which scores are measured, with the Zoo's wrappers. In Atari games, an episode is a whole
    game (a lost life does not end it), rewards are not clipped, and a game starts with up to 30 no-ops and has at most
    108,000 frames (the registered limit).

    :param env_id: a registered environment
    :param n_envs: number of parallel environments
    :param frame_stack: number of stacked frames (Atari only)
    :param env_kwargs: passed to the environment's constructor
    :param start_wrapper: wrapper that chooses the states in which episodes of Atari games start, instead of no-ops
    :param native: step Atari games in C++
    :return: a vector environment whose sub-environments have a Monitor
    :raises ValueError: the environment does not accept the arguments, or ``native`` is set and the environment cannot
        be stepped in C++
    """
    atari = is_atari(env_id)

    def make_env() -> gym.Env:
        try:
            env = gym.make(env_id, **(env_kwargs or {}))
        except TypeError as error:
            if not env_kwargs:
                raise
            raise ValueError(
                f"{env_id} does not take the arguments {env_kwargs} ({error}): set the right ones with --env-kwargs "
                "key:value."
            ) from error
        if not atari:
            return Monitor(env)
        noop_max = 30
        if start_wrapper is not None:
            env, noop_max = start_wrapper(env), 0
        return AtariWrapper(Monitor(env), noop_max, terminal_on_life_loss=False, clip_reward=False)

    venv: VecEnv = DummyVecEnv([make_env for _ in range(n_envs)])
    if atari:
        venv = VecTransposeImage(VecFrameStack(venv, frame_stack))
    if not native:
        return venv
    counterpart = native_atari(venv)
    if counterpart is None:
        raise ValueError(
            f"{env_id} cannot be stepped natively: only Atari games without a wrapper for start states can."
        )
    return counterpart
