"""Scores the agents of one cell after the training, as rows of results."""

import hashlib
import json
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.load import load_teacher
from sb3_distill.common.files import file_name, model_zip, run_folder, write_whole
from sb3_distill.envs.multitask import tasks_of
from sb3_distill.evaluation.play import Score
from sb3_distill.evaluation.players import RandomPlayer
from sb3_distill.evaluation.scoring import compare, row_of, score_agent
from sb3_distill.evaluation.starts import HeldOutStarts, StartFrom, load_or_record
from sb3_distill.evaluation.tasks import pair_tasks, score_task, score_tasks, task_interval
from sb3_distill.mtpd import MultiTaskDistillation, MultiTaskDQN
from sb3_distill.mtpd.teachers import MultiTaskTeacher, find_task_teachers, load_teachers
from sb3_distill.results.comparison import MARGIN, verdict
from sb3_distill.results.curves import CURVES_FILE, N_LAST, TEACHER, curve_of, read_csv, summarize_players
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN, NORMALIZED, SIGNED_QUOTIENT, summarize
from sb3_distill.results.tables import to_json
from sb3_distill.study.cell import Cell, leaves_one_agent


def evaluation_of(cell: Cell) -> dict[str, Any]:
    """
    :param cell: a cell
    :return: number of episodes, share of random actions and seed of its evaluation
    """
    defaults = {"n_episodes": 30, "epsilon": 0.0, "seed": 0}
    return {name: cell.evaluation.get(name, default) for name, default in defaults.items()}


def _digest(content: Any) -> str:
    """A short hash of settings, for file names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def score_path(cell: Cell, sha256: str, folder: Path) -> Path:
    """
    :param cell: a cell
    :param sha256: hash of an agent
    :param folder: folder with scores
    :return: path of the file with the agent's score in the cell's evaluation
    """
    parts = [file_name(cell.env), sha256[:12], *map(str, evaluation_of(cell).values())]
    special = {"env_kwargs": cell.env_kwargs, "starts_from": cell.evaluation.get("starts_from")}
    if any(special.values()):
        parts.append(_digest(special))
    return folder / f"{'-'.join(parts)}.json"


def score_teacher(cell: Cell, source: str, folder: Path, protocol: dict[str, Any]) -> Score:
    """
    The teacher's score in the cell's evaluation. It is written to a file and reused by the other cells of the study.

    :param cell: the cell
    :param source: source of the teacher (see ``load_teacher``)
    :param folder: folder with scores
    :param protocol: arguments of ``score_agent``
    :return: the teacher's score
    """
    teacher = load_teacher(source, device="cpu")
    path = score_path(cell, teacher.sha256, folder)
    if path.is_file():
        known = Score(**json.loads(path.read_text()))
        # Scores of earlier versions do not tell episodes apart.
        if known.traces:
            return known
    score = score_agent(teacher, cell.env, **protocol)
    write_whole(path, to_json(asdict(score)))
    return score


def starts_path(cell: Cell, study: Path) -> Path:
    """
    :param cell: a cell whose evaluation starts from recorded states
    :param study: the study's folder
    :return: path of the file with these states
    """
    digest = _digest([cell.evaluation["starts_from"], cell.env_kwargs])
    return study / "starts" / f"{file_name(cell.env)}-{digest}.npz"


def starts_of(cell: Cell, study: Path) -> HeldOutStarts | None:
    """
    The start states of a game, recorded once for the study.

    :param cell: a cell
    :param study: the study's folder
    :return: the states; None if episodes start as usual
    """
    source = cell.evaluation.get("starts_from")
    if source is None:
        return None
    return load_or_record(starts_path(cell, study), cell.env, source, env_kwargs=cell.env_kwargs)


def load_task_teachers(cell: Cell) -> MultiTaskTeacher:
    """
    :param cell: a multi-task cell
    :return: the teachers of the tasks: those that the evaluation names, or else the Zoo's agents
    """
    with closing(DummyVecEnv([lambda: gym.make(cell.env, **cell.env_kwargs)])) as env:
        tasks = tasks_of(env)
    named = cell.evaluation.get("teachers")
    sources = find_task_teachers(tasks) if named is None else named
    return MultiTaskTeacher(load_teachers(sources, tasks, th.device("cpu")), tasks)


def load_references(cell: Cell) -> None:
    """
    Load all agents that the evaluation names, so that a wrong name raises an error before the training.

    :param cell: the cell
    """
    if _ROWS[cell.algo] is multi_task_rows:
        load_task_teachers(cell)
    elif leaves_one_agent(cell.algo, cell.hyperparams):
        for source in (cell.evaluation.get("teacher"), cell.evaluation.get("starts_from")):
            if source not in (None, "random"):
                load_teacher(source, device="cpu")


def distilled_rows(cell: Cell, run: Path, study: Path) -> list[Row]:
    """Score the agent of a run: the last model, or the best one."""
    best = cell.evaluation.get("select") == "best"
    student = load_teacher(run / "best_model.zip" if best else model_zip(run, cell.env), device="cpu")
    source = cell.evaluation.get("teacher") or student.facts.taught_by
    protocol = {**evaluation_of(cell), "env_kwargs": cell.env_kwargs}
    starts = starts_of(cell, study)
    if starts is not None:
        protocol["start_wrapper"] = partial(StartFrom, starts=starts, first_seed=protocol["seed"])
    reference = None if source is None else score_teacher(cell, source, study / "teachers", protocol)
    score = score_agent(student, cell.env, **protocol)
    row = row_of(student, cell.env, score, reference)
    return [row if starts is None else replace(row, starts_sha256=starts.sha256)]


def real_time_rows(cell: Cell, run: Path, study: Path) -> list[Row]:
    """Table 1 of Sun & Fazli 2019 from the learning curves of an ``rtpd`` run; without students, the DQN's score."""
    if leaves_one_agent(cell.algo, cell.hyperparams):
        return distilled_rows(cell, run, study)
    path = run / CURVES_FILE
    if not path.is_file():
        settings = read_archive(model_zip(run, cell.env)).data
        raise ValueError(
            f"The run has no evaluation to score its students by: {settings['num_timesteps']} steps made "
            f"{settings['_n_updates']} updates, with eval_freq={settings['eval_freq']} updates between evaluations of "
            f"n_eval_episodes={settings['n_eval_episodes']}. Raise n_timesteps, or lower eval_freq; both numbers of "
            "evaluations must be above 0."
        )
    evaluations = read_csv(path)
    teacher_mean = float(np.mean(curve_of(evaluations, TEACHER)[-N_LAST:]))
    # Evaluations that follow each other in one run are no independent sample: they give no intervals.
    no_sample: dict[str, Any] = {"mean_interval": (), "iqm_interval": (), "n_distinct": None}
    rows = []
    for summary in summarize_players(evaluations):
        if summary.player == TEACHER:
            continue
        student = load_teacher(run_folder(run / "students" / summary.player, "pd", cell.env))
        rows.append(
            Row(
                env=cell.env,
                agent=cell.key,
                algo=cell.algo,
                n_parameters=student.n_parameters,
                n_bytes=student.n_bytes,
                player=summary.player,
                **asdict(summarize(list(curve_of(evaluations, summary.player)[-N_LAST:]))) | no_sample,
                teacher_mean=teacher_mean,
                percent_of_teacher=summary.last_percent,
                percent_definition=SIGNED_QUOTIENT,
                max_percent=summary.max_percent,
            )
        )
    return rows


def multi_task_rows(cell: Cell, run: Path, study: Path) -> list[Row]:
    """Score the agent of an ``mtpd`` or ``mtdqn`` run on every task, and compute the geometric mean."""
    cls: Any = MultiTaskDistillation if cell.algo == "mtpd" else MultiTaskDQN
    model = cls.load(model_zip(run, cell.env), device="cpu")
    teacher = load_task_teachers(cell)
    tasks = teacher.tasks
    protocol = evaluation_of(cell)
    students, references = (score_tasks(tasks, player, **protocol) for player in (model.policy, teacher))
    randoms = {
        task.name: score_task(task, RandomPlayer(task.n_actions), protocol["n_episodes"], 0.0, protocol["seed"])
        for task in tasks
    }
    # Count only the network that acts, without the target network of the multi-task DQN.
    n_parameters = sum(parameter.numel() for parameter in model.policy.q_net.parameters())
    row = partial(Row, cell.env, cell.key, cell.algo, n_parameters, 4 * n_parameters)
    pairs = pair_tasks(students, references, randoms)
    rows = [
        row(
            task=name,
            **asdict(summarize(score.returns, score.traces)),
            teacher_mean=references[name].mean,
            **compare(pairs[name]),
        )
        for name, score in students.items()
    ]
    mean, low, high = task_interval(students, references, randoms)
    interval = None if np.isnan(low) else (low, high)
    return [
        *rows,
        row(
            task=GEOMETRIC_MEAN,
            percent_of_teacher=mean,
            percent_definition=NORMALIZED,
            percent_interval=interval or (),
            margin=MARGIN,
            verdict=verdict(interval, MARGIN),
        ),
    ]


_ROWS = {
    "pd": distilled_rows,
    "qpd": distilled_rows,
    "rtpd": real_time_rows,
    "mtpd": multi_task_rows,
    "mtdqn": multi_task_rows,
}


def rows_of(cell: Cell, run: Path, study: Path) -> list[Row]:
    """
    :param cell: a cell that was trained
    :param run: the cell's run folder
    :param study: the study's folder
    :return: the rows of the cell's agents, with the cell's labels
    """
    # Name the agent by the cell's key: the path of its files differs between machines.
    own = {"algo": cell.algo, "seed": cell.seed, **cell.labels, "agent": cell.key}
    return [Row.from_dict({**row.to_dict(), **own}) for row in _ROWS[cell.algo](cell, run, study)]
