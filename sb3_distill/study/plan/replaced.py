"""Agents that are others now than when cells of a study were made with them."""

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError, checkpoints_in
from sb3_distill.agents.load import is_onnx_file, load_teacher
from sb3_distill.buffers.recording_meta import RecordingError
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.files import model_zip, run_folder
from sb3_distill.study.cell import MULTI_TASK, Cell
from sb3_distill.study.manifest import Manifest, UsedAgent, stopped_in, teachers_in
from sb3_distill.study.rows import load_named, load_task_teachers

# A message about cells names so many of them.
_N_NAMED = 3


@dataclass(frozen=True)
class Replaced:
    """
    An agent that is another one than when a cell or a recording was made.

    :param folder: folder of the cell or of the recording
    :param source: where the agent is
    :param before: its hash when they were made
    :param now: its hash now
    """

    folder: Path
    source: str
    before: str
    now: str


class _AgentsNow:
    """
    The agents as they are now, each loaded once; None for those that are not there any more, or cannot be told.

    :param cells: cells of the user's own study file
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._own = {cell.key for cell in cells}
        self._loaded: dict[Any, Teacher | None] = {}

    def find(self, cell: Cell, source: str, setting: str = "teacher") -> Teacher | None:
        """
        :param cell: the cell that names the agent
        :param source: where the agent is
        :param setting: the setting that names it, see ``UsedAgent``
        :return: the agent
        """
        key = (cell.key, source, setting) if is_onnx_file(source) else source
        if key not in self._loaded:
            try:
                self._loaded[key] = self._load(cell, source, setting)
            except (ValueError, OSError):
                self._loaded[key] = None
        return self._loaded[key]

    def _load(self, cell: Cell, source: str, setting: str) -> Teacher | None:
        said, is_own = cell.hyperparams.get("teacher_kwargs"), cell.key in self._own
        if not is_onnx_file(source) or (said is None and not is_own):
            return load_teacher(source, device="cpu")
        if not is_own:
            # What such a file does not say, the environment does, and nobody else's file is a reason to make one.
            return None
        if cell.algo not in MULTI_TASK:
            return load_named(cell, source)
        kind, _, task = setting.rpartition(".")
        return load_task_teachers(cell if kind.startswith("evaluation") else replace(cell, evaluation={}))[task]


def _agents_of_run(run: Path, cell: Cell) -> Sequence[UsedAgent]:
    """The agents that have taught a run so far, as its last model says, or its newest checkpoint."""
    newest = model_zip(run, cell.env)
    if not newest.is_file():
        checkpoints = checkpoints_in(run)
        newest = checkpoints[max(checkpoints)] if checkpoints else newest
    try:
        return teachers_in(newest, cell)
    except (AgentError, OSError):
        return ()


def find_replaced(folder: Path, manifests: Iterable[Manifest], cells: Sequence[Cell] = ()) -> list[Replaced]:
    """
    :param folder: a study's folder
    :param manifests: manifests of finished cells
    :param cells: cells whose recordings are looked at, too, and what they left where they were stopped
    :return: the agents on which they depend and which are others now; agents that are not there any more are none of
        them
    """
    now, replaced = _AgentsNow(cells), []
    used: list[tuple[Path, Cell, Sequence[UsedAgent]]] = []
    for manifest in manifests:
        # Earlier versions did not write them down, but the run's zip knows its teacher.
        agents = manifest.agents or _agents_of_run(manifest.run_in(folder), manifest.cell)
        used.append((folder / "cells" / manifest.rows[0].agent, manifest.cell, agents))
    for cell in cells:
        stopped = stopped_in(folder, cell.key)
        if stopped is not None:
            used.append((stopped, cell, _agents_of_run(run_folder(stopped, cell.algo, cell.env), cell)))
    recorded_by = {cell.recording_key: (cell, cell.hyperparams.get("teacher")) for cell in cells}
    for path, cell, agents in used:
        for own in {agent.source: agent for agent in agents}.values():
            agent = now.find(cell, own.source, own.setting)
            if agent is not None and not agent.is_agent(own.sha256):
                replaced.append(Replaced(path, own.source, own.sha256, agent.sha256))
        for own in agents:
            if own.setting == "teacher" and cell.recording_key in recorded_by:
                recorded_by[cell.recording_key] = cell, own.source
    for key, (cell, teacher) in recorded_by.items():
        path = folder / "recordings" / str(key)
        agent = now.find(cell, teacher) if teacher is not None and path.is_dir() else None
        with suppress(RecordingError):
            if agent is not None and not agent.is_agent(before := Recording(path).settings.teacher):
                replaced.append(Replaced(path, str(teacher), before, agent.sha256))
    return replaced


def describe_replaced(replaced: Sequence[Replaced]) -> str:
    """
    :param replaced: agents that are others now
    :return: one line for each, with what was made with it
    """
    folders: dict[tuple[str, str, str], list[str]] = {}
    for entry in replaced:
        place = f"{entry.folder.parent.name}/{entry.folder.name}"
        folders.setdefault((entry.source, entry.before, entry.now), []).append(place)
    lines = []
    for (source, before, now), places in folders.items():
        more = f" and {len(places) - _N_NAMED} more" if len(places) > _N_NAMED else ""
        named = f"{', '.join(places[:_N_NAMED])}{more}"
        lines.append(f"{source} is another agent now (sha256 {now[:12]}) than for {named} (sha256 {before[:12]}).")
    return "\n".join(lines)


def put_aside(replaced: Iterable[Replaced], folder: Path) -> None:
    """
    Move cells and recordings that were made with other agents into the study's folder ``replaced``, so that they are
    made anew.

    :param replaced: agents that are others now
    :param folder: the study's folder
    """
    # A cell can depend on several agents.
    for path, before in {entry.folder: entry.before for entry in replaced}.items():
        place = folder / "replaced" / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        names = (f"{path.name.lstrip('.')}-{before[:8]}-{number}" for number in itertools.count(1))
        path.rename(next(place / name for name in names if not (place / name).exists()))
