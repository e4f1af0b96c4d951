"""A study of CartPole that several test files run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from sb3_distill.study.backends import Job
from sb3_distill.study.job import run_cell
from sb3_distill.study.manifest import SETTINGS

CARTPOLE = {
    "title": "CartPole & losses",
    "settings": {"algo": "pd", "env": "CartPole-v1", "n_timesteps": 600, "n_envs": 1, "rollout_policy": "teacher"},
    "grid": {"loss": ["kl", "nll"], "seed": [0]},
    "record": True,
    "evaluation": {"n_episodes": 8},
    "published": [{"env": "CartPole-v1", "loss": "kl", "percent": 101.5}],
}


def run_here(jobs: Sequence[Job], study: Path) -> Iterator[tuple[str, str]]:
    """A backend that runs cells one by one in this process, and raises their errors."""
    for key, settings in jobs:
        folder = study / "cells" / f".{key}"
        folder.mkdir(parents=True)
        (folder / SETTINGS).write_text(settings)
        run_cell(folder)
        folder.rename(folder.with_name(key))
        yield key, ""


def write(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**CARTPOLE, **changes}, sort_keys=False))
    return path
