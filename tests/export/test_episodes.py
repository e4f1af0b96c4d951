"""Step sizes are chosen on whole episodes, and the files are checked on others."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.base.students import student_model
from sb3_distill.evaluation.observations import CHECKING_SEED, FITTING_SEED, N_EPISODES
from sb3_distill.evaluation.scoring import score_agent
from sb3_distill.export.cli import main as export
from sb3_distill.export.export import INTEGER_FILE, ExportError, export_agent
from sb3_distill.export.post_training import quantize_agent
from sb3_distill.export.runner import PolicyRunner

ENV_ID = "Growing-v0"
SPACE = spaces.Box(0, 1_000, (2,), np.float32)


class Growing(gym.Env):
    """Two numbers that grow with time; a point for naming the larger one."""

    observation_space = SPACE
    action_space = spaces.Discrete(2)
    length = 400
    seeds: list[int | None]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.n = 0
        return self._obs(), {}

    def step(self, action):
        self.n += 1
        reward = float(action == np.argmax(self.obs))
        return self._obs(), reward, self.n == self.length, False, {}

    def _obs(self):
        self.obs = (self.n * self.np_random.uniform(0.5, 1, 2)).astype(np.float32)
        return self.obs


@pytest.fixture(autouse=True)
def growing(monkeypatch):
    monkeypatch.setattr(Growing, "seeds", [], raising=False)
    gym.register(ENV_ID, Growing)
    yield Growing
    del gym.registry[ENV_ID]


def optimal_student() -> PolicyDistillation:
    """Names the larger number: two units that pass them on, and two outputs that do likewise."""
    student = student_model("MlpPolicy", {"net_arch": [2]}, SPACE, Growing.action_space, "cpu")
    with th.no_grad():
        for name, parameter in student.policy.q_net.q_net.named_parameters():
            parameter.copy_(th.eye(2) if name.endswith("weight") else th.zeros(2))
    return student


def optimal() -> Teacher:
    return load_teacher(optimal_student(), device="cpu")


def share_of_others(folder: Path, seed: int) -> float:
    """How often a file acts otherwise than the optimal agent, over a whole episode."""
    runner, agent, env = PolicyRunner(folder / INTEGER_FILE), optimal(), Growing()
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(0)[0] for _ in range(Growing.length - 1)]
    batch = np.stack(observations)
    return float((runner.predict(batch)[0] != agent.predict(batch)[0]).mean())


def test_quantizing_after_training_sees_the_ends_of_episodes():
    agent = optimal()
    assert score_agent(agent, ENV_ID, 5).mean == Growing.length
    # As many as a quarter of four episodes has
    quantized = quantize_agent(agent, 8, 8, ENV_ID, n_observations=400)
    assert score_agent(quantized, ENV_ID, 5).mean > 0.95 * Growing.length


@pytest.mark.parametrize("bits", [8, 4])
def test_other_actions_are_counted_over_whole_episodes(bits, tmp_path: Path):
    description = export_agent(optimal(), tmp_path, ENV_ID, 1_000, max_disagreement=1.0, bits=bits)
    assert (description.n_observations, description.n_episodes) == (1_000, N_EPISODES)
    expected = np.mean([share_of_others(tmp_path, seed) for seed in range(10)])
    assert (expected > 0.03) == (bits == 4)
    # Three standard errors of a thousand observations
    error = 3 * np.sqrt(expected * (1 - expected) / 1_000)
    assert description.files[INTEGER_FILE].disagreement == pytest.approx(expected, abs=error + 1e-3)


def test_nothing_is_checked_on_what_it_was_fitted_to(growing, tmp_path: Path):
    export_agent(optimal(), tmp_path, ENV_ID, 100, max_disagreement=1.0)
    seeds = [seed for seed in growing.seeds if seed is not None]
    assert sorted(seeds) == [first + i for first in (FITTING_SEED, CHECKING_SEED) for i in range(N_EPISODES)]


def test_it_is_said_on_what_a_file_was_checked(tmp_path: Path, capsys):
    student = tmp_path / "student.zip"
    path = str(tmp_path / "out")
    optimal_student().save(student)
    arguments = [str(student), "-o", path, "--env", ENV_ID, "--n-observations", "200"]
    assert export([*arguments, "--max-disagreement", "1"]) == 0
    assert capsys.readouterr().out.count("other actions at 200 observations from 10 episodes") == 2
    description = json.loads((tmp_path / "out" / "policy.json").read_text())
    assert description["n_observations"] == 200 and description["n_episodes"] == N_EPISODES
    with pytest.raises(ExportError, match=r"at \d+\.\d% of 200 observations from 10 episodes, more than the 0\.0% of"):
        export_agent(student, path, ENV_ID, 200, max_disagreement=0.0, bits=2)
