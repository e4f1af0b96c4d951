"""Environments of MuJoCo, Box2D and MinAtar where these are not installed, and those that Gymnasium has retired."""

import re
import sys

import gymnasium as gym
import pytest
from sb3_contrib import ARS
from stable_baselines3 import PPO

from sb3_distill import QPD, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.cli import main
from sb3_distill.evaluation.environments import find_env_id
from tests.helpers import status_of

STUDY = """
title: Cheetahs
settings: {algo: qpd, env: HalfCheetah-v5}
grid: {seed: [0]}
"""
EXTRA = r"HalfCheetah-v5 needs MuJoCo, which is not installed: pip install 'sb3-distill\[mujoco\]'"


@pytest.fixture
def without_mujoco(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)


@pytest.mark.usefixtures("without_mujoco")
def test_the_extra_is_named_where_it_is_missing(tmp_path, capsys):
    with pytest.raises(ValueError, match=EXTRA):
        QPD("MlpPolicy", "HalfCheetah-v5")
    agent = load_teacher(PPO("MlpPolicy", "CartPole-v1", device="cpu"))
    with pytest.raises(AgentError, match=EXTRA):
        find_env_id(agent, "HalfCheetah-v5")
    (tmp_path / "study.yml").write_text(STUDY)
    assert main(["study", str(tmp_path / "study.yml"), "--dry-run", "-o", str(tmp_path / "out")]) == 1
    assert "HalfCheetah-v5 needs MuJoCo, which is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "retired, today",
    [
        # Registered, though it cannot be made; and registered no more
        ("HalfCheetah-v3", "HalfCheetah-v5"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("LunarLanderContinuous-v2", "LunarLanderContinuous-v3"),
    ],
)
def test_the_version_of_today_is_named_for_a_retired_one(retired, today):
    agent = load_teacher(ARS("LinearPolicy", "Pendulum-v1", device="cpu"), env_id=retired)
    with pytest.raises(AgentError, match=rf"no {retired} any more.* can play {today}.*--env") as raised:
        find_env_id(agent)
    assert "--gym-packages" not in str(raised.value)
    with pytest.raises(ValueError, match=f"can play {today}"):
        QPD("MlpPolicy", retired)
    assert gym.spec(today) and find_env_id(agent, "Pendulum-v1") == "Pendulum-v1"


@pytest.mark.parametrize("unknown", ["LunarLander-v4", "LunarLanding-v2", "LunarLander"])
def test_no_version_of_today_is_named_for_what_never_was(unknown):
    agent = load_teacher(ARS("LinearPolicy", "Pendulum-v1", device="cpu"), env_id=unknown)
    with pytest.raises(AgentError, match=r"cannot be made.*--gym-packages"):
        find_env_id(agent)


@pytest.mark.parametrize(
    "env_id, package, extra",
    [
        ("LunarLander-v3", "Box2D", "box2d"),
        ("MinAtar/Breakout-v1", "minatar", "minatar"),
        ("HalfCheetah-v5", "mujoco", "mujoco"),
    ],
)
def test_train_and_studies_name_the_extra_before_anything_is_made(
    env_id, package, extra, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    # The command sets it.
    monkeypatch.setattr(sys, "argv", sys.argv)
    assert status_of(["zoo", "train", "--algo", "rtpd", "--env", env_id]) == 2
    assert re.search(rf"{env_id} needs .*sb3-distill\[{extra}\]", capsys.readouterr().err)
    (tmp_path / "study.yml").write_text(f"settings: {{algo: rtpd, env: {env_id}}}\ngrid: {{seed: [0]}}\n")
    assert main(["study", "study.yml", "--dry-run"]) == 1
    assert f"sb3-distill[{extra}]" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()
