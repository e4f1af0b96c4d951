"""The files of a cell: what it leaves when it is stopped, and the manifest that is written when it has finished."""

import contextlib
import glob
import json
import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.files import RUN_STATE
from sb3_distill.agents.kinds.own import is_function_name
from sb3_distill.common.files import check_name, run_folder
from sb3_distill.common.locks import is_locked
from sb3_distill.common.utils import counted
from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.schema import conform, read_fields
from sb3_distill.reading.text import read_json
from sb3_distill.results.row import Row
from sb3_distill.study.cell import Cell, StudyError

# Commands that tell it, where Python does not
_NAME_OF_PROCESSOR = {"Linux": ["lscpu"], "Darwin": ["sysctl", "machdep.cpu.brand_string"]}
MANIFEST, SETTINGS, LOG, PROBLEM = "manifest.json", "cell.json", "train.log", "problem.txt"
# What the processes of a cell have written to the standard error output
STDERR = "stderr.txt"
# How long a cell has trained: written when it has, before its evaluation
TRAINED = "trained.json"


@dataclass(frozen=True)
class UsedAgent:
    """
    An agent on which the results of a cell depend.

    :param setting: the setting that names it, or would: "teacher", "teachers.TASK", "evaluation.teacher", …
    :param source: where it was found
    :param sha256: its hash (see ``Teacher.sha256``)
    """

    setting: str
    source: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """
    The record of a finished cell.

    :param cell: the cell
    :param rows: its results
    :param seconds: durations of training and evaluation
    :param command: the command that repeats the training
    :param versions: versions of packages and hardware, on which the results depend
    :param agents: the agents on which the results depend; empty in manifests of earlier versions
    :param stretches: versions of each stretch of a training that was stopped and went on; empty in manifests of earlier
        versions, whose ``versions`` are those of the last one
    """

    cell: Cell
    rows: tuple[Row, ...]
    seconds: dict[str, float]
    command: str
    versions: dict[str, str]
    agents: tuple[UsedAgent, ...] = ()
    stretches: tuple[dict[str, str], ...] = ()

    @property
    def total_seconds(self) -> float:
        """Duration of training and evaluation together."""
        return sum(self.seconds.values())

    def run_in(self, study: Path) -> Path:
        """
        :param study: the study's folder
        :return: the cell's run folder
        :raises ValueError: the manifest names a folder that is not the study's
        """
        agent, algo = check_name("A cell", self.rows[0].agent), check_name("An algorithm", self.cell.algo)
        return run_folder(study / "cells" / agent, algo, self.cell.env)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Manifest":
        """
        :param content: the result of ``to_dict``
        :return: the manifest
        :raises ValueError: an entry is missing, or of another type than it is written with
        """
        manifest = read_fields(cls, content, "a manifest")
        if not manifest.rows:
            raise ReadError("a manifest has no rows")
        # What reports show of it
        for name in ("epsilon", "n_episodes"):
            conform(manifest.cell.evaluation.get(name, 0), float, f"evaluation.{name} of a manifest")
        return manifest

    def to_dict(self) -> dict[str, Any]:
        """
        :return: the manifest as it is written to its file
        """
        return {**asdict(self), "rows": [row.to_dict() for row in self.rows]}


def teachers_in(model: Path, cell: Cell) -> list[UsedAgent]:
    """
    :param model: zip of a run's model
    :param cell: the cell of the run
    :return: the agents that taught it, as the zip names them, or, of functions, the cell; none if they were models in
        memory
    """
    data = read_archive(model).data
    sources, hashes = data.get("taught_by"), data.get("teacher_sha256")
    if isinstance(sources, dict) and isinstance(hashes, dict):
        named = [(f"teachers.{task}", source, hashes.get(task)) for task, source in sources.items()]
    else:
        own = cell.hyperparams.get("teacher")
        named = [("teacher", own if sources is None and is_function_name(own) else sources, hashes)]
    return [
        UsedAgent(setting, source, sha256)
        for setting, source, sha256 in named
        if isinstance(source, str) and isinstance(sha256, str)
    ]


def manifest_of(study: Path, cell: Cell) -> Manifest | None:
    """
    :param study: the study's folder
    :param cell: a cell
    :return: the cell's manifest; None if the cell has not finished
    """
    path = study / "cells" / cell.key / MANIFEST
    try:
        return Manifest.from_dict(read_json(path)) if path.is_file() else None
    except ValueError as error:
        raise StudyError(f"{path} is damaged ({error}): delete its folder to run the cell again.") from error


def manifests_of(study: Path, cells: Iterable[Cell]) -> list[Manifest]:
    """
    :param study: the study's folder
    :param cells: cells
    :return: the manifests of those that have finished
    """
    return [manifest for cell in cells if (manifest := manifest_of(study, cell)) is not None]


def has_state(folder: Path) -> bool:
    """
    :param folder: folder of a cell that has not finished
    :return: whether its run has a state to go on from
    """
    return any(folder.glob(f"*/*/{RUN_STATE}"))


def can_go_on(folder: Path) -> bool:
    """
    :param folder: folder of a cell that has not finished
    :return: whether its run has a state to go on from, or is complete and was to be evaluated, or only to be renamed
    """
    return has_state(folder) or (folder / TRAINED).is_file() or (folder / MANIFEST).is_file()


def _unfinished_in(study: Path, key: str) -> list[Path]:
    return sorted((study / "cells").glob(f".{glob.escape(key)}.*"))


def stopped_in(study: Path, key: str) -> Path | None:
    """
    :param study: a study's folder
    :param key: key of a cell that does not run
    :return: the folder in which it was stopped and can go on; None if there is none
    """
    return next(filter(can_go_on, _unfinished_in(study, key)), None)


def is_running(study: Path, key: str) -> bool:
    """
    :param study: a study's folder
    :param key: key of a cell
    :return: whether a process runs it at this moment
    """
    return any(map(is_locked, _unfinished_in(study, key)))


def clear_stopped(study: Path) -> None:
    """
    Delete what a study that was killed has left, but for cells that can go on, and the recordings that they write. They
    may be those of another grid.

    :param study: the study's folder, in which nothing runs
    """
    kept = []
    for left in study.glob("cells/.*"):
        # A process whose study was killed may end a moment later.
        if can_go_on(left) or is_locked(left):
            kept.append(Cell(**json.loads((left / SETTINGS).read_text())).recording_key)
        else:
            shutil.rmtree(left, ignore_errors=True)
    for left in study.glob("recordings/*.partial"):
        if not left.name.startswith(tuple(f".{key}." for key in kept if key is not None)):
            shutil.rmtree(left, ignore_errors=True)


def agent_of_cell(study: Path, key: str) -> Path:
    """
    :param study: the study's folder
    :param key: key of a finished cell that leaves one agent, or students beside one
    :return: the zip of this agent's last or best model, as its evaluation selects
    """
    manifest = Manifest.from_dict(read_json(study / "cells" / check_name("A cell", key) / MANIFEST))
    return manifest.cell.zip_in(manifest.run_in(study))


def group_seeds(manifests: Sequence[Manifest]) -> list[list[Manifest]]:
    """
    :param manifests: manifests of finished cells
    :return: the manifests that differ only in their seed, together
    """
    groups: dict[tuple[str, ...], list[Manifest]] = {}
    for manifest in manifests:
        labels = manifest.cell.labels
        groups.setdefault(tuple(value for name, value in labels.items() if name != "seed"), []).append(manifest)
    return list(groups.values())


def describe_versions(manifests: Sequence[Manifest]) -> list[str]:
    """
    :param manifests: manifests of finished cells
    :return: versions and hardware as text, one entry per combination; if there are several, with their numbers of cells
    """
    described = [[_described(own) for own in (*manifest.stretches, manifest.versions)] for manifest in manifests]
    # Those of a cell that was stopped can be several.
    found = Counter(own for each in described for own in dict.fromkeys(each))
    return [versions if len(found) == 1 else f"{versions} (cells: {count})" for versions, count in found.items()]


def _described(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


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
    command = _NAME_OF_PROCESSOR.get(platform.system())
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if command is not None:
            environment = {**os.environ, "LC_ALL": "C"}
            text = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            found = re.search(r"^(?:Model name|machdep\.cpu\.brand_string):\s*(.+)$", text, re.MULTILINE)
            name = name if found is None else found[1]
    return f"{name}, {counted(os.cpu_count() or 1, 'core')}"
