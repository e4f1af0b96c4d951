"""What a study needs is said before it runs, and refused where it is not there."""

import shutil

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium import spaces

from sb3_distill.base import cost
from sb3_distill.study.cell import Cell
from sb3_distill.study.cli import main
from sb3_distill.study.plan.needs import describe_needs, memory_of, settings_of
from tests.study.studies import write

TASKS = ["CartPole-v1", "Acrobot-v1"]


class Both(gym.Env):
    """An image with its channels last, and a vector."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (64, 64, 3), np.uint8), "vector": spaces.Box(-1, 1, (3,))}
    )
    action_space = spaces.Discrete(2)


class Broken(gym.Env):
    def __init__(self):
        raise RuntimeError("no such file")


@pytest.fixture(autouse=True)
def registered():
    gym.register("Both-v0", entry_point=Both)
    gym.register("Broken-v0", entry_point=Broken)
    yield
    del gym.registry["Both-v0"], gym.registry["Broken-v0"]


@pytest.fixture
def memory(monkeypatch):
    known = psutil.virtual_memory()

    def has(total):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: known._replace(total=total, available=total))
        monkeypatch.setattr(cost, "_GROUPS", ())

    return has


def test_settings_that_we_ship_are_known():
    assert settings_of(Cell("pd", "CartPole-v1", 0))["buffer_size"] == 15_000
    assert settings_of(Cell("pd", "PongNoFrameskip-v4", 0, hyperparams={"strict": True}))["init_from_teacher"] is False
    assert settings_of(Cell("pd", "MountainCarContinuous-v0", 0))["buffer_size"] == 50_000
    assert settings_of(Cell("qpd", "CartPole-v1", 0, hyperparams={"buffer_size": 7}))["buffer_size"] == 7


@pytest.mark.parametrize(
    ("cell", "n_bytes"),
    [
        # Four numbers of the observation, two of the teacher and its value
        (Cell("pd", "CartPole-v1", 0, 600), 600 * 28),
        (Cell("qpd", "CartPole-v1", 0, 10**9, {"buffer_size": 1_000}), 1_000 * 28),
        # Two observations of two numbers, action, reward, and two flags
        (Cell("rtpd", "MountainCar-v0", 0, 600), 600 * (2 * 8 + 20)),
        # Both tasks are kept; observations are padded to those of Acrobot.
        (
            Cell(
                "mtpd",
                "MultiTask-v0",
                0,
                10**6,
                {"buffer_size": 100},
                env_kwargs={"env_ids": ["CartPole-v1", "Acrobot-v1"], "pad": True},
            ),
            200 * (4 * 6 + 4 * 4),
        ),
        # The student sees one key.
        (Cell("pd", "Both-v0", 0, 10, {"student_keys": ["vector"]}), 10 * (3 * 4 + 12)),
        (Cell("ppd", "CartPole-v1", 0, 600), None),
        # Its run says what is wrong.
        (Cell("pd", "CartPole-v1", 0, 600, env_kwargs={"no_such": 1}), None),
        (Cell("pd", "CartPole-v1", 0, 600, {"strict": True}), None),
        (Cell("pd", "Broken-v0", 0, 600), None),
    ],
)
def test_memory_of_a_cell(cell, n_bytes):
    assert memory_of(cell) == n_bytes


def test_images_have_their_channels_first():
    """As a model sees them: three new planes of each step, whole."""
    for keys in (None, "image"):
        per_step = memory_of(Cell("pd", "Both-v0", 0, 10, {"student_keys": keys})) / 10
        assert 3 * 64 * 64 < per_step < 3 * 64 * 64 + 400


def test_frames_are_counted_once():
    per_step = memory_of(Cell("pd", "PongNoFrameskip-v4", 0, 54_000)) / 54_000
    assert 84 * 84 < per_step < 84 * 84 + 400


def test_a_study_says_what_it_needs(tmp_path, memory, capsys):
    memory(10**6)
    path = write(tmp_path / "s.yml", grid={"seed": [0, 1, 2]}, published=None)
    assert main([str(path), "-o", str(tmp_path / "out"), "-j", "2", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "3 cells, 3 to do, time about" in printed
    assert "Replay buffers: up to 33.6 KB of memory for 2 cells at the same time (this machine has 1 MB)" in printed
    assert "Disk: known when a cell has finished" in printed


def test_a_study_that_cannot_fit_is_refused(tmp_path, memory, capsys):
    memory(30_000)
    path = write(tmp_path / "s.yml", grid={"seed": [0, 1, 2]}, published=None)
    assert main([str(path), "-o", str(tmp_path / "out"), "-j", "2"]) == 1
    assert "needs 33.6 KB of memory, and this machine has 30 KB. Run fewer cells at" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("cells/*"))
    # Elsewhere there may be more.
    cells = [Cell("pd", "CartPole-v1", seed, 600) for seed in range(2)]
    assert describe_needs(cells, tmp_path, None) == "Disk: known when a cell has finished"


def test_the_disk_is_known_from_finished_cells(tmp_path, monkeypatch):
    cells = [Cell("pd", "CartPole-v1", seed, 600) for seed in range(3)]
    monkeypatch.setattr("sb3_distill.study.plan.needs.manifest_of", lambda folder, cell: cell.seed == 0 or None)
    own = tmp_path / "cells" / cells[0].key
    own.mkdir(parents=True)
    (own / "a.zip").write_bytes(bytes(1_500))
    assert "Disk: about 3 KB, by the finished cells" in describe_needs(cells, tmp_path, None)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2_000))
    with pytest.raises(ValueError, match="2 cells, by the finished ones, need up to 3 KB on the disk"):
        describe_needs(cells, tmp_path, None)
