"""The files of a cell, and the manifest that is written when the cell has finished."""

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
    The record of a finished cell.

    :param cell: the cell
    :param rows: its results
    :param seconds: durations of training and evaluation
    :param command: the command that repeats the training
    :param versions: versions of packages and hardware, on which the results depend
    """

    cell: Cell
    rows: tuple[Row, ...]
    seconds: dict[str, float]
    command: str
    versions: dict[str, str]

    @property
    def total_seconds(self) -> float:
        """Duration of training and evaluation together."""
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
        :param content: the result of ``to_dict``
        :return: the manifest
        """
        rows = tuple(Row.from_dict(row) for row in content["rows"])
        return cls(**{**content, "cell": Cell(**content["cell"]), "rows": rows})

    def to_dict(self) -> dict[str, Any]:
        """
        :return: the manifest as it is written to its file
        """
        return {**vars(self), "cell": asdict(self.cell), "rows": [row.to_dict() for row in self.rows]}


def manifest_of(study: Path, cell: Cell) -> Manifest | None:
    """
    :param study: the study's folder
    :param cell: a cell
    :return: the cell's manifest; None if the cell has not finished
    """
    path = study / "cells" / cell.key / MANIFEST
    return Manifest.from_dict(json.loads(path.read_text())) if path.is_file() else None


def versions() -> dict[str, str]:
    """
    :return: versions of packages and hardware, on which results depend
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
