"""Observations to fit to and to check on: from whole episodes over many starts."""

import tracemalloc

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_distill import load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.base.students import student_model
from sb3_distill.evaluation.observations import (
    CHECKING_SEED,
    FITTING_SEED,
    N_EPISODES,
    Observations,
    record_observations,
)

ENV_ID = "Clock-v0"


class Clock(gym.Env):
    """Shows the seed of the episode, the step, and the action before. Seeds that divide by 3 are short episodes."""

    action_space = spaces.Discrete(2)
    length, short, size = 300, 30, 3
    # Seeds of all episodes that began, and of those that came to their end
    begun: list[int]
    ended: list[int]

    def __init__(self):
        self.observation_space = spaces.Box(-np.inf, np.inf, (self.size,), np.float32)
        self.seed = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.n, self.last = seed, 0, 0
        if seed is not None:
            self.begun.append(seed)
        return self._obs(), {}

    def step(self, action):
        self.n, self.last = self.n + 1, action
        is_over = self.n == (self.short if self.seed is not None and self.seed % 3 == 0 else self.length)
        if is_over and self.seed is not None:
            self.ended.append(self.seed)
        return self._obs(), 0.0, is_over, False, {}

    def _obs(self):
        return np.array([self.seed or 0, self.n, self.last, *[0] * (self.size - 3)], np.float32)


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(Clock, "begun", [], raising=False)
    monkeypatch.setattr(Clock, "ended", [], raising=False)
    gym.register(ENV_ID, Clock)
    yield Clock
    del gym.registry[ENV_ID]


def record(n_observations: int, seed: int = FITTING_SEED) -> Observations:
    return record_observations(player(), ENV_ID, n_observations, seed)


def player() -> Teacher:
    """An agent that always takes the action 0."""
    space = spaces.Box(-np.inf, np.inf, (Clock.size,), np.float32)
    student = student_model("MlpPolicy", {"net_arch": []}, space, Clock.action_space, "cpu")
    for parameter in student.policy.parameters():
        parameter.data.zero_()
    return load_teacher(student, device="cpu")


def test_every_step_of_many_whole_episodes_has_the_same_chance(clock):
    recorded = record(1_000)
    assert recorded.values.shape == (1_000, 3) and recorded.n_episodes == N_EPISODES
    assert sorted(clock.begun) == sorted(clock.ended) == [FITTING_SEED + i for i in range(N_EPISODES)]
    seeds, steps = recorded.values[:, 0], recorded.values[:, 1]
    # No step comes twice.
    assert len(np.unique(recorded.values[:, :2], axis=0)) == 1_000
    long = steps[seeds % 3 != 0]
    n_long = sum(seed % 3 != 0 for seed in clock.begun)
    n_steps = 300 * n_long + 30 * (N_EPISODES - n_long)
    assert len(long) == pytest.approx(1_000 * 300 * n_long / n_steps, rel=0.05)
    quarters, _ = np.histogram(long, 4, (0, 300))
    assert quarters == pytest.approx(np.full(4, len(long) / 4), rel=0.2)


def test_every_second_episode_is_nearly_the_agents_own(clock):
    seeds, _, last = record(2_000).values.T
    # Half of the random actions are the agent's.
    shares = [2 * last[seeds % 2 == parity].mean() for parity in (0, 1)]
    assert 0.001 < shares[0] < 0.03 and shares[1] == pytest.approx(0.1, abs=0.03)


def test_the_seed_decides(clock):
    values = [record(100, seed).values for seed in (FITTING_SEED, FITTING_SEED, CHECKING_SEED)]
    assert np.array_equal(values[0], values[1])
    assert not set(values[0][:, 0]) & set(values[2][:, 0])


def test_short_episodes_are_followed_by_more(clock, monkeypatch):
    monkeypatch.setattr(clock, "length", 7)
    monkeypatch.setattr(clock, "short", 1)
    recorded = record(500)
    assert len(recorded.values) == 500 and recorded.n_episodes > 90
    assert len(set(clock.begun)) == len(clock.begun)


def test_as_many_episodes_as_there_are_observations(clock):
    recorded = record(3)
    assert len(clock.begun) == 3 and len(recorded.values) == 3 and 1 <= recorded.n_episodes <= 3


def test_memory_is_that_of_what_is_kept(clock, monkeypatch):
    """All observations together would be 30 MB."""
    monkeypatch.setattr(clock, "size", 5_000)
    monkeypatch.setattr(clock, "length", 100)
    tracemalloc.start()
    values = record(20).values
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values.nbytes == 4 * 5_000 * 20 and peak < 15 * values.nbytes


def test_episodes_that_do_not_end_are_left_and_named(clock, monkeypatch):
    monkeypatch.setattr(clock, "length", 10**9)
    monkeypatch.setattr("sb3_distill.evaluation.observations.MAX_STEPS", 400)
    with pytest.warns(UserWarning, match=r"[34] of 5 episodes of Clock-v0 had not ended after 400 steps"):
        recorded = record(200)
    assert recorded.values[:, 1].max() > 350
