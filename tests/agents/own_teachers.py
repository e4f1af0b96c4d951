"""Teachers that are objects of a user's own, as several test files make them."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_distill import Answers, Gaussian

CARTPOLE = gym.spec("CartPole-v1").make().observation_space


class Plain:
    """Ten lines: a network that was trained elsewhere."""

    observation_space, action_space = CARTPOLE, spaces.Discrete(2)

    def __init__(self, seed: int = 0) -> None:
        th.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def answer(self, obs: th.Tensor, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        outputs = self.net(obs)
        return Answers(log_probs=outputs[:, :2], values=outputs[:, 2]), None


class Counter:
    """Remembers the step of an episode, and says it: the first Q-value is its number, the best action its parity."""

    def __init__(self, observation_space: spaces.Space = CARTPOLE, n_actions: int = 2) -> None:
        self.observation_space, self.action_space = observation_space, spaces.Discrete(n_actions)

    def answer(self, obs: th.Tensor, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        # In NumPy alone: there is no network in it.
        steps = np.zeros(len(obs), np.int64) if state is None else state["steps"]
        others = np.zeros((len(obs), self.action_space.n - 1))
        others[:, 0] = steps + np.where(steps % 2, 1, -1)
        return Answers(q_values=np.column_stack([steps, others])), {"steps": steps + 1}


class Parity(gym.Env):
    """Shows nothing, and pays for the parity of the step. Its episodes have 3 to 5 steps."""

    observation_space, action_space = CARTPOLE, spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left, self.steps = int(self.np_random.integers(3, 6)), 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.steps % 2)
        self.steps += 1
        return np.zeros(4, np.float32), reward, self.steps == self.left, False, {}


def fails() -> Any:
    raise KeyError("weights")


gym.register("Parity-v0", Parity)


class Swinger:
    """Continuous actions, from the answers that are given to it."""

    observation_space = gym.spec("Pendulum-v1").make().observation_space
    action_space = spaces.Box(-2.0, 2.0, (1,))

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def answer(self, obs: th.Tensor, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        mean = 0.5 * obs[:, 1:2].clamp(-1, 1)
        if self.kind == "point":
            return Answers(point=mean), None
        return Answers(gaussian=Gaussian(mean, th.full_like(mean, 0.3), squashed=self.kind == "squashed")), None


def make_plain() -> Plain:
    return Plain()
