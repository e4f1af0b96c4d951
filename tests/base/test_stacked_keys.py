"""Stacked Dict observations: a teacher of several keys sees the stacks on which it was trained, or is refused."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_distill import QPD, PolicyDistillation

QUICK: dict[str, Any] = {"learning_starts": 16, "buffer_size": 200, "n_teacher_episodes": 1, "device": "cpu", "seed": 0}


class Parts(gym.Env):
    """A vector and an image, of noise."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Box(0, 255, (1, 36, 36), np.uint8)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, bool(self.np_random.random() < 0.1), False, {}


def make(n_stack: int) -> VecEnv:
    env = make_vec_env(Parts, 2, seed=0)
    return VecFrameStack(env, n_stack) if n_stack > 1 else env


@pytest.mark.parametrize("algorithm", [PolicyDistillation, QPD])
def test_a_teacher_of_stacked_keys(algorithm: Any) -> None:
    own: dict[str, Any] = {"device": "cpu", "seed": 0}
    teachers = [
        DQN("MultiInputPolicy", make(n), buffer_size=10, **own)
        if algorithm is PolicyDistillation
        else PPO("MultiInputPolicy", make(n), n_steps=8, batch_size=8, **own)
        for n in (4, 1)
    ]
    student = algorithm("MultiInputPolicy", make(4), teachers[0], **QUICK).learn(40)
    assert student._n_updates > 0 and student.observation_space["b"].shape == (4, 36, 36)
    with pytest.raises(ValueError, match=r"VecFrameStack stacks 4 of them.*leave out VecFrameStack") as caught:
        algorithm("MultiInputPolicy", make(4), teachers[1], **QUICK)
    assert "stack of 1 frames" not in str(caught.value)
