"""One cell of a study, from its settings to its rows: ``python -m sb3_distill.study.job FOLDER``."""

import contextlib
import csv
import hashlib
import json
import os
import platform
import shlex
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sb3_distill.mtpd.teachers import MultiTaskTeacher
from sb3_distill.results.tables import to_json
from sb3_distill.study.cell import Cell, leaves_one_agent

MANIFEST, SETTINGS, LOG, PROBLEM = "manifest.json", "cell.json", "train.log", "problem.txt"


def train_arguments(cell: Cell, folder: Path, recording: Path | None) -> list[str]:
    """
    :param cell: the cell
    :param folder: where the Zoo puts the run folder
    :param recording: the teacher's play, where it is shared
    :return: the arguments of ``rl_zoo3.train``
    """
    hyperparams = dict(cell.hyperparams)
    if recording is not None:
        hyperparams["recording"] = str(recording)
    if cell.algo in ("pd", "qpd"):
        # The study scores the teacher once for all its cells.
        hyperparams.setdefault("n_teacher_episodes", 0)
    if cell.algo == "mtpd":
        hyperparams.setdefault("n_eval_episodes", 0)
    # Students beside a teacher and those of several tasks have evaluations of their own.
    eval_freq = cell.evaluation.get("eval_freq", -1) if leaves_one_agent(cell.algo, cell.hyperparams) else -1
    arguments = ["--algo", cell.algo, "--env", cell.env, "--seed", str(cell.seed), "-f", str(folder)]
    arguments += ["--eval-freq", str(eval_freq), "--eval-episodes", str(cell.evaluation.get("eval_episodes", 10))]
    if cell.n_timesteps is not None:
        arguments += ["-n", str(cell.n_timesteps)]
    if cell.env_kwargs:
        arguments += ["--env-kwargs", *(f"{name}:{value!r}" for name, value in cell.env_kwargs.items())]
    if hyperparams:
        arguments += ["-params", *(f"{name}:{value!r}" for name, value in hyperparams.items())]
    return arguments


def train(cell: Cell, folder: Path, recording: Path | None) -> Path:
    """
    Run ``rl_zoo3.train`` in this process.

    :param cell: the cell
    :param folder: where the Zoo puts the run folder
    :param recording: the teacher's play, where it is shared
    :return: the run folder
    """
    import sb3_distill_zoo

    sb3_distill_zoo.add_finder()
    from rl_zoo3.train import train as zoo_train

    arguments = sys.argv
    sys.argv = ["rl_zoo3.train", *train_arguments(cell, folder, recording)]
    try:
        with (folder / LOG).open("w", buffering=1) as log, contextlib.redirect_stdout(log):
            # As it would be typed: in the folder that the cell has once it is finished
            print("python -m", shlex.join(sys.argv).replace(str(folder), str(folder.with_name(cell.key))))
            zoo_train()
    finally:
        sys.argv = arguments
    return folder / cell.algo / f"{cell.env.replace('/', '-')}_1"


def score_teacher(cell: Cell, source: str, folder: Path, protocol: dict[str, Any]) -> Any:
    """
    The teacher's score under the cell's evaluation, kept for the other cells of the study.

    :param cell: the cell
    :param source: the teacher
    :param folder: where scores are kept
    :param protocol: the arguments of ``score_agent``
    :return: its ``Score``
    """
    from sb3_distill import load_teacher
    from sb3_distill.evaluation.play import Score
    from sb3_distill.evaluation.scoring import score_agent

    teacher = load_teacher(source, device="cpu")
    path = score_path(cell, teacher.sha256, folder)
    if path.is_file():
        return Score(**json.loads(path.read_text()))
    score = score_agent(teacher, cell.env, **protocol)
    write_json(path, asdict(score))
    return score


def score_path(cell: Cell, sha256: str, folder: Path) -> Path:
    """
    :param cell: a cell
    :param sha256: of an agent
    :param folder: where scores are kept
    :return: where the agent's score under the cell's evaluation is kept
    """
    parts = [cell.env.replace("/", "-"), sha256[:12], *map(str, evaluation_of(cell).values())]
    special = {"env_kwargs": cell.env_kwargs, "starts_from": cell.evaluation.get("starts_from")}
    if any(special.values()):
        parts.append(hashlib.sha256(json.dumps(special, sort_keys=True).encode()).hexdigest()[:8])
    return folder / f"{'-'.join(parts)}.json"


def evaluation_of(cell: Cell) -> dict[str, Any]:
    """
    :param cell: a cell
    :return: episodes, share of random actions and seed
    """
    defaults = {"n_episodes": 30, "epsilon": 0.0, "seed": 0}
    return {name: cell.evaluation.get(name, default) for name, default in defaults.items()}


def starts_of(cell: Cell, study: Path) -> Any:
    """
    The start states of a game, recorded once for the study.

    :param cell: a cell
    :param study: the study's folder
    :return: its ``HeldOutStarts``, None where episodes begin as the game does
    """
    from sb3_distill.evaluation.starts import load_or_record

    source = cell.evaluation.get("starts_from")
    if source is None:
        return None
    return load_or_record(starts_path(cell, study), cell.env, source, env_kwargs=cell.env_kwargs)


def starts_path(cell: Cell, study: Path) -> Path:
    """
    :param cell: a cell whose episodes begin at recorded states
    :param study: the study's folder
    :return: the file of these states
    """
    about = [cell.evaluation["starts_from"], cell.env_kwargs]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    return study / "starts" / f"{cell.env.replace('/', '-')}-{digest}.npz"


def distilled_rows(cell: Cell, run: Path, study: Path) -> list[dict[str, Any]]:
    """Score the one agent that a run leaves, last or best."""
    from sb3_distill import load_teacher
    from sb3_distill.evaluation.scoring import describe, score_agent
    from sb3_distill.evaluation.starts import StartFrom

    best = cell.evaluation.get("select") == "best"
    student = load_teacher(run / ("best_model.zip" if best else f"{cell.env.replace('/', '-')}.zip"), device="cpu")
    source = cell.evaluation.get("teacher") or student.teacher_source
    protocol = {**evaluation_of(cell), "env_kwargs": cell.env_kwargs}
    starts = starts_of(cell, study)
    if starts is not None:
        protocol["start_wrapper"] = partial(StartFrom, starts=starts)
    reference = None if source is None else score_teacher(cell, source, study / "teachers", protocol)
    score = score_agent(student, cell.env, **protocol)
    row = describe(student, cell.env, score, reference)
    return [row if starts is None else {**row, "starts_sha256": starts.sha256}]


def real_time_rows(cell: Cell, run: Path, study: Path) -> list[dict[str, Any]]:
    """Table 1 of Sun & Fazli 2019 from the learning curves of an ``rtpd`` run; without students, the DQN's score."""
    if leaves_one_agent(cell.algo, cell.hyperparams):
        return distilled_rows(cell, run, study)
    from sb3_distill import load_teacher
    from sb3_distill.agents.archive import read_archive
    from sb3_distill.results.curves import N_LAST, curve_of, summarize
    from sb3_distill.results.statistics import summarize as summarize_returns
    from sb3_distill.rtpd.students import TEACHER

    path = run / "learning_curves.csv"
    if not path.is_file():
        settings = read_archive(run / f"{cell.env.replace('/', '-')}.zip").data
        raise ValueError(
            f"The run has no evaluation to score its students by: {settings['num_timesteps']} steps made "
            f"{settings['_n_updates']} updates, with eval_freq={settings['eval_freq']} updates between evaluations of "
            f"n_eval_episodes={settings['n_eval_episodes']}. Raise n_timesteps, or lower eval_freq; both numbers of "
            "evaluations must be above 0."
        )
    with path.open() as file:
        evaluations: list[dict[str, Any]] = [
            {name: value if name == "player" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
    teacher = float(np.mean(curve_of(evaluations, TEACHER)[-N_LAST:]))
    rows = []
    for entry in summarize(evaluations):
        if entry["player"] == TEACHER:
            continue
        student = load_teacher(run / "students" / entry["player"] / "pd" / f"{cell.env.replace('/', '-')}_1")
        rows.append(
            {
                "env": cell.env,
                "player": entry["player"],
                "n_parameters": student.n_parameters,
                "n_bytes": student.stored_bytes,
                **asdict(summarize_returns(list(curve_of(evaluations, entry["player"])[-N_LAST:]))),
                "teacher_mean": teacher,
                "percent_of_teacher": entry["last_percent"],
                "max_percent": entry["max_percent"],
            }
        )
    return rows


def load_task_teachers(cell: Cell) -> "MultiTaskTeacher":
    """
    :param cell: a cell of several tasks
    :return: their teachers: those that the evaluation names, else the Zoo's own
    """
    import gymnasium as gym
    import torch as th
    from stable_baselines3.common.vec_env import DummyVecEnv

    from sb3_distill.envs.multitask import tasks_of
    from sb3_distill.mtpd.teachers import MultiTaskTeacher, load_teachers

    env = DummyVecEnv([lambda: gym.make(cell.env, **cell.env_kwargs)])
    tasks = tasks_of(env)
    env.close()
    teachers = load_teachers(cell.evaluation.get("teachers"), tasks, th.device("cpu"))
    return MultiTaskTeacher(teachers, tasks, int(env.action_space.n))  # type: ignore[attr-defined]


def load_references(cell: Cell) -> None:
    """
    Load all agents that the evaluation names, so that a wrong name costs no training.

    :param cell: the cell
    """
    from sb3_distill import load_teacher

    if ROWS[cell.algo] is multi_task_rows:
        load_task_teachers(cell)
    elif leaves_one_agent(cell.algo, cell.hyperparams):
        for source in (cell.evaluation.get("teacher"), cell.evaluation.get("starts_from")):
            if source not in (None, "random"):
                load_teacher(source, device="cpu")


def multi_task_rows(cell: Cell, run: Path, study: Path) -> list[dict[str, Any]]:
    """Score the student of an ``mtpd`` or ``mtdqn`` run at every task, and their geometric mean."""
    from sb3_distill import MultiTaskDistillation, MultiTaskDQN
    from sb3_distill.evaluation.players import RandomPlayer
    from sb3_distill.evaluation.tasks import score_task, score_tasks, task_interval
    from sb3_distill.results.statistics import GEOMETRIC_MEAN, normalized_percent, summarize

    cls: Any = MultiTaskDistillation if cell.algo == "mtpd" else MultiTaskDQN
    model = cls.load(run / f"{cell.env}.zip", device="cpu")
    teacher = load_task_teachers(cell)
    tasks = teacher.tasks
    protocol = evaluation_of(cell)
    students, references = (score_tasks(tasks, player, **protocol) for player in (model.policy, teacher))
    randoms = {
        task.name: score_task(task, RandomPlayer(task.n_actions), protocol["n_episodes"], 0.0, protocol["seed"])
        for task in tasks
    }
    # What acts: the multi-task DQN has a target network too.
    n_parameters = sum(parameter.numel() for parameter in model.policy.q_net.parameters())
    sizes = {"env": cell.env, "n_parameters": n_parameters, "n_bytes": 4 * n_parameters}
    rows = [
        {
            **sizes,
            "task": name,
            **asdict(summarize(score.returns)),
            "teacher_mean": references[name].mean,
            "percent_of_teacher": normalized_percent(score.mean, references[name].mean, randoms[name].mean),
        }
        for name, score in students.items()
    ]
    mean, low, high = task_interval(students, references, randoms)
    return [*rows, {**sizes, "task": GEOMETRIC_MEAN, "percent_of_teacher": mean, "percent_interval": [low, high]}]


ROWS = {
    "pd": distilled_rows,
    "qpd": distilled_rows,
    "rtpd": real_time_rows,
    "mtpd": multi_task_rows,
    "mtdqn": multi_task_rows,
}


def versions() -> dict[str, str]:
    """
    :return: versions and hardware that results depend on
    """
    from importlib.metadata import version

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


def write_json(path: Path, content: Any) -> None:
    """
    Write a file that is either whole or not there.

    :param path: the file
    :param content: what goes in
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f"{path.name}.{os.getpid()}")
    incomplete.write_text(to_json(content))
    incomplete.replace(path)


def run_cell(folder: Path) -> None:
    """
    Train, score, and write the manifest, which says that the cell is finished, last.

    :param folder: of the cell, with its settings
    """
    start = time.time()
    cell = Cell(**json.loads((folder / SETTINGS).read_text()))
    study = folder.parent.parent
    key = cell.recording_key
    load_references(cell)
    run = train(cell, folder, None if key is None else study / "recordings" / key)
    trained = time.time()
    rows = ROWS[cell.algo](cell, run, study)
    own = {"algo": cell.algo, "seed": cell.seed, **cell.labels}
    # Where the files lie differs between machines; what they are does not.
    rows = [{**row, **own, "agent": cell.key} for row in rows]
    command = (folder / LOG).read_text().splitlines()[0]
    seconds = {"train": trained - start, "evaluate": time.time() - trained}
    write_json(
        folder / MANIFEST,
        {"cell": asdict(cell), "rows": rows, "seconds": seconds, "command": command, "versions": versions()},
    )


def _end_with_parent() -> None:
    """End this process when the one that started it does: a worker that is killed leaves no work behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _end_with_parent()
    run_cell(Path(sys.argv[1]))
