"""Cells (single runs) of a study, and the settings of their evaluation."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sb3_distill.agents.files import BEST_MODEL
from sb3_distill.algorithms import STUDENTS
from sb3_distill.base.several.spec import name_students
from sb3_distill.common.files import file_name, model_zip, run_folder

# Settings of ``evaluation``
EVALUATION_KEYS = (
    *("n_episodes", "seed", "eval_freq", "eval_episodes"),
    *("epsilon", "select", "starts_from", "teacher", "teachers"),
)
# Algorithms that distil one game into one or several students of their own, also from a recording
DISTILLING = ("pd", "qpd")
# Algorithms whose agents play several games
MULTI_TASK = ("mtpd", "mtdqn")
# As ``evaluation.teacher``, the Zoo's agent for the game; before the key of a cell, the agent that this cell leaves
ZOO, OF_CELL = "zoo", "cell:"
# What the results call the first student of a run that has ``students``
FIRST = "first"


class StudyError(ValueError):
    """A study cannot be read, run or reported; the message says why and what to do."""


def _cell_in(source: Any) -> str | None:
    return source.removeprefix(OF_CELL) if isinstance(source, str) and source.startswith(OF_CELL) else None


@dataclass(frozen=True)
class Cell:
    """
    One run of a study.

    :param algo: key of the Zoo's ``--algo``
    :param env: id of the environment
    :param seed: seed of the run
    :param n_timesteps: length of the run; None: as in ``hyperparams/<algo>.yml``
    :param hyperparams: hyperparameters that differ from ``hyperparams/<algo>.yml``
    :param labels: by dimension of the grid, the cell's label
    :param evaluation: settings of the evaluation
    :param env_kwargs: arguments of the environment
    :param records: which cells share a recording of the teacher's play: those with the same seed, or all of them
        whatever their seed (manifests of earlier versions say True for that); False: there is no recording
    :param gym_packages: packages that are imported first, see ``trust_packages``
    :param share_play: the dimension of the grid whose values are the students of this run, and their labels there, the
        first student first; empty: the run stands for one value of every dimension
    """

    algo: str
    env: str
    seed: int
    n_timesteps: int | None = None
    hyperparams: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    records: Literal[False, "per seed", "shared", True] = False
    gym_packages: Sequence[str] = ()
    share_play: dict[str, list[str]] = field(default_factory=dict)

    @property
    def students(self) -> dict[str, str]:
        """
        By what the results call each student of the run, its name in the run; that of the first is empty. Empty where
        the run trains one student, or is evaluated otherwise.
        """
        further = name_students(self.hyperparams.get("students") or {}) if self.algo in DISTILLING else {}
        labels = next(iter(self.share_play.values()), [FIRST, *further])
        return dict(zip(labels, ["", *further], strict=True)) if further else {}

    @property
    def teacher_cell(self) -> str | None:
        """Key of the cell whose agent teaches this one; None if the teacher is no agent of the study."""
        return _cell_in(self.hyperparams.get("teacher"))

    @property
    def reference_cell(self) -> str | None:
        """Key of the cell whose agent counts as 100%; None if this is no agent of the study."""
        return _cell_in(self.evaluation.get("teacher"))

    @property
    def part(self) -> str:
        """The field or label that tells the rows of the cell's students apart."""
        return next(iter(self.share_play), "player")

    @property
    def row_labels(self) -> dict[str, str]:
        """The labels that all rows of the cell have."""
        return {name: label for name, label in self.labels.items() if name not in self.share_play}

    def zips(self, run: Path) -> dict[str, Path]:
        """
        :param run: the run folder of a cell that leaves agents for a single game
        :return: by what the results call each student (empty if there is one alone), the zip of its last or best model,
            as the evaluation selects
        """
        folders = {
            label: run_folder(run / "students" / name, self.algo, self.env) if name else run
            for label, name in (self.students or {"": ""}).items()
        }
        return {label: self.zip_in(folder) for label, folder in folders.items()}

    @property
    def protocol(self) -> dict[str, Any]:
        """Number of episodes, share of random actions and seed of its evaluation."""
        defaults = {"n_episodes": 30, "epsilon": 0.0, "seed": 0}
        return {name: self.evaluation.get(name, default) for name, default in defaults.items()}

    @property
    def selects_best(self) -> bool:
        """Whether the best model of the run's evaluations is scored, instead of the last one."""
        return self.evaluation.get("select") == "best"

    def zip_in(self, folder: Path) -> Path:
        """
        :param folder: a run folder
        :return: the zip of its last or best model, as the evaluation selects
        """
        return folder / f"{BEST_MODEL}.zip" if self.selects_best else model_zip(folder, self.env)

    @property
    def key(self) -> str:
        """Name of the cell's folder: readable, and different for cells with different settings."""
        # The same cell whoever imports its packages; cells of earlier versions have no share_play.
        left_out = {"gym_packages"} | (set() if self.share_play else {"share_play"})
        settings = {name: value for name, value in asdict(self).items() if name not in left_out}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        words = [re.sub(r"[^A-Za-z0-9.]+", "", str(value)) for value in self.labels.values()]
        # Names of files have 255 bytes at most.
        return "-".join(["-".join(words)[:200], digest])

    @property
    def recording_key(self) -> str | None:
        """Name of the recording, equal for all cells that can share it; None if the cell uses no recording."""
        if not self.records or self.algo not in DISTILLING:
            return None
        # Only these hyperparameters influence the teacher's play; those of the student do not.
        shared = {"teacher", "teacher_eps", "n_envs", "frame_stack", "env_wrapper", "train_freq", "strict"}
        # And these what is recorded of it
        shared |= {"teacher_keys", "student_keys"}
        settings = {name: value for name, value in self.hyperparams.items() if name in shared}
        seed = self.seed if self.records == "per seed" else None
        about = [self.algo, self.env, self.n_timesteps, self.env_kwargs, settings, seed]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        return f"{file_name(self.env)}-{digest}"


@dataclass(frozen=True)
class Study:
    """
    The content of a study file.

    :param name: name of the file, without its extension
    :param title: title of the study
    :param cells: the runs of the study
    :param published: results of the paper: rows with the environment, labels of the grid, and ``percent``
    :param paper: the paper whose results are reproduced
    :param notes: differences from the paper, for the report
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    published: tuple[dict[str, Any], ...] = ()
    paper: str = ""
    notes: str = ""


def leaves_one_agent(algo: str, hyperparams: Mapping[str, Any]) -> bool:
    """
    :param algo: key of the Zoo's ``--algo``
    :param hyperparams: hyperparameters of the run
    :return: whether each agent that the run leaves is one for a single game, and the Zoo's evaluations are of it. False
        for students beside a teacher and for agents of several games, which have other evaluations.
    """
    return algo in STUDENTS or (algo == "rtpd" and not hyperparams.get("students", True))


def plays_one_game(cell: Cell) -> bool:
    """
    :param cell: a cell
    :return: whether its agents play a single game after the run, to be scored. False for those of several games, and
        for the last models of students beside a teacher, which the run itself has scored.
    """
    return leaves_one_agent(cell.algo, cell.hyperparams) or (cell.algo == "rtpd" and cell.selects_best)


def evaluation_keys(cell: Cell) -> set[str]:
    """
    :param cell: a cell
    :return: names of the settings that its evaluation uses
    """
    if cell.algo in MULTI_TASK:
        unused = {"teacher", "starts_from"} | (set() if cell.selects_best else {"eval_freq", "eval_episodes"})
        return set(EVALUATION_KEYS) - unused
    if leaves_one_agent(cell.algo, cell.hyperparams):
        return set(EVALUATION_KEYS) - {"teachers"}
    # Settings of rtpd say how often its run evaluates the students.
    return set(EVALUATION_KEYS) - {"teachers", "eval_freq", "eval_episodes"} if cell.selects_best else {"select"}
