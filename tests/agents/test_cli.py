"""The verb that lists agents."""

import json
import shutil

import numpy as np
from stable_baselines3 import DQN

from sb3_distill.cli import main
from tests.agents.onnx_files import linear


def test_teachers_verb(cartpole_teacher, tmp_path, capsys):
    run = tmp_path / "agents" / "dqn" / "CartPole-v1_1"
    run.mkdir(parents=True)
    DQN.load(cartpole_teacher).save(run / "CartPole-v1")
    np.savez(run / "evaluations.npz", results=np.array([[100.0, 200.0], [400.0, 500.0]]))
    assert main(["teachers", str(run)]) == 0
    printed = capsys.readouterr().out
    for fact in ("dqn", "CartPole-v1", "Discrete(2)", "q_net.0.weight", "226", "best 450.0 ± 50.0"):
        assert fact in printed
    assert main(["teachers", str(tmp_path / "agents"), str(cartpole_teacher)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["teachers", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts[0]["n_parameters"] == 226 and len(facts[0]["sha256"]) == 64


def test_a_state_is_no_agent_and_says_that_the_run_can_go_on(cartpole_teacher, tmp_path, capsys, recwarn):
    run = tmp_path / "dqn" / "CartPole-v1_1"
    run.mkdir(parents=True)
    (run / "run_state.zip").write_bytes(b"state")
    assert main(["teachers", str(run)]) == 1
    assert "holds no agent" in capsys.readouterr().err
    for name in ("rl_model_10_steps.zip", "CartPole-v1.zip"):
        shutil.copy(cartpole_teacher, run / name)
        assert main(["teachers", str(run)]) == 0
        output = capsys.readouterr()
        assert "dqn" in output.out and f"`sb3-distill resume {run}` goes on with the run" in output.err
    assert not [warning for warning in recwarn if "run_state" in str(warning.message)]


def test_an_object_needs_its_package(cartpole_teacher, capsys, monkeypatch):
    name = "tests.agents.own_teachers:make_plain"
    monkeypatch.setattr("sb3_distill.envs.imports._NAMED", set())
    monkeypatch.setattr("sb3_distill.envs.imports._TRUSTED", {"sb3_distill"})
    assert main(["teachers", name]) == 1
    assert "if you trust it, pass --gym-packages tests" in capsys.readouterr().err
    assert main(["teachers", name, "--gym-packages", "nothing_of_this_name"]) == 1
    assert "--gym-packages: nothing_of_this_name cannot be imported" in capsys.readouterr().err
    assert main(["teachers", name, str(cartpole_teacher), "--gym-packages", "tests.agents.own_teachers"]) == 0
    (own,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(name))
    assert own.split() == [name, "unknown", "none", "67", "-"]


def test_what_onnx_files_leave_open_is_said_by_options(cartpole_teacher, tmp_path, capsys):
    unnamed = linear(tmp_path / "y.onnx", 4, 2, target="y")
    actions = linear(tmp_path / "actions.onnx", 3, 1, target="actions")
    for path in (unnamed, actions):
        assert main(["teachers", str(path)]) == 1
        assert "(Use --env and --teacher-kwargs for what is missing in such a file.)" in capsys.readouterr().err
    assert main(["teachers", str(unnamed), "--teacher-kwargs", "answers:'logits'"]) == 0
    assert main(["teachers", str(actions), "--env", "Pendulum-v1"]) == 0
    assert "Box(-2.0, 2.0, (1,), float32)" in capsys.readouterr().out
    assert main(["teachers", str(cartpole_teacher), "--teacher-kwargs", "answers:'logits'"]) == 1
    assert "say what an ONNX file does not, and none is named" in capsys.readouterr().err
