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

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.kinds.own import is_function_name
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.sources import find_zoo_teacher
from sb3_distill.algorithms import resolve
from sb3_distill.common.files import file_name, model_zip, run_folder, write_whole
from sb3_distill.envs.multitask import Task
from sb3_distill.evaluation.environments import play_where_it_taught, recipe_of
from sb3_distill.evaluation.loading import load_player, load_teacher_of
from sb3_distill.evaluation.play import Score
from sb3_distill.evaluation.players import RandomPlayer
from sb3_distill.evaluation.scoring import compare, row_of, score_agent
from sb3_distill.evaluation.starts import HeldOutStarts, StartFrom, load_or_record
from sb3_distill.evaluation.tasks import pair_tasks, score_task, score_tasks, task_interval, task_quotients
from sb3_distill.mtpd import MultiTaskDistillation, MultiTaskDQN
from sb3_distill.mtpd.tasks import seen_tasks
from sb3_distill.mtpd.teachers import MultiTaskTeacher, find_task_teachers, load_teachers
from sb3_distill.quantization.packing import packed_bytes
from sb3_distill.reading.schema import read_fields
from sb3_distill.reading.text import read_json
from sb3_distill.results.comparison import MARGIN, verdict
from sb3_distill.results.curves import CURVES_FILE, N_LAST, TEACHER, curve_of, read_csv, summarize_players
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN, NORMALIZED, SIGNED_QUOTIENT, summarize
from sb3_distill.results.tables import to_json
from sb3_distill.study.cell import MULTI_TASK, ZOO, Cell, StudyError, leaves_one_agent, plays_one_game
from sb3_distill.study.manifest import UsedAgent, agent_of_cell, teachers_in
from sb3_distill.study.plan.needs import taught_in
from sb3_distill.study.plan.start import without_evaluation

# Settings of ``evaluation`` that name an agent, where a run leaves a single one
_EVALUATION_AGENTS = ("teacher", "starts_from")


def _digest(content: Any) -> str:
    """A short hash of settings, for file names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def score_path(cell: Cell, teacher: Teacher, folder: Path, starts: HeldOutStarts | None = None) -> Path:
    """
    :param cell: a cell
    :param teacher: an agent
    :param folder: folder with scores
    :param starts: start states of the episodes
    :return: path of the file with the agent's score in the cell's evaluation; another one for every agent, environment
        and start states
    """
    parts = [file_name(cell.env), teacher.sha256[:12], *map(str, cell.protocol.values())]
    about = [str(recipe_of(teacher, cell.env, cell.env_kwargs)), None if starts is None else starts.sha256]
    if teacher.facts.student_keys is not None:
        about.append(teacher.facts.student_keys)
    return folder / f"{'-'.join([*parts, _digest(about)])}.json"


def score_teacher(
    cell: Cell, teacher: Teacher, folder: Path, protocol: dict[str, Any], starts: HeldOutStarts | None = None
) -> Score:
    """
    The teacher's score in the cell's evaluation. It is written to a file and reused by the other cells of the study.

    :param cell: the cell
    :param teacher: the teacher
    :param folder: folder with scores
    :param protocol: arguments of ``score_agent``
    :param starts: start states of the episodes
    :return: the teacher's score
    """
    path = score_path(cell, teacher, folder, starts)
    if path.is_file():
        try:
            known = read_fields(Score, read_json(path), "a score")
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): delete it to score the teacher again.") from error
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
    :return: path of the file with these states; another one for every agent that records them
    """
    source = cell.evaluation["starts_from"]
    recorder = source if source == "random" else load_player(source, cell.env, device="cpu").sha256
    digest = _digest([recorder, cell.env_kwargs])
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


def tasks_of_cell(cell: Cell) -> list[Task]:
    """
    :param cell: a multi-task cell
    :return: its tasks, as their teachers see them
    """
    with closing(DummyVecEnv([lambda: gym.make(cell.env, **cell.env_kwargs)])) as env:
        return seen_tasks(env, cell.hyperparams.get("teacher_keys"), "teacher_keys")


def teacher_algorithms(cell: Cell) -> tuple[str, ...]:
    """
    :param cell: a cell whose agents play a single game
    :return: the algorithms among whose agents of the Zoo its teacher is searched
    """
    try:
        with closing(gym.make(cell.env, **cell.env_kwargs)) as env:
            action_space = env.action_space
    except Exception:
        # Whatever it raises, such as a package that is missing here, the cell itself will tell.
        action_space = None
    return resolve(cell.algo).teacher_algorithms(action_space)


def load_task_teachers(cell: Cell) -> MultiTaskTeacher:
    """
    :param cell: a multi-task cell
    :return: the teachers of the tasks: those that the evaluation names, else those from which the students learn, else
        the Zoo's agents
    """
    tasks = tasks_of_cell(cell)
    sources = cell.evaluation.get("teachers") or cell.hyperparams.get("teachers") or find_task_teachers(tasks)
    return MultiTaskTeacher(load_teachers(sources, tasks, th.device("cpu"), _kwargs_of(cell)), tasks)


def _kwargs_of(cell: Cell) -> Any:
    """What a cell says of ONNX files beside them."""
    return cell.hyperparams.get("teacher_kwargs")


def _evaluation_agents(cell: Cell, study: Path) -> dict[str, str | Path]:
    """By its setting, the agents that the evaluation names, if the cell's agents play a single game after the run."""
    if not plays_one_game(cell):
        return {}
    named = {name: cell.evaluation.get(name) for name in _EVALUATION_AGENTS}
    if named["teacher"] == ZOO:
        algos = teacher_algorithms(cell)
        named["teacher"] = find_zoo_teacher(cell.env, algos, argument="evaluation: {teacher: PATH}")
    if cell.reference_cell is not None:
        named["teacher"] = agent_of_cell(study, cell.reference_cell)
    return {name: source for name, source in named.items() if source not in (None, "random")}


def load_named(cell: Cell, source: str | Path) -> Teacher:
    """
    :param cell: a cell
    :param source: an agent that it names
    :return: the agent; what an ONNX file leaves open, the cell's settings and environment say
    """
    return load_player(source, cell.env, _kwargs_of(cell), "cpu", False, *taught_in(cell))


def load_references(cell: Cell, study: Path) -> None:
    """
    Load all agents that the evaluation names, so that a wrong name raises an error before the training.

    :param cell: the cell
    :param study: the study's folder
    """
    if cell.algo in MULTI_TASK:
        load_task_teachers(cell)
    for source in _evaluation_agents(cell, study).values():
        load_named(cell, source)


def agents_of(cell: Cell, run: Path, study: Path) -> tuple[UsedAgent, ...]:
    """
    :param cell: a cell that was trained
    :param run: its run folder
    :param study: the study's folder
    :return: the agents on which its results depend
    """
    found = teachers_in(model_zip(run, cell.env), cell)
    if cell.algo in MULTI_TASK:
        prefix = "evaluation.teachers" if cell.evaluation.get("teachers") else "teachers"
        own = {f"{prefix}.{name}": teacher for name, teacher in load_task_teachers(cell).items()}
    else:
        named = _evaluation_agents(cell, study)
        own = {f"evaluation.{name}": load_named(cell, source) for name, source in named.items()}
    used = {agent.setting: agent for agent in found}
    used |= {setting: UsedAgent(setting, teacher.source, teacher.sha256) for setting, teacher in own.items()}
    return tuple(used.values())


def check_unchanged(teacher: Teacher, sha256: str | None) -> None:
    """
    :param teacher: the agent that is found where a run's teacher was
    :param sha256: the hash of the run's teacher
    :raises StudyError: it is another one
    """
    if not teacher.is_agent(sha256):
        raise StudyError(
            f"{teacher.source} was replaced while the cell ran: its student learned from an agent with sha256 "
            f"{str(sha256)[:12]}, and now there is one with {teacher.sha256[:12]}. Run the study again."
        )


def distilled_rows(cell: Cell, run: Path, study: Path) -> list[Row]:
    """Score the student of a run, or each of its students."""
    rows = {label: student_row(cell, path, study) for label, path in cell.zips(run).items()}
    return [Row.from_dict({**row.to_dict(), **({cell.part: label} if label else {})}) for label, row in rows.items()]


def student_row(cell: Cell, path: Path, study: Path, beside: Path | None = None) -> Row:
    """
    :param cell: a cell
    :param path: zip of one of its students
    :param study: the study's folder
    :param beside: zip of the teacher beside which the student learned, in the same run
    :return: the student's row
    """
    student = load_teacher(path, device="cpu")
    named = _evaluation_agents(cell, study).get("teacher")
    own = cell.hyperparams.get("teacher")
    # A student's file names no function; the study's file is the user's own.
    source = named or beside or student.facts.taught_by or (own if is_function_name(own) else None)
    teacher = None
    if source is not None:
        is_own = source == student.facts.taught_by
        # What a student's file names is no reason to ask the hub, or to call anything.
        is_by_file = is_own and source != named
        teacher = load_teacher_of(student, source, cell.env, None if is_own else _kwargs_of(cell), "cpu", is_by_file)
        if is_own:
            check_unchanged(teacher, student.facts.teacher_sha256)
        play_where_it_taught(teacher, [student])
    protocol = {**cell.protocol, "env_kwargs": cell.env_kwargs}
    starts = starts_of(cell, study)
    if starts is not None:
        protocol["start_wrapper"] = partial(StartFrom, starts=starts, first_seed=protocol["seed"])
    is_trained_here = cell.reference_cell is not None
    if named is None:
        is_trained_here = beside is not None or cell.teacher_cell is not None
    reference = None if teacher is None else score_teacher(cell, teacher, study / "teachers", protocol, starts)
    row = row_of(student, cell.env, score_agent(student, cell.env, **protocol), reference)
    return replace(
        row,
        # Runs of the same cell write other files of the same agent.
        agent_sha256=None,
        # Seeds whose teachers the study itself has trained are runs of one kind nevertheless.
        teacher_sha256=None if teacher is None or is_trained_here else teacher.sha256,
        starts_sha256=None if starts is None else starts.sha256,
    )


def real_time_rows(cell: Cell, run: Path, study: Path) -> list[Row]:
    """Table 1 of Sun & Fazli 2019 from the learning curves of an ``rtpd`` run; without students, the DQN's score."""
    if leaves_one_agent(cell.algo, cell.hyperparams):
        return distilled_rows(cell, run, study)
    path = run / CURVES_FILE
    if not path.is_file():
        settings = read_archive(model_zip(run, cell.env)).data
        names = ("num_timesteps", "_n_updates", "eval_freq", "n_eval_episodes")
        raise ValueError(without_evaluation(*(settings[name] for name in names)))
    evaluations = read_csv(path)
    summaries = [summary for summary in summarize_players(evaluations) if summary.player != TEACHER]
    if cell.selects_best:
        students = {each.player: run_folder(run / "students" / each.player, "pd", cell.env) for each in summaries}
        best = {name: student_row(cell, cell.zip_in(own), study, cell.zip_in(run)) for name, own in students.items()}
        return [replace(row, player=name) for name, row in best.items()]
    teacher_mean = float(np.mean(curve_of(evaluations, TEACHER)[-N_LAST:]))
    # Evaluations that follow each other in one run are no independent sample: they give no intervals.
    no_sample: dict[str, Any] = {"mean_interval": (), "iqm_interval": (), "n_distinct": None}
    rows = []
    for summary in summaries:
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
                quotient=None if np.isnan(summary.last_quotient) else summary.last_quotient,
            )
        )
    return rows


def multi_task_rows(cell: Cell, run: Path, study: Path) -> list[Row]:
    """Score the agent of an ``mtpd`` or ``mtdqn`` run on every task, and compute the geometric mean."""
    cls: Any = MultiTaskDistillation if cell.algo == "mtpd" else MultiTaskDQN
    model = cls.load(cell.zip_in(run), device="cpu")
    teacher = load_task_teachers(cell)
    for name, sha256 in (getattr(model, "teacher_sha256", None) or {}).items():
        if teacher[name].source == model.taught_by[name]:
            check_unchanged(teacher[name], sha256)
    protocol = cell.protocol
    students = score_tasks(model.tasks, model.policy, **protocol)
    references = score_tasks(teacher.tasks, teacher, **protocol)
    randoms = {
        task.name: score_task(task, RandomPlayer(task.n_actions), protocol["n_episodes"], 0.0, protocol["seed"])
        for task in model.tasks
    }
    # Count only the network that acts, without the target network of the multi-task DQN.
    n_parameters = sum(parameter.numel() for parameter in model.policy.q_net.parameters())
    row = partial(Row, cell.env, cell.key, cell.algo, n_parameters, packed_bytes([model.policy.q_net]))
    pairs = pair_tasks(students, references, randoms)
    quotients = task_quotients(students, references)
    rows = [
        row(
            task=name,
            **asdict(summarize(score.returns, score.traces)),
            teacher_mean=references[name].mean,
            teacher_sha256=teacher[name].sha256,
            quotient=quotients[name],
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
            teacher_sha256=hashlib.sha256("".join(teacher.sha256.values()).encode()).hexdigest(),
            percent_of_teacher=mean,
            quotient=quotients[GEOMETRIC_MEAN],
            percent_definition=NORMALIZED,
            percent_interval=interval or (),
            margin=MARGIN,
            verdict=verdict(interval, MARGIN),
        ),
    ]


_ROWS = {
    "pd": distilled_rows,
    "qpd": distilled_rows,
    "ppd": distilled_rows,
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
    own = {"algo": cell.algo, "seed": cell.seed, **cell.row_labels, "agent": cell.key}
    return [Row.from_dict({**row.to_dict(), **own}) for row in _ROWS[cell.algo](cell, run, study)]
