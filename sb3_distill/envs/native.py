"""Replaces Atari games with SB3's Python wrappers by the same games stepped in C++."""

import warnings
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium as gym
import numpy as np
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
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_distill.envs.atari import AtariSettings, NativeAtariVecEnv
from sb3_distill.envs.wrappers.keys import RenderedFrames
from sb3_distill.envs.wrappers.picture import OwnPicture

_READ = "sb3_distill_native"


class NotNativeError(ValueError):
    """Something in the environment cannot be stepped natively; the message says what."""


@dataclass(frozen=True)
class AtariGame:
    """
    What was read of one Atari game in Python.

    :param settings: its settings
    :param has_monitor: whether it has a ``Monitor``
    :param monitor_file: the file that its ``Monitor`` writes, if it writes one
    :param t_start: when its ``Monitor`` was made
    """

    settings: AtariSettings
    has_monitor: bool = False
    monitor_file: str | None = None
    t_start: float | None = None


class NativeAtari(VecEnvWrapper):
    """
    Steps the Atari games of any algorithm of the Zoo in C++ (``ale_py.vector_env``), instead of one by one in Python:
    ``-params vec_env_wrapper:"'sb3_distill.NativeAtari'"``. Observations, rewards, ends of episodes and Monitor files
    are those of ``AtariWrapper``, but for the differences that ``NativeAtariVecEnv`` lists.

    Games that cannot be stepped natively (other wrappers, rendered games) stay as they are, with a warning that says
    why. The games that are replaced are closed with this environment; processes of a ``SubprocVecEnv`` end at once.

    :param venv: Atari games in ``AtariWrapper``, in a ``DummyVecEnv`` or a ``SubprocVecEnv``
    """

    def __init__(self, venv: VecEnv) -> None:
        space = venv.observation_space
        try:
            # SB3's own make_atari_env asks for frames to be rendered, unless it is told otherwise.
            if venv.render_mode is not None:
                raise NotNativeError(
                    f"they are rendered (render_mode={venv.render_mode!r}; if you do not look at them, pass "
                    'env_kwargs={"render_mode": None})'
                )
            venv = _make_native(venv)
        except NotNativeError as reason:
            warnings.warn(f"NativeAtari leaves the games as they are: {reason}.", stacklevel=2)
        super().__init__(venv, observation_space=space)
        self._channels_last = venv.observation_space != space

    def reset(self) -> VecEnvObs:
        return self._like_the_games(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        if self._channels_last:
            for info in infos:
                if "terminal_observation" in info:
                    info["terminal_observation"] = np.moveaxis(info["terminal_observation"], 0, -1)
        return self._like_the_games(obs), rewards, dones, infos

    def _like_the_games(self, obs: Any) -> Any:
        return np.moveaxis(obs, 1, -1) if self._channels_last else obs


class PythonAtari(VecEnvWrapper):
    """
    Keeps Atari games as SB3's wrappers step them, in Python, where our algorithms would step them in C++:
    ``-params vec_env_wrapper:"'sb3_distill.PythonAtari'"``. It changes nothing else.

    :param venv: Atari games in ``AtariWrapper``
    """

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()


def native_atari(env: VecEnv) -> VecEnv | None:
    """
    Build the native counterpart (stepped in C++) of Atari games with SB3's Python wrappers.

    :param env: the environment that the user or the Zoo built
    :return: the same games stepped natively, with the same seeds and Monitor files; None if something in the
        environment has no counterpart (other wrappers, a SubprocVecEnv, colour frames, sticky actions of
        ``AtariWrapper``, ``render_mode="human"``)
    """
    try:
        return _counterpart(env)
    except NotNativeError:
        return None


def _counterpart(env: VecEnv) -> VecEnv:
    """The native counterpart, where nobody has asked for it."""
    if isinstance(env.unwrapped, SubprocVecEnv):
        raise NotNativeError("they are in processes of their own, which only sb3_distill.NativeAtari ends")
    # EvalCallback warns if the types of training and evaluation environment differ; skip=True transposes nothing.
    return VecTransposeImage(_make_native(env), skip=True)


def _make_native(env: VecEnv) -> NativeAtariVecEnv:
    """The native games in the place of others, which are closed with them; processes of others end at once."""
    n_stack, source = 1, env
    while isinstance(source, (VecTransposeImage, VecFrameStack, NativeAtari)):
        if isinstance(source, VecFrameStack):
            n_stack *= source.stacked_obs.n_stack
        inner = source.venv
        if isinstance(source, NativeAtari) and isinstance(inner, NativeAtariVecEnv):
            # Its own stack of one frame gives way to the whole one.
            native = NativeAtariVecEnv(inner.settings, inner.num_envs, n_stack, inner.writers, inner.t_start, inner)
            native._seeds = list(inner._seeds)
            return native
        source = inner
    games = _read_games(source)
    settings = games[0].settings
    if any(game.settings != settings for game in games):
        raise NotNativeError("their settings differ from each other")
    if any(game.has_monitor != games[0].has_monitor for game in games):
        raise NotNativeError("only some of them have a Monitor")
    files = [game.monitor_file for game in games]
    # The header has been written already.
    writers = [None if file is None else ResultsWriter(file, override_existing=False) for file in files]
    native = NativeAtariVecEnv(settings, len(games), n_stack, writers, games[0].t_start, source)
    if native.action_space != source.action_space:
        raise NotNativeError(f"their actions are {source.action_space}, not {native.action_space}")
    native._seeds = list(source._seeds)
    if isinstance(source, SubprocVecEnv):
        source.close()
    return native


def _read_games(env: VecEnv) -> list[AtariGame]:
    """What the games of a vector environment are, if they can be stepped natively."""
    if type(env) not in (DummyVecEnv, SubprocVecEnv):
        raise NotNativeError(f"they are in {type(env).__name__}, not in DummyVecEnv or SubprocVecEnv")
    if isinstance(env, DummyVecEnv):
        return [read_game(game) for game in env.envs]
    if not all(env.env_is_wrapped(_Read())):  # type: ignore[arg-type]
        raise NotNativeError("they have no wrappers, but AtariWrapper is needed")
    found = env.get_attr(_READ)
    for reason in found:
        if isinstance(reason, str):
            raise NotNativeError(reason)
    return found


class _Read:
    """
    Stands for a wrapper's class in ``VecEnv.env_is_wrapped``, which asks it inside the environment's process, first of
    the outermost wrapper: the question keeps there what ``read_game`` finds, or why it finds nothing.
    """

    def __instancecheck__(self, env: Any) -> bool:
        try:
            found: AtariGame | str = read_game(env)
            # A process ends when it is asked for what it cannot pickle.
            ForkingPickler.dumps(found)
        except NotNativeError as reason:
            found = str(reason)
        except Exception as error:
            # Arguments are objects of any kind.
            found = f"their arguments cannot be sent from their processes ({error})"
        setattr(env, _READ, found)
        return True


def read_game(env: gym.Env) -> AtariGame:
    """
    Read the settings of an Atari environment from its wrappers.

    :param env: one sub-environment
    :return: what it is
    :raises NotNativeError: something in the environment has no native counterpart
    """
    if not isinstance(env.unwrapped, AtariEnv):
        raise NotNativeError(f"{type(env.unwrapped).__name__} is not an Atari game")
    found: dict[str, Any] = {}
    monitor: Monitor | None = None
    while isinstance(env, gym.Wrapper):
        if not isinstance(env, Monitor):
            found.update(_settings_of(env))
        # Below the frame skip it sees raw rewards and whole games, as the native environment reports them.
        elif "frame_skip" not in found:
            raise NotNativeError("their Monitor stands around AtariWrapper, not inside of it")
        elif env.info_keywords or env.reset_keywords:
            raise NotNativeError("their Monitor has info_keywords or reset_keywords")
        else:
            monitor = env
        env = env.env
    if env.spec is None:
        raise NotNativeError("they were not made with gymnasium.make")
    if not {"screen_size", "frame_skip"} <= set(found):
        raise NotNativeError("they are not in an AtariWrapper with frame_skip > 1")
    _check_arguments(env.spec.kwargs)
    writer = None if monitor is None else monitor.results_writer
    return AtariGame(
        AtariSettings(env.spec, **found),
        has_monitor=monitor is not None,
        monitor_file=None if writer is None else writer.file_handler.name,
        t_start=None if monitor is None else monitor.t_start,
    )


def _settings_of(wrapper: gym.Wrapper) -> dict[str, Any]:
    if isinstance(wrapper, ClipRewardEnv):
        return {"clip_reward": True}
    if isinstance(wrapper, FireResetEnv):
        return {"fire_reset": True}
    if isinstance(wrapper, EpisodicLifeEnv):
        return {"terminal_on_life_loss": True}
    if isinstance(wrapper, MaxAndSkipEnv):
        return {"frame_skip": wrapper._skip}
    if isinstance(wrapper, NoopResetEnv):
        return {"noop_max": wrapper.noop_max}
    if isinstance(wrapper, WarpFrame):
        if wrapper.width != wrapper.height:
            raise NotNativeError(f"their frames of {wrapper.height} x {wrapper.width} pixels are not square")
        return {"screen_size": wrapper.width}
    if isinstance(wrapper, (OwnPicture, RenderedFrames)):
        raise NotNativeError(
            f"they have the wrapper {type(wrapper).__name__}, which needs the raw screen, and games in C++ have none"
        )
    if not isinstance(wrapper, (AtariWrapper, OrderEnforcing, PassiveEnvChecker)):
        raise NotNativeError(f"they have the wrapper {type(wrapper).__name__}, which has no native counterpart")
    return {}


def _check_arguments(kwargs: dict[str, Any]) -> None:
    """Refuse arguments of an Atari environment that have no native counterpart."""
    if kwargs.get("frameskip") != 1:
        raise NotNativeError("the environment skips frames itself (frameskip=1 leaves that to AtariWrapper)")
    if kwargs.get("obs_type", "rgb") != "rgb":
        raise NotNativeError(f"obs_type is {kwargs['obs_type']!r}, not 'rgb'")
    # make_vec_env always sets "rgb_array", although training environments are normally not rendered.
    if kwargs.get("render_mode") == "human":
        raise NotNativeError("they are shown on the screen (render_mode='human')")
    unknown = set(kwargs) - {
        "game",
        "obs_type",
        "frameskip",
        "repeat_action_probability",
        "full_action_space",
        "max_num_frames_per_episode",
        "render_mode",
    }
    if unknown:
        raise NotNativeError(f"their argument {min(unknown)} has no native counterpart")


def native_or_same(env: VecEnv, verbose: int = 0) -> VecEnv:
    """
    Replace Atari games with SB3's Python wrappers by their native counterpart (stepped in C++), if there is one.

    :param env: the environment that the user built
    :param verbose: Verbosity level
    :return: the native environment, or ``env`` itself
    """
    try:
        native = _counterpart(env)
    except NotNativeError as reason:
        if verbose >= 1 and any(env.env_is_wrapped(AtariWrapper)):
            print(f"Stepping the Atari games in Python: {reason}.")
        return env
    if verbose >= 1:
        print("Stepping the Atari games natively.")
    return native
