"""Exported policies give actions in the shape that the environment takes."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO

from sb3_distill import load_teacher
from sb3_distill.evaluation.scoring import score_agent
from sb3_distill.export.bench import mean_return, open_file
from sb3_distill.export.export import FLOAT_FILE, INTEGER_FILE, export_agent
from sb3_distill.export.runner import PolicyRunner

ENV_ID = "Shaped-v0"


class Shaped(gym.Env):
    """Takes actions of one shape alone. The return tells every entry of them."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, shape):
        self.action_space = spaces.Box(-1, 1, shape, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = 0
        return self._obs(), {}

    def step(self, action):
        assert action.shape == self.action_space.shape
        self.n += 1
        reward = float(np.ravel(action) @ np.arange(1, 1 + action.size))
        return self._obs(), reward, self.n == 9, False, {}

    def _obs(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 2), (1, 2, 3)], ids=str)
def test_actions_have_the_shape_of_their_space(shape, tmp_path: Path, monkeypatch):
    spec = gym.envs.registration.EnvSpec(ENV_ID, Shaped, kwargs={"shape": shape})
    monkeypatch.setitem(gym.registry, ENV_ID, spec)
    model = PPO("MlpPolicy", ENV_ID, n_steps=8, batch_size=8, seed=0, device="cpu")
    agent = load_teacher(model, device="cpu")
    description = export_agent(agent, tmp_path, n_observations=20, max_disagreement=1.0)
    assert description.action["shape"] == list(shape)
    obs = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)
    expected, _ = model.predict(obs, deterministic=True)
    for file in (FLOAT_FILE, INTEGER_FILE):
        runner = PolicyRunner(tmp_path / file)
        actions, logits = runner.predict(obs)
        assert actions.shape == (7, *shape) and logits.shape == (7, int(np.prod(shape)))
        assert runner.predict(obs[0])[0].shape == shape
        assert np.allclose(actions, expected, atol=1e-5 if file == FLOAT_FILE else 0.05)
    played = mean_return(open_file(tmp_path / FLOAT_FILE), description, 2)
    assert played == pytest.approx(score_agent(agent, ENV_ID, 2).mean, abs=1e-4)
