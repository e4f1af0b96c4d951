"""The environments on which scores are measured."""

from collections.abc import Callable

import ale_py
import gymnasium as gym
from ale_py.env import AtariEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.envs.episodes import EpisodeSchedule, ScheduledEnv
from sb3_distill.envs.imports import registered_spec
from sb3_distill.envs.native import native_atari
from sb3_distill.envs.recipe import EnvRecipe, default_recipe, is_atari

gym.register_envs(ale_py)

# Puts something around a sub-environment that plays the episodes of a schedule; the number is its index there
EpisodeWrapper = Callable[[gym.Env, EpisodeSchedule, int], gym.Env]

# Games whose scores were shown to agree between native stepping and the Zoo's wrappers (tests/envs/test_atari.py, slow)
NATIVE_GAMES = ("pong", "breakout")


def make_eval_env(
    env_id: str,
    n_envs: int = 1,
    recipe: EnvRecipe | None = None,
    start_wrapper: Callable[[gym.Env], gym.Env] | None = None,
    native: bool | None = False,
) -> VecEnv:
    """
    Make the environment on which scores are measured: the same as the Zoo's ``enjoy`` makes, in the same order, but
    without ``VecNormalize``, because agents normalize observations themselves.

    :param env_id: a registered environment
    :param n_envs: number of parallel environments
    :param recipe: how the environments of the agent's run were made; None: as the Zoo does where a run says nothing
    :param start_wrapper: wrapper that chooses the states in which episodes of Atari games start, instead of no-ops
    :param native: step Atari games in C++; None: those whose scores were shown to agree
    :return: a vector environment whose sub-environments have a Monitor; Atari images are channels-first
    :raises ValueError: the environment does not accept its arguments or wrappers, or ``native`` is set and the
        environment cannot be stepped in C++
    """
    recipe = default_recipe(env_id) if recipe is None else recipe
    env_kwargs = dict(recipe.env_kwargs)

    def make_env() -> gym.Env:
        try:
            env = gym.make(env_id, **env_kwargs)
        except TypeError as error:
            if not env_kwargs:
                raise
            raise ValueError(
                f"{env_id} does not take the arguments {env_kwargs} ({error}): set the right ones with --env-kwargs "
                "key:value."
            ) from error
        if start_wrapper is None:
            return recipe.wrap(Monitor(env))
        return recipe.wrap(Monitor(start_wrapper(env)), noop_max=0)

    venv = recipe.wrap_vec(DummyVecEnv([make_env for _ in range(n_envs)]))
    if (recipe.frame_stack or 1) > 1:
        venv = VecFrameStack(venv, recipe.frame_stack or 1)
    if is_atari(env_id) and len(venv.observation_space.shape or ()) == 3:
        venv = VecTransposeImage(venv)
    if native is False:
        return venv
    chosen = native or registered_spec(env_id).kwargs.get("game") in NATIVE_GAMES
    counterpart = native_atari(venv) if chosen else None
    if counterpart is None and native:
        raise ValueError(
            f"{env_id} cannot be stepped natively: only Atari games in the Zoo's wrappers can, without start states."
        )
    return venv if counterpart is None else counterpart


def play_schedule(venv: VecEnv, schedule: EpisodeSchedule, wrapper: EpisodeWrapper | None = None) -> None:
    """
    Let a vector environment play the episodes of a schedule. An episode is what the Zoo's ``enjoy`` counts as one: in
    Atari games a whole game with its own score, whatever the wrappers make of lives and rewards; elsewhere whatever the
    outermost wrapper gives.

    :param venv: the vector environment, before its first reset
    :param schedule: the schedule
    :param wrapper: put around each sub-environment
    :raises TypeError: its sub-environments are in other processes
    :raises ValueError: ``wrapper`` is set for games that are stepped in C++
    """
    base = venv.unwrapped
    if isinstance(base, NativeAtariVecEnv):
        if wrapper is not None:
            raise ValueError("Games in C++ cannot be disturbed: leave out --native (native=True).")
        base.schedule = schedule
    elif isinstance(base, DummyVecEnv):
        for index, env in enumerate(base.envs):
            if not isinstance(env.unwrapped, AtariEnv):
                base.envs[index] = ScheduledEnv(env, schedule, index)
                continue
            outer = None
            while isinstance(env, gym.Wrapper) and not isinstance(env, Monitor):
                outer, env = env, env.env
            if outer is None or not isinstance(env, Monitor):
                base.envs[index] = ScheduledEnv(base.envs[index], schedule, index)
            else:
                outer.env = ScheduledEnv(env, schedule, index)
        if wrapper is not None:
            base.envs = [wrapper(env, schedule, index) for index, env in enumerate(base.envs)]
    else:
        raise TypeError(f"Episodes are played in this process, but {type(base).__name__} has its own.")
