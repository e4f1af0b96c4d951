"""Sampled actions of agents."""

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C

from sb3_distill import load_teacher


def test_sampled_actions_of_gsde_agents_repeat_and_are_independent():
    """SB3's predict keeps the noise matrix that was drawn, without a seed, when the agent was loaded."""
    model = A2C("MlpPolicy", "Pendulum-v1", use_sde=True, seed=1, policy_kwargs={"log_std_init": -2}, device="cpu")
    obs = np.tile(np.array([0.5, 0.5, 1.0], np.float32), (2_000, 1))
    drawn = []
    for _ in range(2):
        teacher = load_teacher(model, device="cpu")
        with th.random.fork_rng():
            th.manual_seed(3)
            drawn.append([teacher.predict(part, deterministic=False)[0] for part in (obs, obs, obs[0])])
    for first, again in zip(*drawn, strict=True):
        assert np.array_equal(first, again)
    first, second, single = drawn[0]
    assert not np.array_equal(first, second) and single.shape == (1,)
    gaussian = teacher.answer(th.as_tensor(obs[:1]))[0].gaussian
    mean, std = gaussian.mean.item(), gaussian.std.item()
    # predict clips to the bounds, which are -2 and 2
    assert abs(mean) + 4 * std < 2
    assert abs(first.mean() - mean) < 4 * std / np.sqrt(2_000)
    assert abs(first.std() / std - 1) < 4 / np.sqrt(4_000)
    sampled = teacher.answer(th.as_tensor(obs))[0].sample([np.random.default_rng(row) for row in range(2_000)])
    assert abs(sampled.std() / std - 1) < 4 / np.sqrt(4_000)


class Places(gym.Env):
    """Its observations are numbers."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Box(-2, 2, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 1, 0.0, False, False, {}


def test_agents_act_on_a_single_number():
    teacher = load_teacher(A2C("MlpPolicy", Places(), use_sde=True, seed=1, device="cpu"), device="cpu")
    for deterministic in (True, False):
        for observation in (1, np.int64(1), np.array(1)):
            assert teacher.predict(observation, deterministic=deterministic)[0].shape == (2,)
        assert teacher.predict(np.array([1, 2]), deterministic=deterministic)[0].shape == (2, 2)
