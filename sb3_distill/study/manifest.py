"""The files of a cell, and what its manifest says once it is finished."""

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sb3_distill.common.files import run_folder
from sb3_distill.results.row import Row
from sb3_distill.study.cell import Cell

MANIFEST, SETTINGS, LOG, PROBLEM = "manifest.json", "cell.json", "train.log", "problem.txt"


@dataclass(frozen=True)
class Manifest:
    """
    What is said of a finished cell.

    :param cell: its settings
    :param rows: its results
    :param seconds: how long training and evaluation took
    :param command: what trains the same again
    :param versions: versions and hardware that the results depend on
    """

    cell: Cell
    rows: tuple[Row, ...]
    seconds: dict[str, float]
    command: str
    versions: dict[str, str]

    @property
    def total_seconds(self) -> float:
        """How long the cell took."""
        return sum(self.seconds.values())

    def run_in(self, study: Path) -> Path:
        """
        :param study: the study's folder
        :return: the cell's run folder
        """
        return run_folder(study / "cells" / self.rows[0].agent, self.cell.algo, self.cell.env)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Manifest":
        """
        :param content: what ``to_dict`` gave, read from a file
        :return: the manifest
        """
        rows = tuple(Row.from_dict(row) for row in content["rows"])
        return cls(**{**content, "cell": Cell(**content["cell"]), "rows": rows})

    def to_dict(self) -> dict[str, Any]:
        """
        :return: the manifest as files have it
        """
        return {**vars(self), "cell": asdict(self.cell), "rows": [row.to_dict() for row in self.rows]}


def manifest_of(study: Path, cell: Cell) -> Manifest | None:
    """
    :param study: the study's folder
    :param cell: a cell
    :return: its manifest, None where it is not finished
    """
    path = study / "cells" / cell.key / MANIFEST
    return Manifest.from_dict(json.loads(path.read_text())) if path.is_file() else None


def versions() -> dict[str, str]:
    """
    :return: versions and hardware that results depend on
    """
    packages = ("sb3-distill", "stable-baselines3", "rl-zoo3", "torch", "gymnasium", "ale-py", "numpy")
    found = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "platform": platform.platform(), "machine": processor(), **found}


def processor() -> str:
    """
    :return: the processor's name and number of cores
    """
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"
