"""Several environments as tasks of one Gymnasium environment, which plays one task per episode, in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ale_py
import cv2
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.envs.inspection import check_counts_from_zero
from sb3_distill.envs.views import Keys, part_of_space

gym.register_envs(ale_py)


@dataclass(frozen=True)
class Task:
    """
    One task of a multi-task environment.

    :param name: the task's name: the Atari game, or the environment's id
    :param env_id: the registered id of the task's environment
    :param observation_space: the observation space of the task's environment, before padding
    :param n_actions: number of actions of the task's environment
    :param keys: what is seen of a Dict observation, which ``observation_space`` is then; None: everything
    """

    name: str
    env_id: str
    observation_space: spaces.Box | spaces.Dict
    n_actions: int
    keys: Keys = None

    @property
    def parts(self) -> dict[str, Any]:
        """The spaces by key; that of observations which are no Dict has the key "obs"."""
        space = self.observation_space
        return dict(space) if isinstance(space, spaces.Dict) else {"obs": space}

    def seen(self, keys: Keys, argument: str) -> "Task":
        """
        :param keys: what is seen of a Dict observation
        :param argument: name of the argument with these keys, for the message
        :return: the task as it is seen then
        :raises ValueError: the task has no such keys
        """
        space: Any = part_of_space(self.observation_space, keys, argument)
        return replace(self, observation_space=space, keys=keys)


class MultiTaskEnv(gym.Env):
    """
    Plays one episode of each task in turn. ``reset(options={"task": index or name})`` chooses the task, and
    ``reset(seed=seed)`` starts with the task ``seed % n_tasks``, so that parallel environments, which have consecutive
    seeds, play different tasks.

    Observations are ``{"obs": the task's observation, "task": the task's index}``; of tasks with Dict observations, all
    of the same keys, these keys take the place of "obs". The action space is that of the task
    with the most actions. An action that a task does not have is played as one of its own, drawn uniformly from the
    environment's generator, so that random actions of the common space are uniformly random in every task.

    :param envs: by name of the task, a function that makes its environment
    :param pad: if the observation spaces differ, fill shorter vectors, or grids with fewer channels, with zeros
    :param render_mode: as in Gymnasium
    :raises ValueError: there are no tasks, or their spaces cannot be combined
    """

    def __init__(
        self, envs: Mapping[str, Callable[[], gym.Env]], pad: bool = False, render_mode: str | None = None
    ) -> None:
        if not envs:
            raise ValueError("A multi-task environment needs at least one task.")
        self.envs = {name: make() for name, make in envs.items()}
        self.tasks = [_describe_task(name, env) for name, env in self.envs.items()]
        self.render_mode = render_mode
        first = next(iter(self.envs.values()))
        self.metadata = first.metadata
        self.action_space = spaces.Discrete(max(task.n_actions for task in self.tasks))
        parts = _common_parts(self.tasks, pad)
        self.observation_space = spaces.Dict({**parts, "task": spaces.Discrete(len(self.tasks))})
        # reset() moves on to the next task, so the first reset plays the first task.
        self._current = len(self.tasks) - 1
        self._frame_size: tuple[int, int] | None = None

    @property
    def current_env(self) -> gym.Env:
        """The environment of the task that is being played."""
        return self.envs[self.tasks[self._current].name]

    def _observe(self, obs: Any) -> dict[str, Any]:
        observed: dict[str, Any] = {"task": self._current}
        for key, part in obs.items() if isinstance(obs, dict) else [("obs", obs)]:
            shape = self.observation_space[key].shape  # type: ignore[index]
            observed[key] = np.asarray(part if part.shape == shape else pad_last_axis(part, shape[-1]))
        return observed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            # Seed the environments of all tasks, since each has its own generator.
            for env in self.envs.values():
                env.reset(seed=seed)
        self._current = self._next_task(seed, (options or {}).get("task"))
        obs, info = self.current_env.reset(seed=seed)
        return self._observe(obs), {**info, "task": self.tasks[self._current].name}

    def _next_task(self, seed: int | None, chosen: int | str | None) -> int:
        if chosen is None:
            return (self._current + 1 if seed is None else seed) % len(self.tasks)
        names = list(self.envs)
        if chosen in names:
            return names.index(chosen)
        if isinstance(chosen, (int, np.integer)) and 0 <= chosen < len(names):
            return int(chosen)
        raise ValueError(
            f"options['task'] must be the name of a task ({', '.join(names)}) or its index, not {chosen!r}."
        )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        task = self.tasks[self._current]
        action = int(action)
        if action >= task.n_actions:
            action = int(self.np_random.integers(task.n_actions))
        obs, reward, terminated, truncated, info = self.current_env.step(action)
        return self._observe(obs), float(reward), terminated, truncated, {**info, "task": task.name}

    def render(self) -> Any:
        frame: Any = self.current_env.render()
        if self.render_mode != "rgb_array" or frame is None:
            return frame
        # All frames of a video must have the same size: use that of the first frame.
        self._frame_size = self._frame_size or frame.shape[:2]
        return fit_frame(frame, *self._frame_size)

    def close(self) -> None:
        for env in self.envs.values():
            env.close()


def _describe_task(name: str, env: gym.Env) -> Task:
    env_id = name if env.spec is None else env.spec.id
    observed = env.observation_space
    parts = list(observed.values()) if isinstance(observed, spaces.Dict) else [observed]
    if not isinstance(env.action_space, spaces.Discrete) or not all(isinstance(part, spaces.Box) for part in parts):
        raise ValueError(
            f"Task {name!r} has the spaces {observed} and {env.action_space}: a multi-task environment needs Box "
            "observations, or a Dict of them, and Discrete actions."
        )
    check_counts_from_zero(env.action_space, f"the action_space of task {name!r}")
    assert isinstance(observed, (spaces.Box, spaces.Dict))
    return Task(name, env_id, observed, int(env.action_space.n))


def _common_parts(tasks: Sequence[Task], pad: bool) -> dict[str, spaces.Space]:
    """The parts of the observations that all tasks have, by key."""
    names = [task.name for task in tasks]
    parts = [task.parts for task in tasks]
    described = "; ".join(f"{name}: {', '.join(own)}" for name, own in zip(names, parts, strict=True))
    if any(own.keys() != parts[0].keys() or "task" in own for own in parts):
        raise ValueError(
            "The tasks' observations must all be a Box, or all a Dict with the same keys, none of them 'task'. These "
            f"have {described}."
        )
    return {key: _common_space(names, [own[key] for own in parts], pad) for key in parts[0]}


def _common_space(names: Sequence[str], own: Sequence[Any], pad: bool) -> spaces.Box:
    if all(space == own[0] for space in own):
        return own[0]
    described = ", ".join(f"{name} {space.shape}" for name, space in zip(names, own, strict=True))
    if not pad:
        raise ValueError(
            f"The tasks' observation spaces differ ({described}): choose tasks that share one, or pass pad=True (in "
            "the Zoo: --env-kwargs pad:True) to fill shorter vectors, or grids of fewer channels, with zeros."
        )
    if any(len(space.shape) not in (1, 3) or space.shape[:-1] != own[0].shape[:-1] for space in own) or any(
        space.dtype != own[0].dtype or space.dtype == np.uint8 for space in own
    ):
        raise ValueError(f"Only vectors, or grids of one size, of one type can be padded to one length: {described}.")
    shape = (*own[0].shape[:-1], max(space.shape[-1] for space in own))
    low, high = (0, 1) if own[0].dtype == np.bool_ else (-np.inf, np.inf)
    return spaces.Box(low, high, shape, own[0].dtype.type)


def fit_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """
    :param frame: ``(height, width, 3)`` of any size
    :param height: height of the result
    :param width: width of the result
    :return: the frame, scaled without distortion and centred on a black frame of this size
    """
    if frame.shape[:2] == (height, width):
        return frame
    scale = min(height / frame.shape[0], width / frame.shape[1])
    size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    scaled = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    fitted = np.zeros((height, width, 3), dtype=frame.dtype)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    fitted[top : top + size[1], left : left + size[0]] = scaled
    return fitted


def pad_last_axis(obs: np.ndarray, length: int) -> np.ndarray:
    """
    :param obs: a vector, a grid with the channels last, or a batch of them
    :param length: length of the last axis in the result
    :return: the observations, with zeros appended along the last axis
    """
    return np.pad(obs, [(0, 0)] * (obs.ndim - 1) + [(0, length - obs.shape[-1])])


def _check_names(names: Sequence[str], field: str) -> None:
    if isinstance(names, str) or not names:
        raise ValueError(f"{field} must be a list of names, such as ['Pong', 'Freeway'], not {names!r}.")
    for name in names:
        if list(names).count(name) > 1:
            raise ValueError(f"{field} names {name!r} twice: name every task once.")


def make_multi_task(env_ids: Sequence[str], pad: bool = False, render_mode: str | None = None) -> MultiTaskEnv:
    """
    Make ``MultiTask-v0``: a multi-task environment of any registered environments.

    :param env_ids: ids of the environments; they are also the names of the tasks
    :param pad: see ``MultiTaskEnv``
    :param render_mode: as in Gymnasium
    :return: the environment
    :raises ValueError: there are no ids, an id occurs twice, or the spaces cannot be combined
    """
    _check_names(env_ids, "env_ids")
    # Not every environment takes a render mode.
    kwargs: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    envs = {env_id: partial(gym.make, env_id, **kwargs) for env_id in env_ids}
    return MultiTaskEnv(envs, pad, render_mode)


def make_multi_task_atari(
    games: Sequence[str],
    terminal_on_life_loss: bool = False,
    clip_reward: bool = False,
    frame_stack: int = 4,
    render_mode: str | None = None,
) -> MultiTaskEnv:
    """
    Make ``MultiTaskAtari-v0``: a multi-task environment of Atari games with SB3's ``AtariWrapper`` and stacked frames.

    :param games: names of the games, such as "Pong" (for ``PongNoFrameskip-v4``); they are also the names of the tasks
    :param terminal_on_life_loss: whether a lost life ends the episode
    :param clip_reward: whether rewards are replaced by their sign
    :param frame_stack: number of stacked frames, padded with zeros as in SB3
    :param render_mode: as in Gymnasium
    :return: the environment
    :raises ValueError: there are no games, a game occurs twice, or a game is unknown
    """
    _check_names(games, "games")
    for game in games:
        if f"{game}NoFrameskip-v4" not in gym.registry:
            raise ValueError(
                f"Unknown game {game!r}: there is no {game}NoFrameskip-v4. Write names in the form 'SpaceInvaders'."
            )

    def make(game: str) -> gym.Env:
        env = gym.make(f"{game}NoFrameskip-v4", render_mode=render_mode)
        env = AtariWrapper(env, terminal_on_life_loss=terminal_on_life_loss, clip_reward=clip_reward)
        # (height, width, 1) becomes (frame_stack, height, width)
        env = gym.wrappers.ReshapeObservation(env, env.observation_space.shape[:2])  # type: ignore[index]
        return FrameStackObservation(env, frame_stack, padding_type="zero")

    return MultiTaskEnv({game: partial(make, game) for game in games}, render_mode=render_mode)


def tasks_of(env: VecEnv) -> list[Task]:
    """
    :param env: a vector environment of ``MultiTaskEnv``
    :return: its tasks
    :raises ValueError: the environment is not a multi-task environment
    """
    # Asked first: the process of an environment dies of a question that it cannot answer.
    if not env.has_attr("tasks"):
        raise ValueError(
            f"The environment has no tasks (observations {env.observation_space}): make one with "
            "gymnasium.make('MultiTaskAtari-v0', games=[...]) or gymnasium.make('MultiTask-v0', env_ids=[...])."
        )
    tasks: list[Task] = env.get_attr("tasks", indices=0)[0]
    return tasks


def check_same_tasks(known: Sequence[Task], tasks: Sequence[Task]) -> None:
    """
    Check that an environment has the tasks of an agent, in the same order: the agent selects its output layer by the
    index of the task.

    :param known: the tasks that the agent was made for; empty if the agent is being constructed
    :param tasks: the tasks of the environment
    :raises ValueError: the tasks differ
    """
    ours, theirs = ([task.name for task in each] for each in (known, tasks))
    if ours and ours != theirs:
        raise ValueError(
            f"The agent was made for the tasks {', '.join(ours)}, but the environment's are {', '.join(theirs)}: they "
            "must be the same, in the same order."
        )
