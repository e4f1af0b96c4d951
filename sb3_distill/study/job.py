"""Trains and evaluates one cell of a study: ``python -m sb3_distill.study.job [--save-freq N] FOLDER [PIPE]``."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch as th

from sb3_distill.agents.files import RUN_STATE
from sb3_distill.algorithms import STUDENTS
from sb3_distill.common.files import run_folder, write_whole
from sb3_distill.common.locks import locked
from sb3_distill.envs.imports import trust_packages
from sb3_distill.mtpd.callbacks import BestOfTasksCallback
from sb3_distill.reading.text import read_json
from sb3_distill.results.tables import to_json
from sb3_distill.resume.resume import resume
from sb3_distill.study.cell import MULTI_TASK, Cell, leaves_one_agent
from sb3_distill.study.manifest import LOG, MANIFEST, SETTINGS, TRAINED, Manifest, agent_of_cell, versions
from sb3_distill.study.rows import agents_of, load_references, rows_of
from sb3_distill.study.values import as_argument

# Until a cell has finished: seconds that it has trained in earlier stretches, when this one began, and the versions of
# all of them
STRETCHES = "stretches.json"
# What the Zoo calls the models that it saves under way
_CHECKPOINTS = "rl_model_*_steps.*"
# Episodes of each evaluation by which the best model is selected, if the study does not say it
N_EVAL_EPISODES = 10


def train_arguments(cell: Cell, folder: Path, recording: Path | None, save_freq: int = -1) -> list[str]:
    """
    :param cell: the cell
    :param folder: folder in which the Zoo creates the run folder
    :param recording: folder with the recording of the teacher's play; None if the cell uses no recording
    :param save_freq: steps between two checkpoints; -1: there are none
    :return: the arguments of ``rl_zoo3.train``
    """
    hyperparams = {**cell.hyperparams, **_places(cell, folder, recording)}
    if cell.algo in STUDENTS:
        # The study scores the teacher once for all cells, so no run needs to.
        hyperparams.setdefault("n_teacher_episodes", 0)
    if cell.algo == "mtpd":
        hyperparams.setdefault("n_eval_episodes", 0)
    # Real-time and multi-task runs do their own evaluations, instead of the Zoo's.
    eval_freq = cell.evaluation.get("eval_freq", -1) if leaves_one_agent(cell.algo, cell.hyperparams) else -1
    arguments = ["--algo", cell.algo, "--env", cell.env, "--seed", str(cell.seed), "-f", str(folder)]
    arguments += [
        "--eval-freq",
        str(eval_freq),
        "--eval-episodes",
        str(cell.evaluation.get("eval_episodes", N_EVAL_EPISODES)),
    ]
    if save_freq > 0:
        arguments += ["--save-freq", str(save_freq)]
    if cell.n_timesteps is not None:
        arguments += ["-n", str(cell.n_timesteps)]
    if cell.gym_packages:
        arguments += ["--gym-packages", *cell.gym_packages]
    if cell.env_kwargs:
        arguments += [
            "--env-kwargs",
            *(f"{name}:{as_argument(name, value)}" for name, value in cell.env_kwargs.items()),
        ]
    if hyperparams:
        arguments += ["-params", *(f"{name}:{as_argument(name, value)}" for name, value in hyperparams.items())]
    return arguments


def _places(cell: Cell, folder: Path, recording: Path | None) -> dict[str, Any]:
    """Settings that name places in the study's folder, wherever that is now."""
    places: dict[str, Any] = {}
    if cell.teacher_cell is not None:
        places["teacher"] = str(agent_of_cell(folder.parent.parent, cell.teacher_cell))
    if recording is not None:
        places["recording"] = str(recording)
    if cell.algo in MULTI_TASK and cell.selects_best:
        own = cell.hyperparams.get("callback") or []
        places["callback"] = [*(own if isinstance(own, list) else [own]), _keeps_best(cell, folder)]
    return places


def _keeps_best(cell: Cell, folder: Path) -> dict[str, dict[str, Any]]:
    """The callback that keeps the best model of a multi-task run, as the Zoo's setting ``callback`` has it."""
    arguments = {
        "best_model_save_path": str(run_folder(folder, cell.algo, cell.env)),
        "eval_freq": cell.evaluation["eval_freq"],
        "n_eval_episodes": cell.evaluation.get("eval_episodes", N_EVAL_EPISODES),
        "epsilon": cell.protocol["epsilon"],
        "teachers": cell.evaluation.get("teachers") or cell.hyperparams.get("teachers"),
    }
    return {f"{BestOfTasksCallback.__module__}.{BestOfTasksCallback.__qualname__}": arguments}


def train(cell: Cell, folder: Path, recording: Path | None, save_freq: int = -1) -> None:
    """
    Run ``rl_zoo3.train`` in this process, or go on with a run that was stopped.

    :param cell: the cell
    :param folder: folder in which the Zoo creates the run folder
    :param recording: folder with the recording of the teacher's play; None if the cell uses no recording
    :param save_freq: steps between two checkpoints; -1: there are none
    """
    run = run_folder(folder, cell.algo, cell.env)
    if (run / RUN_STATE).is_file():
        with (folder / LOG).open("a", buffering=1) as log, contextlib.redirect_stdout(log):
            # The study file has named its teacher, and the user the packages.
            resume(run, is_trusted=True, hyperparams=_places(cell, folder, recording))
        return

    import sb3_distill_zoo

    sb3_distill_zoo.add_finder()
    from rl_zoo3.train import train as zoo_train

    arguments = sys.argv
    sys.argv = ["rl_zoo3.train", *train_arguments(cell, folder, recording, save_freq)]
    try:
        with (folder / LOG).open("w", buffering=1) as log, contextlib.redirect_stdout(log):
            # Log the command with the cell's final folder instead of the temporary one, so that users can repeat it.
            print("python -m", shlex.join(sys.argv).replace(str(folder), str(folder.with_name(cell.key))))
            zoo_train()
    finally:
        sys.argv = arguments


class _Stretches:
    """
    How long a cell has trained and with which versions, in all its stretches if it was stopped.

    :param folder: the cell's folder
    :param run: its run folder
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self._trained = folder / TRAINED
        self._start = time.time()
        self._before = 0.0
        earlier: list[dict[str, str]] = []
        if (run / RUN_STATE).is_file() and (folder / STRETCHES).is_file():
            # What came after its newest checkpoint is done again. (Earlier versions wrote no versions.)
            before, start, *known = read_json(folder / STRETCHES)
            seconds = (run / RUN_STATE).stat().st_mtime - start
            self._before = before + max(seconds, 0.0)
            earlier = known[0] if known else []
            if seconds < 0:
                # The last one has left nothing.
                earlier = earlier[:-1]
        write_whole(folder / STRETCHES, to_json([self._before, self._start, [*earlier, _versions()]]))

    def stop(self) -> None:
        """Write down that the training is over."""
        write_whole(self._trained, to_json(self._before + time.time() - self._start))


def _versions() -> dict[str, str]:
    """On which the bits of this process depend."""
    return {**versions(), "threads": str(th.get_num_threads())}


def run_cell(folder: Path, save_freq: int = -1) -> None:
    """
    Train and score a cell, and write its manifest. The manifest marks the cell as finished, so it is written last.

    :param folder: the cell's folder, with its settings; also one in which the cell was stopped
    :param save_freq: steps between two checkpoints; -1: there are none
    """
    # A process of a study that was killed may still be about to end.
    with locked(folder, "runs this cell", wait=True):
        if not (folder / MANIFEST).is_file():
            _run_cell(folder, save_freq)


def _run_cell(folder: Path, save_freq: int) -> None:
    cell = Cell(**json.loads((folder / SETTINGS).read_text()))
    study = folder.parent.parent
    key = cell.recording_key
    trust_packages(cell.gym_packages)
    load_references(cell, study)
    run = run_folder(folder, cell.algo, cell.env)
    if not (folder / TRAINED).is_file():
        clock = _Stretches(folder, run)
        train(cell, folder, None if key is None else study / "recordings" / key, save_freq)
        clock.stop()
    trained = time.time()
    rows = rows_of(cell, run, study)
    command = (folder / LOG).read_text().splitlines()[0]
    seconds = {"train": read_json(folder / TRAINED), "evaluate": time.time() - trained}
    written = read_json(folder / STRETCHES) if (folder / STRETCHES).is_file() else []
    stretches = tuple(written[2]) if len(written) > 2 else ()
    manifest = Manifest(cell, tuple(rows), seconds, command, _versions(), agents_of(cell, run, study), stretches)
    # They were there to go on from.
    for checkpoint in run.glob(_CHECKPOINTS):
        checkpoint.unlink()
    write_whole(folder / MANIFEST, to_json(manifest.to_dict()))
    (folder / TRAINED).unlink()
    (folder / STRETCHES).unlink(missing_ok=True)


def end_with(reader: int) -> None:
    """
    Let this process end, with the processes that it has started, as soon as its parent has ended, also if the parent
    was killed. It must be the first one of its process group.

    :param reader: the end of a pipe of which the parent alone holds the other one
    """

    def watch() -> None:
        while os.read(reader, 1):
            pass
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("pipe", type=int, nargs="?")
    parser.add_argument("--save-freq", type=int, default=-1)
    args = parser.parse_args()
    if args.pipe is not None:
        end_with(args.pipe)
    run_cell(args.folder, args.save_freq)
