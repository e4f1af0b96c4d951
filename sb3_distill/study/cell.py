"""Cells (single runs) of a study, and the settings of their evaluation."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sb3_distill.common.files import file_name

# Settings of ``evaluation`` that are whole numbers, each with its smallest allowed value
COUNTS = {"n_episodes": 1, "seed": 0, "eval_freq": 1, "eval_episodes": 1}
EVALUATION_KEYS = (*COUNTS, "epsilon", "select", "starts_from", "teacher", "teachers")
MULTI_TASK_EVALUATION_KEYS = ("n_episodes", "epsilon", "seed", "teachers")


class StudyError(ValueError):
    """A study cannot be read, run or reported; the message says why and what to do."""


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

    @property
    def key(self) -> str:
        """Name of the cell's folder: readable, and different for cells with different settings."""
        # The same cell whoever imports its packages
        settings = {name: value for name, value in asdict(self).items() if name != "gym_packages"}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        words = [re.sub(r"[^A-Za-z0-9.]+", "", str(value)) for value in self.labels.values()]
        # Names of files have 255 bytes at most.
        return "-".join(["-".join(words)[:200], digest])

    @property
    def recording_key(self) -> str | None:
        """Name of the recording, equal for all cells that can share it; None if the cell uses no recording."""
        if not self.records or self.algo not in ("pd", "qpd"):
            return None
        # Only these hyperparameters influence the teacher's play; those of the student do not.
        shared = {"teacher", "teacher_eps", "n_envs", "frame_stack", "env_wrapper", "train_freq"}
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
    :return: whether the result of the run is a single agent for a single game. False for students of real-time
        distillation and of multi-task distillation, which have other evaluations.
    """
    return algo in ("pd", "qpd") or (algo == "rtpd" and not hyperparams.get("students", True))


def evaluation_keys(cell: Cell) -> set[str]:
    """
    :param cell: a cell
    :return: names of the settings that its evaluation uses; none for students of real-time distillation, which are
        evaluated during the run
    """
    if cell.algo in ("mtpd", "mtdqn"):
        return set(MULTI_TASK_EVALUATION_KEYS)
    return set(EVALUATION_KEYS) - {"teachers"} if leaves_one_agent(cell.algo, cell.hyperparams) else set()
