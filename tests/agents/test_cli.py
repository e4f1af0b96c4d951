"""The verb that lists agents."""

import json

import numpy as np
from stable_baselines3 import DQN

from tests.helpers import run_python


def test_teachers_verb(cartpole_teacher, tmp_path):
    run = tmp_path / "agents" / "dqn" / "CartPole-v1_1"
    run.mkdir(parents=True)
    DQN.load(cartpole_teacher).save(run / "CartPole-v1")
    np.savez(run / "evaluations.npz", results=np.array([[100.0, 200.0], [400.0, 500.0]]))
    printed = run_python(tmp_path, "-m", "sb3_distill", "teachers", str(run)).stdout
    for fact in ("dqn", "CartPole-v1", "Discrete(2)", "q_net.0.weight", "226", "best 450.0 ± 50.0"):
        assert fact in printed
    both = run_python(tmp_path, "-m", "sb3_distill", "teachers", "agents", str(cartpole_teacher)).stdout
    assert len(both.splitlines()) == 3
    facts = json.loads(run_python(tmp_path, "-m", "sb3_distill", "teachers", str(run), "--json").stdout)
    assert facts[0]["n_parameters"] == 226 and len(facts[0]["sha256"]) == 64
