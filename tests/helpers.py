"""What test files of several rooms use."""

import os
import resource
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_distill.cli import main
from sb3_distill.common.answers import Answers

REPOSITORY = Path(__file__).parents[1]
# Agents of the Zoo, which some tests need
TRAINED_AGENTS = Path(os.environ.get("RL_TRAINED_AGENTS", REPOSITORY.parent / "shared" / "rl-trained-agents"))
FRAMES = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def same(first: th.nn.Module, second: th.nn.Module) -> bool:
    """Whether two networks have the same names and, bit for bit, the same values."""
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(th.equal(states[0][key], states[1][key]) for key in states[0])


def status_of(command: list[str]) -> int:
    """With which status a command of ours ends that is refused as a wrong command line."""
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def run_python(
    folder: Path, *arguments: str | Path, python: str | Path = sys.executable, status: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python of its own in a folder, offline, and without what this one was told by its environment."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SB3_DISTILL"))}
    # One thread: students this small lose time to a second one
    ours = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "SDL_VIDEODRIVER": "dummy",
        "MPLBACKEND": "agg",
        "COLUMNS": "200",
    }
    result = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env={**inherited, **ours, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == status, f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def fresh_python(folder: Path) -> Path:
    """
    Python of a fresh environment with every dependency and without us.

    The dependencies are those of this environment, through a plain path line: such a folder is not searched for
    start-up files, so that a hook can only come from what is installed in the fresh environment itself.
    """
    run_python(folder, "-m", "venv", "--without-pip", "venv")
    python = folder / "venv" / "bin" / "python"
    (site_packages(python) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    return python


def site_packages(python: Path) -> Path:
    (folder,) = python.parents[1].glob("lib/python*/site-packages")
    return folder


@contextmanager
def full_disk() -> Iterator[None]:
    """A disk on which not one byte more can be written. New names are possible, as on a real one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def content_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def preferences(player: Any, obs: Any) -> th.Tensor:
    """The one number per action with which a teacher or a student's policy answers."""
    answered = player.answer(obs)
    answers: Answers = answered if isinstance(answered, Answers) else answered[0]
    return answers.preferences
