"""Runs the cells of a study that have not finished, and collects the results."""

import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from sb3_distill.common.files import write_whole
from sb3_distill.envs.recipe import is_atari
from sb3_distill.results.row import Row
from sb3_distill.results.tables import format_csv, to_json
from sb3_distill.study.backends import Backend
from sb3_distill.study.cell import Cell, Study, StudyError
from sb3_distill.study.manifest import PROBLEM, Manifest, manifest_of

RESULTS, TABLE = "results.json", "results.csv"
# Steps per second on one core of the developers' machine, for vector observations and for Atari frames: a rough guess
# for the time of a study of which no cell has finished
_STEPS_PER_SECOND = {"pd": 1_000, "qpd": 500, "rtpd": 200, "mtpd": 500, "mtdqn": 500}
_ATARI_STEPS_PER_SECOND = 50


def ready_cells(cells: Sequence[Cell], study: Path) -> list[Cell]:
    """
    :param cells: the cells that have not finished
    :param study: the study's folder
    :return: the cells that can start now: first one cell for each recording that does not exist yet, then all cells
        that need no recording or whose recording exists
    """
    first: dict[str, Cell] = {}
    others = []
    for cell in cells:
        key = cell.recording_key
        if key is None or (study / "recordings" / key).exists():
            others.append(cell)
        else:
            first.setdefault(key, cell)
    return [*first.values(), *others]


def estimate_seconds(cell: Cell, manifests: Sequence[Manifest]) -> float | None:
    """
    :param cell: a cell that has not run
    :param manifests: manifests of finished cells
    :return: the median time of finished cells with the same algorithm and environment; if there are none, a rough guess
        from the number of steps; None if this number is not set either
    """
    seconds = [
        manifest.total_seconds
        for manifest in manifests
        if (manifest.cell.algo, manifest.cell.env) == (cell.algo, cell.env)
    ]
    if seconds:
        return statistics.median(seconds)
    if cell.n_timesteps is None:
        return None
    atari = cell.env == "MultiTaskAtari-v0" or is_atari(cell.env)
    return cell.n_timesteps / (_ATARI_STEPS_PER_SECOND if atari else _STEPS_PER_SECOND[cell.algo])


def format_seconds(seconds: float | None) -> str:
    """
    :param seconds: a duration
    :return: the duration as h:mm:ss, or "?" if it is None
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def collect(study: Study, folder: Path) -> list[Row]:
    """
    Write the rows of all finished cells as JSON and CSV; the JSON also has the problems of failed cells.

    :param study: the study
    :param folder: the study's folder
    :return: the rows
    """
    manifests = [manifest for cell in study.cells if (manifest := manifest_of(folder, cell)) is not None]
    rows = [row for manifest in manifests for row in manifest.rows]
    grid = {name: list(dict.fromkeys(cell.labels[name] for cell in study.cells)) for name in study.cells[0].labels}
    described = {**asdict(study), "cells": len(study.cells), "grid": grid}
    failures = [
        {"labels": cell.labels, "problem": path.read_text().strip()}
        for cell in study.cells
        if (path := folder / "failed" / cell.key / PROBLEM).is_file()
    ]
    results = {
        "study": described,
        "agents": [row.to_dict() for row in rows],
        "manifests": [manifest.to_dict() for manifest in manifests],
        "failures": failures,
    }
    write_whole(folder / RESULTS, to_json(results))
    write_whole(folder / TABLE, format_csv(rows))
    return rows


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """
    Lock a study's folder for this process, and delete unfinished cells and recordings of a process that was killed.

    :param folder: the study's folder
    :raises StudyError: another process runs the study
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise StudyError(
            f"{folder} is in use: another process runs its cells. Wait for it, or name another folder with -o."
        ) from error
    try:
        for left in [*folder.glob("cells/.*"), *folder.glob("recordings/*.partial")]:
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def run_study(study: Study, folder: Path, backend: Backend) -> dict[str, str]:
    """
    Run the cells that have not finished, and update the results whenever a cell ends.

    :param study: the study
    :param folder: the study's folder
    :param backend: the backend that runs the cells
    :return: by key of each failed cell, the reason
    """
    waiting = [cell for cell in study.cells if manifest_of(folder, cell) is None]
    n_done, failures = len(study.cells) - len(waiting), {}
    start = time.time()
    width = len(str(len(study.cells)))
    # Write results at the start already, so that a report can be written while the study runs.
    collect(study, folder)
    while waiting:
        phase = {cell.key: cell for cell in ready_cells(waiting, folder)}
        waiting = [cell for cell in waiting if cell.key not in phase]
        if waiting:
            print(f"Recording the teachers' play first. Cells that wait for it: {len(waiting)}", flush=True)
        with closing(backend([(key, json.dumps(asdict(cell))) for key, cell in phase.items()], folder)) as results:
            for n_ended, (key, problem) in enumerate(results, start=1):
                labels = " ".join(phase[key].labels.values())
                if problem:
                    failures[key] = problem
                    state = f"FAILED: {problem}"
                else:
                    n_done += 1
                    manifest = manifest_of(folder, phase[key])
                    assert manifest is not None
                    percents = [row.percent_of_teacher for row in manifest.rows]
                    scores = " ".join("-" if percent is None else f"{percent:.1f}%" for percent in percents)
                    state = f"{scores} of the teacher, {format_seconds(manifest.total_seconds)}"
                collect(study, folder)
                # Running cells have a folder with a temporary name.
                n_running = len(list(folder.glob("cells/.*")))
                n_waiting = max(len(phase) - n_ended - n_running, 0) + len(waiting)
                counts = f"{n_done:>{width}}/{len(study.cells)} done, {n_running} running, {n_waiting} waiting"
                print(f"{format_seconds(time.time() - start)}  {counts}  {labels}: {state}", flush=True)
    return failures
