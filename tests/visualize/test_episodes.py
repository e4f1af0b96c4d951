"""Episodes that are played to be drawn."""

import gymnasium as gym
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from stable_baselines3 import DQN

from sb3_distill import load_teacher
from sb3_distill.visualize.cli import main
from sb3_distill.visualize.episodes import play_episodes


def test_environments_without_pictures(monkeypatch):
    """They are closed all the same."""
    closed = []
    monkeypatch.setattr(CartPoleEnv, "close", lambda env: closed.append(env))
    gym.register("Blind-v0", entry_point=lambda render_mode=None: gym.make("CartPole-v1").unwrapped)
    try:
        agent = load_teacher(DQN("MlpPolicy", "Blind-v0", buffer_size=10), device="cpu")
        closed.clear()
        with pytest.raises(ValueError, match="Blind-v0 cannot be drawn: with render_mode='rgb_array' it renders no"):
            play_episodes(agent, "Blind-v0")
        assert len(closed) == 1
    finally:
        del gym.registry["Blind-v0"]


def test_help_of_the_verb(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0 and "in % of the teacher" in " ".join(capsys.readouterr().out.split())
