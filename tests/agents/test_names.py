"""A name that is nearly right: the message says which agents are meant. Where none is named, all are listed."""

import shutil
from pathlib import Path

import pytest

from sb3_distill import load_teacher
from sb3_distill.agents.files import AgentNotFoundError
from sb3_distill.agents.sources import find_zoo_teacher
from sb3_distill.cli import main


@pytest.fixture
def agents(tmp_path: Path, cartpole_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$RL_TRAINED_AGENTS with two agents of the Zoo; there is no rl-trained-agents/ beside the reader."""
    folder = tmp_path / "agents"
    for env_id in ("CartPole-v1", "PongNoFrameskip-v4"):
        run = folder / "dqn" / f"{env_id}_1"
        run.mkdir(parents=True)
        shutil.copy(cartpole_teacher, run / f"{env_id}.zip")
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def hoppers(agents: Path) -> Path:
    """Two more, of which only the names are read."""
    for algo in ("sac", "tqc"):
        (agents / algo / "Hopper-v3_1/Hopper-v3").mkdir(parents=True)
        (agents / algo / "Hopper-v3_1/Hopper-v3.zip").touch()
    return agents


@pytest.mark.parametrize(
    "named, meant",
    [
        ("zoo:dqn/CartPol-v1", "Did you mean zoo:dqn/CartPole-v1?"),
        ("zoo:dqm/CartPole-v1", "Unknown algorithm 'dqm': choose one of dqn, "),
        ("zoo:dqm/CartPole-v1", "Did you mean 'dqn'? At hand for this game: zoo:dqn/CartPole-v1."),
        ("zoo:ppo/CartPole-v0", "At hand for this game: zoo:dqn/CartPole-v1, of later versions with"),
        ("zoo:dqn/ALE/Pong-v5", "At hand for this game: zoo:dqn/PongNoFrameskip-v4."),
        ("zoo:dqn/Pong-v4", "At hand for this game: zoo:dqn/PongNoFrameskip-v4."),
        ("rl-trained-agents/dqn/CartPole-v1_1", "It is in $RL_TRAINED_AGENTS: "),
    ],
)
def test_the_agent_that_is_meant_is_named(agents: Path, named: str, meant: str) -> None:
    with pytest.raises(AgentNotFoundError) as caught:
        load_teacher(named)
    assert meant in str(caught.value)


def test_an_agent_of_the_same_game_is_named_where_no_teacher_was(agents: Path) -> None:
    with pytest.raises(AgentNotFoundError, match=r"rl-trained-agents/ \(no such folder\).*PongNoFrameskip-v4"):
        find_zoo_teacher("ALE/Pong-v5")


def test_no_other_game_is_suggested(agents: Path) -> None:
    # As LunarLander beside LunarLanderContinuous
    with pytest.raises(AgentNotFoundError) as caught:
        find_zoo_teacher("CartPoleSwingUp-v1")
    assert "Did you mean" not in str(caught.value) and "At hand" not in str(caught.value)


@pytest.mark.parametrize(
    "named, meant",
    [
        ("zoo:sac/Hopper-v5", "At hand for this game: zoo:sac/Hopper-v3, zoo:tqc/Hopper-v3."),
        ("zoo:tqc/Hopper-v5", "At hand for this game: zoo:tqc/Hopper-v3, zoo:sac/Hopper-v3."),
        ("zoo:tqc/Hoppr-v3", "Did you mean zoo:tqc/Hopper-v3?"),
        ("zoo:ppo/Hoppr-v3", "Did you mean zoo:sac/Hopper-v3 or zoo:tqc/Hopper-v3?"),
    ],
)
def test_agents_of_the_algorithm_that_was_named_come_first(hoppers: Path, named: str, meant: str) -> None:
    with pytest.raises(AgentNotFoundError) as caught:
        load_teacher(named)
    assert meant in str(caught.value)


def test_what_the_student_needs_is_said_where_an_agent_is_at_hand(hoppers: Path) -> None:
    for env_id, is_said in (("Hopper-v5", True), ("Ant-v5", False)):
        with pytest.raises(AgentNotFoundError) as caught:
            find_zoo_teacher(env_id, ["ppo"], other_algos="Others squash.")
        assert ("zoo:sac/Hopper-v3, zoo:tqc/Hopper-v3. Others squash." in str(caught.value)) is is_said


def test_teachers_alone_lists_what_is_at_hand(
    agents: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["teachers"]) == 0
    shown = capsys.readouterr().out
    assert "dqn/CartPole-v1_1" in shown and "dqn/PongNoFrameskip-v4_1" in shown
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(agents / "gone"))
    assert main(["teachers"]) == 1
    assert "gone/ (no such folder)" in capsys.readouterr().err
