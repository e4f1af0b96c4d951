"""What a search takes from its teacher's play."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN

from sb3_distill.agents.load import load_teacher
from sb3_distill.compress.play import N_OBSERVATIONS, natural_temperature, play_facts, statistics_of
from sb3_distill.compress.view import View, show
from sb3_distill.evaluation.observations import N_EPISODES, record_observations


class Walk(gym.Env):
    """150 steps of a vector without bounds, whose episodes are counted."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Discrete(2)
    n_episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            Walk.n_episodes += 1
        self._place = 0
        return self._observed(), {}

    def step(self, action):
        self._place += 1
        return self._observed(), 1.0, self._place == 150, False, {}

    def _observed(self):
        return self.np_random.normal(size=2).astype(np.float32) * self._place


@pytest.fixture(autouse=True)
def registered():
    gym.register("Counted-v0", entry_point=Walk)
    yield
    del gym.registry["Counted-v0"]


def test_temperature_and_statistics_are_of_the_same_play(tmp_path: Path) -> None:
    teacher = load_teacher(DQN("MlpPolicy", "Counted-v0", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu"))
    observed = record_observations(teacher, "Counted-v0", N_OBSERVATIONS).values
    Walk.n_episodes = 0
    facts = play_facts(teacher, "Counted-v0", show(teacher, "Counted-v0", View()), teacher.observation_space, tmp_path)
    # Each begins with a seed of its own.
    assert Walk.n_episodes == N_EPISODES
    assert facts["temperature"] == natural_temperature(teacher, observed)
    assert facts["statistics"] == statistics_of(observed)
