"""Replaces Atari games with SB3's Python wrappers by the same games stepped in C++."""

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
    Build the native counterpart (stepped in C++) of Atari games with SB3's Python wrappers.

    :param env: the environment that the user or the Zoo built
    :return: the same games stepped natively, with the same seeds and Monitor files; None if something in the
        environment has no counterpart (other wrappers, a SubprocVecEnv, colour frames, sticky actions of
        ``AtariWrapper``, ``render_mode="human"``)
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
    # EvalCallback warns if the types of training and evaluation environment differ; skip=True transposes nothing.
    return VecTransposeImage(native, skip=True)


def read_wrappers(env: gym.Env) -> tuple[AtariSettings, Monitor | None] | None:
    """
    Read the settings of an Atari environment from its wrappers.

    :param env: one sub-environment
    :return: its settings and its Monitor; None if something in the environment has no native counterpart
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
            # Accept a Monitor only below the frame skip: there it sees raw rewards and whole games, as the native
            # environment reports them.
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
        # make_vec_env always sets "rgb_array", although training environments are normally not rendered.
        and kwargs.get("render_mode") != "human"
    )
    return (AtariSettings(env.spec, **found), monitor) if has_counterpart else None


def native_or_same(env: VecEnv, verbose: int = 0) -> VecEnv:
    """
    Replace Atari games with SB3's Python wrappers by their native counterpart (stepped in C++), if there is one.

    :param env: the environment that the user built
    :param verbose: Verbosity level
    :return: the native environment, or ``env`` itself
    """
    native = native_atari(env)
    if native is None:
        return env
    if verbose >= 1:
        print("Stepping the Atari games natively.")
    return native
