"""The cells of a study: which are finished, which can start, and what came of them."""

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
from sb3_distill.envs.make import is_atari
from sb3_distill.results.row import Row
from sb3_distill.results.tables import format_csv, to_json
from sb3_distill.study.backends import Backend
from sb3_distill.study.cell import Cell, Study, StudyError
from sb3_distill.study.manifest import PROBLEM, Manifest, manifest_of

RESULTS, TABLE = "results.json", "results.csv"
# Steps per second on one core of the machine that this was written on, with vectors and with Atari's frames: a rough
# guess for the first plan
_STEPS_PER_SECOND = {"pd": 1_000, "qpd": 500, "rtpd": 200, "mtpd": 500, "mtdqn": 500}
_ATARI_STEPS_PER_SECOND = 50


def ready_cells(cells: Sequence[Cell], study: Path) -> list[Cell]:
    """
    :param cells: those to run
    :param study: the study's folder
    :return: those that can start: first one cell of each recording that is still to be made, then all that need none
        or find theirs
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
    :param manifests: of finished cells
    :return: the median time of finished cells of the same algorithm and environment; where there are none a rough guess
        from the number of steps, or None where that is not said
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
    :return: in words
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def collect(study: Study, folder: Path) -> list[Row]:
    """
    Write the rows of all finished cells as JSON and CSV, and why others failed.

    :param study: the study
    :param folder: its folder
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
    Keep a study's folder for this process, and clear away what a process that was killed has left half done.

    :param folder: of the study
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
    Run the cells that are not finished, and write down the results whenever one has ended.

    :param study: the study
    :param folder: where cells, recordings and results lie
    :param backend: where cells run
    :return: why cells failed, by their keys
    """
    waiting = [cell for cell in study.cells if manifest_of(folder, cell) is None]
    n_done, failures = len(study.cells) - len(waiting), {}
    start = time.time()
    width = len(str(len(study.cells)))
    # Reports can be written while the study runs.
    collect(study, folder)
    while waiting:
        phase = {cell.key: cell for cell in ready_cells(waiting, folder)}
        waiting = [cell for cell in waiting if cell.key not in phase]
        if waiting:
            print(f"Teachers' play is recorded first. Cells that wait for it: {len(waiting)}", flush=True)
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
                # A cell that runs has a folder without a name of its own.
                n_running = len(list(folder.glob("cells/.*")))
                n_waiting = max(len(phase) - n_ended - n_running, 0) + len(waiting)
                counts = f"{n_done:>{width}}/{len(study.cells)} done, {n_running} running, {n_waiting} waiting"
                print(f"{format_seconds(time.time() - start)}  {counts}  {labels}: {state}", flush=True)
    return failures
