"""The state of an environment in the middle of an episode, for environments that cannot say it themselves: the random
generators at the start of the episode, and the actions since. To restore it, the actions are played again."""

import copy
import hashlib
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from ale_py import ALEState
from ale_py.env import AtariEnv
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.state.generators import GENERATORS, generator_state, set_generator_state
from sb3_distill.state.plain import plain_attributes, set_plain_attributes

# How deep generators are looked for in the attributes of an environment (MinAtar's is in the third object)
_DEPTH = 4
# Entries of a list or dictionary that are looked at; more are data
_MANY = 100
# Elements of an array that is kept, such as a mean over all observations; larger ones are screens
_LARGE = 2**16
# Steps of an episode that are kept, some 40 bytes each; a longer one is begun anew when the run goes on
_LONGEST = 2_000_000
# Where an environment has its tape
_TAPE = "_sb3_distill_tape"


class TapeError(ValueError):
    """An environment did not come back to its state when its actions were played again."""


class Tape:
    """What is needed to bring an environment back to its present state."""

    def __init__(self) -> None:
        # What the environment was when its game began: generators, numbers, emulators; and the arguments of reset
        self.start: dict[str, Any] | None = None
        # What was done since: an action, or None where a new episode began within the same game (SB3's EpisodicLifeEnv)
        self.calls: list[Any] = []
        self.obs: Any = None
        self.is_full = False

    def note_reset(self, env: gym.Env, kwargs: dict[str, Any]) -> None:
        """Called before the environment is reset."""
        if self.start is None or _begins_game(env):
            self.start, self.calls, self.is_full = {**_read_parts(env), "reset": kwargs}, [], False
        else:
            self.note(None)

    def note(self, call: Any) -> None:
        """Called after a step, with its action."""
        if len(self.calls) >= _LONGEST:
            self.calls, self.is_full = [], True
        if not self.is_full:
            self.calls.append(call)

    def state(self, env: gym.Env) -> dict[str, Any] | None:
        """
        :param env: the environment whose tape this is
        :return: its present state, as plain values and arrays; None before the first reset
        """
        if self.start is None:
            return None
        now = {key: value for key, value in _read_parts(env).items() if key in _OUTLIVING}
        if self.is_full:
            return {"too_long": True, "now": now}
        emulators = {
            path: np.frombuffer(state.serialize(), np.uint8) for path, state in self.start["emulators"].items()
        }
        actions = [call for call in self.calls if call is not None]
        return {
            "start": {**self.start, "emulators": emulators},
            "is_reset": np.array([call is None for call in self.calls], dtype=bool),
            "actions": np.stack(actions) if actions else None,
            "obs": _hash(self.obs),
            "now": now,
        }

    def restore(self, env: gym.Env, state: dict[str, Any] | None) -> None:
        """
        Bring an environment back to a state.

        :param env: an environment that was made as that of the state; this is its tape
        :param state: what ``state`` returned
        :raises TapeError: the environment is in another state after the same actions
        """
        if state is None:
            return
        try:
            if "too_long" in state:
                raise TapeError(f"its episode had more than {_LONGEST:,} steps")
            self._replay(env, state)
        except TapeError:
            # The caller begins a new episode; statistics over all episodes stay those of the run.
            _write_parts(env, state.get("now", {}))
            raise

    def _replay(self, env: gym.Env, state: dict[str, Any]) -> None:
        try:
            # Some make their generators only now.
            env.reset(seed=0)
            _write_parts(env, state["start"])
            self.start = None
            env.reset(**state["start"]["reset"])
            actions = iter(() if state["actions"] is None else state["actions"])
            for is_reset in state["is_reset"]:
                env.reset() if is_reset else env.step(next(actions))
        except Exception as error:
            # Environments are anybody's code.
            raise TapeError(f"{type(error).__name__}: {error}") from error
        if _hash(self.obs) != state["obs"]:
            raise TapeError("after the same actions its observation is another one")


def _taped(base: type[gym.Wrapper]) -> type[gym.Wrapper]:
    class Taped(base):  # type: ignore[valid-type, misc]
        _sb3_distill_tape: Tape

        def reset(self, **kwargs: Any) -> Any:
            self._sb3_distill_tape.note_reset(self, kwargs)
            result = super().reset(**kwargs)
            self._sb3_distill_tape.obs = result[0]
            return result

        def step(self, action: Any) -> Any:
            # Whoever made the array may use it again, and environments may change it.
            kept = copy.copy(action)
            result = super().step(action)
            self._sb3_distill_tape.note(kept)
            self._sb3_distill_tape.obs = result[0]
            return result

        def sb3_distill_state(self) -> dict[str, Any] | None:
            return self._sb3_distill_tape.state(self)

        def sb3_distill_restore(self, state: dict[str, Any] | None) -> str | None:
            try:
                self._sb3_distill_tape.restore(self, state)
            except TapeError as error:
                # As text: the process of an environment dies of an exception.
                return str(error)
            return None

    Taped.__name__, Taped.__qualname__, Taped.__module__ = base.__name__, base.__qualname__, base.__module__
    return Taped


class _Install:
    """Stands for a class of wrappers: SB3 asks in the environment's own process whether it is wrapped in it, and the
    question installs the tape."""

    has_failed = False

    def __instancecheck__(self, env: Any) -> bool:
        # SB3 asks for the outermost wrapper first. One below it does not know all of the state.
        if self.has_failed:
            return False
        # There is no other way to get at the wrapper there, and a wrapper around it would not be seen by SB3.
        if not isinstance(vars(env).get(_TAPE), Tape):
            try:
                env.__class__ = _taped(type(env))
            except TypeError:
                # Such as classes that allow no subclasses
                self.has_failed = True
                return False
            setattr(env, _TAPE, Tape())
        return True


def install_tapes(env: VecEnv) -> str | None:
    """
    Have the environments keep what is needed to restore their state. It changes nothing that they do.

    :param env: a vector environment; its environments may run in other processes
    :return: None, or why their state cannot be restored
    """
    base = env.unwrapped
    if isinstance(base, NativeAtariVecEnv):
        return base.why_lost
    if not isinstance(base, (DummyVecEnv, SubprocVecEnv)):
        return f"{type(base).__name__} is a vector environment of its own kind"
    if not all(base.env_is_wrapped(_Install())):  # type: ignore[arg-type]
        return "it has no wrapper that can be reached, such as Monitor"
    return None


def vec_env_state(env: VecEnv) -> dict[str, Any]:
    """
    :param env: a vector environment with tapes (see ``install_tapes``)
    :return: its state and that of its wrappers, as plain values and arrays
    """
    wrappers, base = _vec_wrappers(env)
    why_lost = install_tapes(base)
    if isinstance(base, NativeAtariVecEnv):
        games: Any = base.state()
    else:
        games = base.env_method("sb3_distill_state") if why_lost is None else None
    return {
        "wrappers": [plain_attributes(wrapper) for wrapper in wrappers],
        "games": games,
        "why_lost": why_lost,
    }


def restore_vec_env(env: VecEnv, state: dict[str, Any]) -> str | None:
    """
    Bring an environment back to a state.

    :param env: an environment that was made in the same way
    :param state: what ``vec_env_state`` returned
    :return: None, or why its episodes could not be restored: then it must be reset
    """
    wrappers, base = _vec_wrappers(env)
    problem: str | None = None
    if state["games"] is None:
        problem = state.get("why_lost") or "it was not kept"
    elif isinstance(base, NativeAtariVecEnv):
        problem = base.restore(state["games"])
    elif (problem := install_tapes(base)) is None:
        # Each process is asked on its own, with its own state.
        replies = [base.env_method("sb3_distill_restore", game, indices=i)[0] for i, game in enumerate(state["games"])]
        problem = next((reply for reply in replies if reply is not None), None)
        if any(game is not None for game in state["games"]):
            # Those of the first reset, which has been
            base._reset_seeds()
            base._reset_options()
    # Statistics are restored in any case. (A reset of wrappers leaves them as they are.)
    for wrapper, attributes in zip(wrappers, state["wrappers"], strict=True):
        set_plain_attributes(wrapper, attributes)
    return problem


def vec_wrapper_names(env: VecEnv) -> list[str]:
    """
    :param env: a vector environment
    :return: the names of the classes of its wrappers, from the outermost on
    """
    return [type(wrapper).__name__ for wrapper in _vec_wrappers(env)[0]]


def _vec_wrappers(env: VecEnv) -> tuple[list[VecEnvWrapper], VecEnv]:
    """The wrappers of a vector environment, from the outermost on, and the environment itself."""
    wrappers = []
    while isinstance(env, VecEnvWrapper):
        wrappers.append(env)
        env = env.venv
    return wrappers, env


def _begins_game(env: gym.Env) -> bool:
    """Whether the next reset begins a game, and not only the next life of one."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, EpisodicLifeEnv) and not env.was_real_done:
            return False
        env = env.env
    return True


def _read_parts(env: gym.Env) -> dict[str, Any]:
    """What an environment's next game depends on."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in ("generators", "emulators", *_OUTLIVING)}
    for path, part in _parts(env):
        if isinstance(part, GENERATORS):
            found["generators"][path] = generator_state(part)
            continue
        # Such as the last action, which MinAtar repeats at random also when a new game has begun, or the statistics of
        # Gymnasium's NormalizeObservation
        for kind, belongs in _OUTLIVING.items():
            values = {name: copy.copy(value) for name, value in _attributes(part) if belongs(value)}
            # The bounds of spaces do not change.
            if values and not isinstance(part, gym.Space):
                found[kind][path] = values
        if isinstance(part, AtariEnv):
            found["emulators"][path] = part.clone_state(include_rng=True)
    return found


def _write_parts(env: gym.Env, state: dict[str, Any]) -> None:
    """The opposite of ``_read_parts``; some kinds of parts may be missing."""
    # All parts are found before any of them is replaced.
    for path, part in list(_parts(env)):
        if isinstance(part, GENERATORS):
            if path in state.get("generators", {}):
                set_generator_state(part, state["generators"][path])
            continue
        for kind in _OUTLIVING:
            values = state.get(kind, {}).get(path)
            for name, value in (values or {}).items():
                _set(part if isinstance(part, dict) else vars(part), name, value)
        if isinstance(part, AtariEnv) and path in state.get("emulators", {}):
            part.restore_state(ALEState(state["emulators"][path].tobytes()))


def _set(owner: dict[str, Any], name: str, value: Any) -> None:
    current = owner.get(name)
    if isinstance(current, (list, deque)):
        # Others may hold the same collection.
        current.clear()
        current.extend(value)
    elif isinstance(current, dict):
        current.clear()
        current.update(value)
    else:
        # A copy: the state may be restored again.
        owner[name] = copy.copy(value)


def _is_number(value: Any) -> bool:
    # Not subclasses, such as members of an IntEnum
    return type(value) in (bool, int, float) or isinstance(value, np.generic)


def _is_array(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype.kind in "biuf" and value.size <= _LARGE


def _is_collection(value: Any) -> bool:
    """Whether it is a list or a mapping of numbers, such as the returns of all episodes."""
    if type(value) not in (list, deque, dict) or len(value) > _LARGE:
        return False
    if isinstance(value, dict):
        return all(type(key) in (int, str) and _is_number(entry) for key, entry in value.items())
    return all(map(_is_number, value))


# Kinds of values that can outlive an episode
_OUTLIVING: dict[str, Callable[[Any], bool]] = {
    "numbers": _is_number,
    "arrays": _is_array,
    "collections": _is_collection,
}


def _parts(env: gym.Env) -> Iterator[tuple[str, Any]]:
    """An environment, all objects in its attributes, and those in theirs, with the path of attributes to each."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [("", env, 0)]
    while waiting:
        path, part, depth = waiting.pop()
        if id(part) in seen or depth > _DEPTH:
            continue
        seen.add(id(part))
        if isinstance(part, GENERATORS):
            yield path, part
            continue
        if isinstance(part, gym.Env):
            # However many wrappers there are
            depth = 0
        if not isinstance(part, (list, tuple)):
            yield path, part
        for name, value in _attributes(part):
            if isinstance(value, (dict, list, tuple, *GENERATORS)) or hasattr(value, "__dict__"):
                waiting.append((f"{path}.{name}", value, depth + 1))


def _attributes(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        yield from ((key, value) for key, value in part.items() if isinstance(key, str))
    elif isinstance(part, (list, tuple)):
        yield from ((str(index), value) for index, value in enumerate(part[:_MANY]))
    elif not isinstance(part, (type, types.ModuleType, types.FunctionType, types.MethodType, Tape)):
        yield from vars(part).items()


def _hash(obs: Any) -> str:
    digest = hashlib.sha256()
    parts = [obs]
    while parts:
        part = parts.pop()
        if isinstance(part, (dict, tuple)):
            parts.extend(part.values() if isinstance(part, dict) else part)
        else:
            digest.update(np.asarray(part).tobytes())
    return digest.hexdigest()
