"""The Atari teachers that a clone has."""

from pathlib import Path

import pytest

from sb3_distill import load_teacher
from sb3_distill.agents.sources import find_zoo_teacher
from tests.helpers import FRAMES, REPOSITORY


@pytest.mark.parametrize("env_id", ["BreakoutNoFrameskip-v4", "SpaceInvadersNoFrameskip-v4"])
def test_a_clone_has_atari_teachers(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    found = Path(find_zoo_teacher(env_id))
    assert found == Path("rl-trained-agents/ppo") / f"{env_id}_1"
    assert (found / f"{env_id}.zip").stat().st_size <= 7_000_000
    teacher = load_teacher(found)
    assert (teacher.algo, teacher.env_id, teacher.observation_space.shape) == ("ppo", env_id, FRAMES.shape)
