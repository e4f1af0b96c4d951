"""Runs the cells of a study that have not finished, and collects the results."""

import functools
import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from sb3_distill.agents.files import AgentError, AgentNotFoundError
from sb3_distill.agents.sources import ZOO_ALGORITHMS, find_agent
from sb3_distill.algorithms import STUDENTS
from sb3_distill.common.files import write_whole
from sb3_distill.common.locks import locked
from sb3_distill.common.log import progress_bar
from sb3_distill.common.utils import earlier_versions
from sb3_distill.results.row import FORMAT, Row
from sb3_distill.results.tables import format_csv, to_json
from sb3_distill.study.backends import Backend
from sb3_distill.study.cell import MULTI_TASK, OF_CELL, ZOO, Cell, Study
from sb3_distill.study.manifest import (
    MANIFEST,
    PROBLEM,
    STDERR,
    Manifest,
    clear_stopped,
    manifest_of,
    manifests_of,
)
from sb3_distill.study.plan.duration import guess_seconds
from sb3_distill.study.rows import tasks_of_cell, teacher_algorithms

RESULTS, TABLE = "results.json", "results.csv"


def _awaited(cell: Cell) -> list[str]:
    """Keys of the cells that must have finished before this one."""
    return [key for key in (cell.teacher_cell, cell.reference_cell) if key is not None]


def ready_cells(cells: Sequence[Cell], study: Path) -> list[Cell]:
    """
    :param cells: the cells that have not finished
    :param study: the study's folder
    :return: the cells that can start now: first one cell for each recording that does not exist yet, then all cells
        that need no recording or whose recording exists. Cells wait for the cell that trains their teacher, or the
        agent that counts as their 100%.
    """
    first: dict[str, Cell] = {}
    others = []
    for cell in cells:
        if any(not (study / "cells" / key / MANIFEST).is_file() for key in _awaited(cell)):
            continue
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
    :return: the median time of finished cells with the same algorithm and environment; if there are none, a rough
        guess; None if nothing says how many steps its run has
    :raises ValueError: its settings contradict each other
    """
    seconds = [
        manifest.total_seconds
        for manifest in manifests
        if (manifest.cell.algo, manifest.cell.env) == (cell.algo, cell.env)
    ]
    return statistics.median(seconds) if seconds else guess_seconds(cell)


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
    manifests = manifests_of(folder, study.cells)
    rows = [row for manifest in manifests for row in manifest.rows]
    labels = [{name: [label] for name, label in cell.labels.items()} | cell.share_play for cell in study.cells]
    grid = {name: list(dict.fromkeys(label for own in labels for label in own[name])) for name in labels[0]}
    described = {**asdict(study), "cells": len(study.cells), "grid": grid}
    failures = [
        {"labels": cell.labels, "problem": path.read_text().strip()}
        for cell in study.cells
        if (path := folder / "failed" / cell.key / PROBLEM).is_file()
    ]
    results = {
        "format": FORMAT,
        "study": described,
        "agents": [row.to_dict() for row in rows],
        "manifests": [manifest.to_dict() for manifest in manifests],
        "failures": failures,
    }
    write_whole(folder / RESULTS, to_json(results))
    write_whole(folder / TABLE, format_csv(rows))
    return rows


def _choices_of(cell: Cell) -> list[tuple[str, ...]]:
    """The agents that a cell needs, each with those that may stand for it if none is named."""
    named = [settings.get("teacher") for settings in (cell.hyperparams, cell.evaluation)]
    # What the study itself trains is not missing.
    named = [source for source in named if source != ZOO and not str(source).startswith(OF_CELL)]
    named += [
        source
        for settings in (cell.hyperparams, cell.evaluation)
        for source in (settings.get("teachers") or {}).values()
    ]
    named.append(None if (starts := cell.evaluation.get("starts_from")) == "random" else starts)
    needed: list[tuple[str, ...]] = [(str(source),) for source in named if source is not None]
    unnamed = cell.evaluation.get("teacher") == ZOO or (cell.algo in STUDENTS and not cell.hyperparams.get("teacher"))
    env_ids: list[str] = []
    algos: tuple[str, ...] = ZOO_ALGORITHMS
    if unnamed:
        env_ids, algos = [cell.env], _algorithms(cell.algo, cell.env, json.dumps(cell.env_kwargs))
    # Those of mtpd teach, those of mtdqn count as 100%.
    own = cell.evaluation if cell.algo == "mtdqn" else cell.hyperparams
    if cell.algo in MULTI_TASK and not own.get("teachers"):
        env_ids += _task_env_ids(cell.env, json.dumps(cell.env_kwargs))
    for env_id in env_ids:
        versions = (env_id, *earlier_versions(env_id))
        needed.append(tuple(f"zoo:{algo}/{version}" for version in versions for algo in algos))
    return needed


@functools.cache
def _algorithms(algo: str, env: str, env_kwargs: str) -> tuple[str, ...]:
    return teacher_algorithms(Cell(algo, env, 0, env_kwargs=json.loads(env_kwargs)))


@functools.cache
def _task_env_ids(env: str, env_kwargs: str) -> list[str]:
    return [task.env_id for task in tasks_of_cell(Cell("mtpd", env, 0, env_kwargs=json.loads(env_kwargs)))]


def _is_here(source: str) -> bool:
    try:
        find_agent(source, local_only=True)
    except AgentError as error:
        # What is there and cannot be read is another error, which its cells will tell. Of the hub's agents, it is the
        # error for those that are not in the cache.
        return not isinstance(error, AgentNotFoundError) and not source.startswith("hub:")
    return True


def describe_missing(cells: Iterable[Cell]) -> list[str]:
    """
    :param cells: cells that have not finished
    :return: for each agent that they need and that is not on this machine, one text: the agent, how many of the cells
        wait for it, and how to fetch or train it. The hub is not asked.
    """
    waiting: dict[str, int] = {}
    here = functools.cache(_is_here)
    for cell in cells:
        for source in dict.fromkeys(each[0] for each in _choices_of(cell) if not any(map(here, each))):
            waiting[source] = waiting.get(source, 0) + 1
    return [
        f"{source} is not on this machine (cells that need it: {n}). {_how_to_get(source)}"
        for source, n in waiting.items()
    ]


def _how_to_get(source: str) -> str:
    if not source.startswith("zoo:"):
        return "Download or train it, or name another agent in the study file."
    algo, _, env = source.removeprefix("zoo:").partition("/")
    agent = f"--algo {algo} --env {env}"
    return (
        "Each run looks for it on the hub. To fetch it now: python -m rl_zoo3.load_from_hub "
        f"{agent} -orga sb3 -f rl-trained-agents. Or train it: python -m rl_zoo3.train {agent} -f rl-trained-agents"
    )


@contextmanager
def only_study_in(folder: Path) -> Iterator[None]:
    """
    Lock a study's folder for this process, and delete unfinished cells and recordings of a process that was killed, but
    for those that can go on.

    :param folder: the study's folder
    :raises InUseError: another process runs the study
    """
    with locked(folder, "runs the cells of a study"):
        clear_stopped(folder)
        yield


def _without_teacher(cells: Iterable[Cell], folder: Path) -> dict[str, str]:
    """Let the cells whose teacher's cell has failed count as failed, too."""
    problems = {
        cell.key: f"there is no teacher, because its cell {' or '.join(_awaited(cell))} failed" for cell in cells
    }
    for key, problem in problems.items():
        write_whole(folder / "failed" / key / PROBLEM, f"{problem}\n")
    return problems


def run_study(study: Study, folder: Path, backend: Backend) -> dict[str, str]:
    """
    Run the cells that have not finished, and update the results whenever a cell ends.

    :param study: the study
    :param folder: the study's folder
    :param backend: the backend that runs the cells
    :return: by key of each failed cell, the reason
    """
    waiting = [cell for cell in study.cells if manifest_of(folder, cell) is None]
    n_done = len(study.cells) - len(waiting)
    failures: dict[str, str] = {}
    start = time.time()
    width = len(str(len(study.cells)))
    # Write results at the start already, so that a report can be written while the study runs.
    collect(study, folder)
    with progress_bar(f"cells of {study.name}", len(study.cells)) as tell:
        tell(n_done)
        while waiting:
            phase = {cell.key: cell for cell in ready_cells(waiting, folder)}
            waiting = [cell for cell in waiting if cell.key not in phase]
            if not phase:
                return failures | _without_teacher(waiting, folder)
            if waiting:
                print(f"Cells that wait for their teacher, or for a recording of its play: {len(waiting)}", flush=True)
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
                        said = folder / "cells" / key / STDERR
                        if len(manifest.stretches) > 1 and said.is_file():
                            # Such as that an environment could not be brought back to where it was
                            state += f"; it went on after a stop, and said more in {said}"
                    collect(study, folder)
                    tell(n_done + len(failures))
                    n_left = len(phase) - n_ended + len(waiting)
                    counts = f"{n_done:>{width}}/{len(study.cells)} done, {len(failures)} failed, {n_left} to go"
                    print(f"{format_seconds(time.time() - start)}  {counts}  {labels}: {state}", flush=True)
    return failures
