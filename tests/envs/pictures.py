"""A game with a screen, pictures of it, and a teacher with a memory that sees such pictures alone."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_distill import Answers


class Dot(gym.Env):
    """A dot that moves over a screen; its vector says only whether the last action was to the right."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    observation_space, action_space = spaces.Box(0.0, 1.0, (1,)), spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = int(self.np_random.integers(4, 12)), 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place = min(max(self.place + (1 if action == 1 else -1), 0), 15)
        self.steps += 1
        return np.array([action], np.float32), float(self.place), self.steps == 12, False, {}

    def render(self) -> Any:
        if self.render_mode is None:
            return None
        screen = np.zeros((16, 16, 3), np.uint8)
        screen[8, self.place] = 255
        return screen


class Blind(Dot):
    """The same without a screen."""

    metadata = {}  # noqa: RUF012


gym.register("Dot-v0", Dot)


def row_of_dot(screen: np.ndarray) -> np.ndarray:
    """Where the dot is, in 8 columns: floats of a shape that no stock wrapper gives."""
    return screen[8, ::2, 0].reshape(1, 8) / 255.0 + screen[8, 1::2, 0].reshape(1, 8) / 255.0


def bytes_of_dot(screen: np.ndarray) -> np.ndarray:
    return (255 * row_of_dot(screen)).astype(np.uint8)


def always_right(seed: int) -> float:
    """The return of an episode in which the dot goes to the right alone."""
    game = Dot()
    game.reset(seed=seed)
    return float(sum(min(game.place + step, 15) for step in range(1, 13)))


def fails(screen: np.ndarray) -> np.ndarray:
    raise KeyError("ball")


def fails_at_the_border(screen: np.ndarray) -> np.ndarray:
    if screen[8, 0, 0] or screen[8, 15, 0]:
        raise KeyError("ball")
    return row_of_dot(screen)


def place_of(env: gym.Env) -> np.ndarray:
    return np.array([env.get_wrapper_attr("place")], np.float64)


def rendered_row(env: gym.Env) -> Any:
    return row_of_dot(env.render())  # type: ignore[arg-type]


def small_screen(screen: np.ndarray) -> np.ndarray:
    """80 x 80 from the part of the screen in which the game is, as old A3C agents saw it."""
    return screen[34:194:2, ::2].mean(axis=2).astype(np.uint8)


class Watcher:
    """Ten lines: a memory over single pictures."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Box, n_actions: int = 2) -> None:
        th.manual_seed(0)
        self.observation_space, self.action_space = space, spaces.Discrete(n_actions)
        self.gru, self.head = nn.GRUCell(int(np.prod(space.shape)), 8), nn.Linear(8, n_actions)

    def answer(self, obs: th.Tensor, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        state = th.zeros(len(obs), 8) if state is None else state
        state = self.gru(obs.flatten(1) / (255 if obs.dtype == th.uint8 else 1), state)
        return Answers(log_probs=self.head(state)), state


def make_watcher() -> Watcher:
    return Watcher(spaces.Box(-np.inf, np.inf, (1, 8), np.float32))
