"""The state of an environment in the middle of an episode, for environments that cannot say it themselves: the random
generators at the start of the episode, and the actions since. To restore it, the actions are played again."""

import hashlib
import types
from collections.abc import Iterator
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

    def note_reset(self, env: gym.Env, kwargs: dict[str, Any]) -> None:
        """Called before the environment is reset."""
        if self.start is None or _begins_game(env):
            self.start, self.calls = {**_read_parts(env), "reset": kwargs}, []
        else:
            self.calls.append(None)

    def state(self) -> dict[str, Any] | None:
        """
        :return: the present state, as plain values and arrays; None before the first reset
        """
        if self.start is None:
            return None
        emulators = {
            path: np.frombuffer(state.serialize(), np.uint8) for path, state in self.start["emulators"].items()
        }
        actions = [call for call in self.calls if call is not None]
        return {
            "start": {**self.start, "emulators": emulators},
            "is_reset": np.array([call is None for call in self.calls], dtype=bool),
            "actions": np.stack(actions) if actions else None,
            "obs": _hash(self.obs),
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
        tape: Tape

        def reset(self, **kwargs: Any) -> Any:
            self.tape.note_reset(self, kwargs)
            result = super().reset(**kwargs)
            self.tape.obs = result[0]
            return result

        def step(self, action: Any) -> Any:
            result = super().step(action)
            self.tape.calls.append(action)
            self.tape.obs = result[0]
            return result

        def tape_state(self) -> dict[str, Any] | None:
            return self.tape.state()

        def restore_tape(self, state: dict[str, Any] | None) -> str | None:
            try:
                self.tape.restore(self, state)
            except TapeError as error:
                # As text: the process of an environment dies of an exception.
                return str(error)
            return None

    Taped.__name__, Taped.__qualname__, Taped.__module__ = base.__name__, base.__qualname__, base.__module__
    return Taped


class _Install:
    """Stands for a class of wrappers: SB3 asks in the environment's own process whether it is wrapped in it, and the
    question installs the tape."""

    def __instancecheck__(self, env: Any) -> bool:
        # There is no other way to get at the wrapper there, and a wrapper around it would not be seen by SB3.
        if not isinstance(vars(env).get("tape"), Tape):
            env.tape = Tape()
            env.__class__ = _taped(type(env))
        return True


def install_tapes(env: VecEnv) -> bool:
    """
    Have the environments keep what is needed to restore their state. It changes nothing that they do.

    :param env: a vector environment; its environments may run in other processes
    :return: whether their state can be restored. Environments without any wrapper, such as Monitor, cannot be reached.
    """
    base = env.unwrapped
    if isinstance(base, NativeAtariVecEnv):
        return True
    return isinstance(base, (DummyVecEnv, SubprocVecEnv)) and all(base.env_is_wrapped(_Install()))  # type: ignore[arg-type]


def vec_env_state(env: VecEnv) -> dict[str, Any]:
    """
    :param env: a vector environment with tapes (see ``install_tapes``)
    :return: its state and that of its wrappers, as plain values and arrays
    """
    wrappers, base = _vec_wrappers(env)
    if isinstance(base, NativeAtariVecEnv):
        games: Any = base.state()
    else:
        games = base.env_method("tape_state") if install_tapes(base) else None
    return {"wrappers": [plain_attributes(wrapper) for wrapper in wrappers], "games": games}


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
        problem = "it was not kept"
    elif isinstance(base, NativeAtariVecEnv):
        problem = base.restore(state["games"])
    elif not install_tapes(base):
        problem = "it cannot be set"
    else:
        # Each process is asked on its own, with its own state.
        replies = [base.env_method("restore_tape", game, indices=i)[0] for i, game in enumerate(state["games"])]
        problem = next((reply for reply in replies if reply is not None), None)
        if any(game is not None for game in state["games"]):
            # Those of the first reset, which has been
            base._reset_seeds()
            base._reset_options()
    # Statistics are restored in any case. (A reset of wrappers leaves them as they are.)
    for wrapper, attributes in zip(wrappers, state["wrappers"], strict=True):
        set_plain_attributes(wrapper, attributes)
    return problem


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
    found: dict[str, dict[str, Any]] = {"generators": {}, "numbers": {}, "emulators": {}}
    for path, part in _parts(env):
        if isinstance(part, GENERATORS):
            found["generators"][path] = generator_state(part)
            continue
        # Such as the last action, which MinAtar repeats at random also when a new game has begun
        numbers = {name: value for name, value in _attributes(part) if _is_number(value)}
        if numbers:
            found["numbers"][path] = numbers
        if isinstance(part, AtariEnv):
            found["emulators"][path] = part.clone_state(include_rng=True)
    return found


def _write_parts(env: gym.Env, state: dict[str, Any]) -> None:
    for path, part in _parts(env):
        if isinstance(part, GENERATORS):
            if path in state["generators"]:
                set_generator_state(part, state["generators"][path])
            continue
        if path in state["numbers"]:
            (part if isinstance(part, dict) else vars(part)).update(state["numbers"][path])
        if isinstance(part, AtariEnv) and path in state["emulators"]:
            part.restore_state(ALEState(state["emulators"][path].tobytes()))


def _is_number(value: Any) -> bool:
    # Not subclasses, such as members of an IntEnum
    return type(value) in (bool, int, float) or isinstance(value, np.generic)


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
