"""``sb3-distill study``: run a grid of cells, skip those that are finished, and write down the results."""

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
from filelock import FileLock, Timeout

from sb3_distill.common.arguments import whole_number
from sb3_distill.common.evaluation import is_atari
from sb3_distill.common.tables import format_csv, format_table
from sb3_distill.study.backends import Backend, run_locally, run_on_ray
from sb3_distill.study.cells import MANIFEST, PROBLEM, write_json
from sb3_distill.study.files import Cell, Study, StudyError, read_study

RESULTS, TABLE = "results.json", "results.csv"
# Steps per second on one core of the machine that this was written on, with vectors and with Atari's frames: a rough
# guess for the first plan
_STEPS_PER_SECOND = {"pd": 1_000, "qpd": 500, "rtpd": 200, "mtpd": 500, "mtdqn": 500}
_ATARI_STEPS_PER_SECOND = 50


def manifest_of(study: Path, cell: Cell) -> dict[str, Any] | None:
    """
    :param study: the study's folder
    :param cell: a cell
    :return: its manifest, None where it is not finished
    """
    path = study / "cells" / cell.key / MANIFEST
    return json.loads(path.read_text()) if path.is_file() else None


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


def estimate_seconds(cell: Cell, manifests: Sequence[dict[str, Any]]) -> float | None:
    """
    :param cell: a cell that has not run
    :param manifests: of finished cells
    :return: the median time of finished cells of the same algorithm and environment; where there are none a rough guess
        from the number of steps, or None where that is not said
    """
    seconds = [
        sum(manifest["seconds"].values())
        for manifest in manifests
        if (manifest["cell"]["algo"], manifest["cell"]["env"]) == (cell.algo, cell.env)
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


def print_plan(study: Study, folder: Path, n_jobs: int) -> None:
    """
    :param study: the study
    :param folder: its folder
    :param n_jobs: processes at the same time
    """
    manifests = [manifest for cell in study.cells if (manifest := manifest_of(folder, cell)) is not None]
    rows = [[*study.cells[0].labels, "state", "time"]]
    remaining = []
    for cell in study.cells:
        finished = manifest_of(folder, cell)
        seconds = estimate_seconds(cell, manifests) if finished is None else sum(finished["seconds"].values())
        if finished is None:
            remaining.append(seconds)
        rows.append([*cell.labels.values(), "to do" if finished is None else "finished", format_seconds(seconds)])
    print(format_table(rows, n_left=len(rows[0]) - 1))
    when = "unknown"
    known = [seconds for seconds in remaining if seconds is not None]
    if len(known) == len(remaining):
        total = max([sum(known) / n_jobs, *known])
        when = f"about {format_seconds(total)} with {n_jobs} at the same time"
    basis = "finished cells" if manifests else "a rough guess; finished cells give a better one"
    print(f"{len(study.cells)} cells, {len(remaining)} to do, time {when} (from {basis})")


def collect(study: Study, folder: Path) -> list[dict[str, Any]]:
    """
    Write the rows of all finished cells as JSON and CSV, and why others failed.

    :param study: the study
    :param folder: its folder
    :return: the rows
    """
    manifests = [manifest for cell in study.cells if (manifest := manifest_of(folder, cell)) is not None]
    rows = [row for manifest in manifests for row in manifest["rows"]]
    grid = {name: list(dict.fromkeys(cell.labels[name] for cell in study.cells)) for name in study.cells[0].labels}
    described = {**asdict(study), "cells": len(study.cells), "grid": grid}
    failures = [
        {"labels": cell.labels, "problem": path.read_text().strip()}
        for cell in study.cells
        if (path := folder / "failed" / cell.key / PROBLEM).is_file()
    ]
    write_json(folder / RESULTS, {"study": described, "agents": rows, "manifests": manifests, "failures": failures})
    (folder / TABLE).write_text(format_csv(rows))
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
                    percents = [row["percent_of_teacher"] for row in manifest["rows"]]
                    scores = " ".join("-" if percent is None else f"{percent:.1f}%" for percent in percents)
                    state = f"{scores} of the teacher, {format_seconds(sum(manifest['seconds'].values()))}"
                collect(study, folder)
                # A cell that runs has a folder without a name of its own.
                n_running = len(list(folder.glob("cells/.*")))
                n_waiting = max(len(phase) - n_ended - n_running, 0) + len(waiting)
                counts = f"{n_done:>{width}}/{len(study.cells)} done, {n_running} running, {n_waiting} waiting"
                print(f"{format_seconds(time.time() - start)}  {counts}  {labels}: {state}", flush=True)
    return failures


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    parser = argparse.ArgumentParser(
        prog="sb3-distill study", description="Run the cells of a study file; finished ones are skipped."
    )
    parser.add_argument("file", type=Path, help="study file, such as studies/pd_table1_small.yml")
    parser.add_argument("-o", "--output", type=Path, help="folder (default: logs/studies/NAME)")
    parser.add_argument("--backend", choices=["local", "ray"], default="local")
    parser.add_argument("--address", help="of a running Ray cluster (default: start Ray here)")
    parser.add_argument("-j", "--jobs", type=whole_number(1), default=os.cpu_count() or 1, help="cells at once")
    parser.add_argument("--threads", type=whole_number(1), default=1, help="threads of each cell (default: 1)")
    parser.add_argument("--dry-run", action="store_true", help="print the cells and the estimated time, run nothing")
    args = parser.parse_args(argv)
    try:
        study = read_study(args.file)
        folder = args.output or Path("logs") / "studies" / study.name
        if args.dry_run:
            print_plan(study, folder, args.jobs)
            return 0
        if args.backend == "ray":
            backend = run_on_ray(args.address, args.jobs, args.threads)
        else:
            backend = run_locally(args.jobs, args.threads)
        with locked(folder):
            try:
                failures = run_study(study, folder, backend)
            except KeyboardInterrupt:
                rows = collect(study, folder)
                print(
                    f"sb3-distill study: interrupted. {folder / RESULTS} has the {len(rows)} rows of finished cells; "
                    "the same command goes on.",
                    file=sys.stderr,
                )
                return 130
            rows = collect(study, folder)
    except gym.error.Error as error:
        print(f"sb3-distill study: {args.file} names an environment that is not registered: {error}", file=sys.stderr)
        return 1
    except (StudyError, OSError) as error:
        print(f"sb3-distill study: {error}", file=sys.stderr)
        return 1
    print_results(study, rows)
    print(f"{folder / RESULTS}; the report: sb3-distill report {folder}")
    for key, problem in failures.items():
        print(f"failed: {key}: {problem} (see {folder / 'failed' / key})", file=sys.stderr)
    return 1 if failures else 0


def print_results(study: Study, rows: Sequence[dict[str, Any]]) -> None:
    """
    :param study: the study
    :param rows: its rows
    """
    names = [*study.cells[0].labels]
    names += [name for name in ("player", "task") if any(name in row for row in rows) and name not in names]
    table = [[*names, "parameters", "bytes", "score", "% of teacher"]]
    for row in rows:
        score = f"{row['mean']:.2f} ± {row['std']:.2f}" if "mean" in row else ""
        sizes = [f"{row['n_parameters']:,}", f"{row['n_bytes']:,}"]
        percent = "" if row["percent_of_teacher"] is None else f"{row['percent_of_teacher']:.1f}"
        table.append([*(str(row.get(name, "")) for name in names), *sizes, score, percent])
    print(format_table(table, n_left=len(names)))
