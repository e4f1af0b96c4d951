"""The verb that lists agents."""

import json

import numpy as np
from stable_baselines3 import DQN

from sb3_distill.cli import main
from tests.helpers import run_python


def test_teachers_verb(cartpole_teacher, tmp_path, capsys):
    run = tmp_path / "agents" / "dqn" / "CartPole-v1_1"
    run.mkdir(parents=True)
    DQN.load(cartpole_teacher).save(run / "CartPole-v1")
    np.savez(run / "evaluations.npz", results=np.array([[100.0, 200.0], [400.0, 500.0]]))
    printed = run_python(tmp_path, "-m", "sb3_distill", "teachers", str(run)).stdout
    for fact in ("dqn", "CartPole-v1", "Discrete(2)", "q_net.0.weight", "226", "best 450.0 ± 50.0"):
        assert fact in printed
    assert main(["teachers", str(tmp_path / "agents"), str(cartpole_teacher)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["teachers", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts[0]["n_parameters"] == 226 and len(facts[0]["sha256"]) == 64
