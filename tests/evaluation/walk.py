"""An environment and a wrapper of a user's own package."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Walk(gym.Env):
    """The start depends on the seed alone, everything after it on the actions alone."""

    def __init__(self, length=30, continuous=False):
        self.observation_space = spaces.Box(-10, 10, (3,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(3)
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=3).astype(np.float32)
        self.n_steps = 0
        return self.state.copy(), {}

    def step(self, action):
        push = float(np.asarray(action).reshape(-1)[0])
        self.state = np.clip(0.9 * np.roll(self.state, 1) + 0.3 * np.float32(push - 0.9) + np.sin(self.state), -10, 10)
        self.n_steps += 1
        reward = float(self.state[0] - 0.1 * push)
        return self.state.copy(), reward, bool(abs(self.state[1]) > 9), self.n_steps >= self.length, {}


class Mirror(gym.Wrapper):
    """Shows the mirrored state, and counts rewards twice."""

    def __init__(self, env, factor=2):
        super().__init__(env)
        self.factor = factor

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        return -obs, info

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return -obs, self.factor * reward, terminated, truncated, info


gym.register("Walk-v0", Walk)
