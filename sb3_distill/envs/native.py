"""Atari games behind SB3's wrappers replaced by the same games stepped in C++."""

from typing import Any

import gymnasium as gym
from ale_py.env import AtariEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from stable_baselines3.common.atari_wrappers import (
    AtariWrapper,
    ClipRewardEnv,
    EpisodicLifeEnv,
    FireResetEnv,
    MaxAndSkipEnv,
    NoopResetEnv,
    WarpFrame,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from sb3_distill.envs.atari import AtariSettings, NativeAtariVecEnv


def native_atari(env: VecEnv) -> VecEnv | None:
    """
    Build the native counterpart of Atari games behind SB3's Python wrappers.

    :param env: the environment that the user or the Zoo built
    :return: the same games stepped natively, with the same seeds and monitor files; None where any part has no
        counterpart (other wrappers, other processes, colour, sticky actions of ``AtariWrapper``, a window)
    """
    n_stack = 1
    while isinstance(env, (VecTransposeImage, VecFrameStack)):
        if isinstance(env, VecFrameStack):
            n_stack *= env.stacked_obs.n_stack
        env = env.venv
    if type(env) is not DummyVecEnv:
        return None
    chains = [read_wrappers(sub_env) for sub_env in env.envs]
    read = [chain for chain in chains if chain is not None]
    if len(read) < env.num_envs or any(settings != read[0][0] for settings, _ in read):
        return None
    settings = read[0][0]
    monitors = [monitor for _, monitor in read if monitor is not None]
    if len(monitors) not in (0, env.num_envs):
        return None
    native = NativeAtariVecEnv(settings, env.num_envs, n_stack, monitors, source=env)
    if native.action_space != env.action_space:
        return None
    native._seeds = list(env._seeds)
    # The outermost type is the evaluation environment's, which EvalCallback compares; it transposes nothing.
    return VecTransposeImage(native, skip=True)


def read_wrappers(env: gym.Env) -> tuple[AtariSettings, Monitor | None] | None:
    """
    Read an Atari environment's chain of wrappers.

    :param env: one sub-environment
    :return: its settings and its Monitor, None where something in it has no native counterpart
    """
    found: dict[str, Any] = {}
    monitor: Monitor | None = None
    while isinstance(env, gym.Wrapper):
        if isinstance(env, ClipRewardEnv):
            found["clip_reward"] = True
        elif isinstance(env, WarpFrame) and env.width == env.height:
            found["screen_size"] = env.width
        elif isinstance(env, FireResetEnv):
            found["fire_reset"] = True
        elif isinstance(env, EpisodicLifeEnv):
            found["terminal_on_life_loss"] = True
        elif isinstance(env, MaxAndSkipEnv):
            found["frame_skip"] = env._skip
        elif isinstance(env, NoopResetEnv):
            found["noop_max"] = env.noop_max
        elif isinstance(env, Monitor) and "frame_skip" in found and not env.info_keywords:
            # Below the frame skip it sees raw rewards and whole games; above it would see neither.
            monitor = env
        elif not isinstance(env, (AtariWrapper, OrderEnforcing, PassiveEnvChecker)):
            return None
        env = env.env
    if not isinstance(env, AtariEnv) or env.spec is None or not {"screen_size", "frame_skip"} <= set(found):
        return None
    kwargs = env.spec.kwargs
    native_kwargs = {
        "game",
        "obs_type",
        "frameskip",
        "repeat_action_probability",
        "full_action_space",
        "max_num_frames_per_episode",
        "render_mode",
    }
    has_counterpart = (
        set(kwargs) <= native_kwargs
        and kwargs.get("frameskip") == 1
        and kwargs.get("obs_type", "rgb") == "rgb"
        # "rgb_array" is what make_vec_env asks for; nobody looks at training games that are not in a recorder.
        and kwargs.get("render_mode") != "human"
    )
    return (AtariSettings(env.spec, **found), monitor) if has_counterpart else None


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
