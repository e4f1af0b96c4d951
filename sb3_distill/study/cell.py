"""A run of a study, and what its evaluation reads."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sb3_distill.common.files import file_name

# Whole numbers of evaluation, and the least that they may be
COUNTS = {"n_episodes": 1, "seed": 0, "eval_freq": 1, "eval_episodes": 1}
EVALUATION_KEYS = (*COUNTS, "epsilon", "select", "starts_from", "teacher", "teachers")
MULTI_TASK_EVALUATION_KEYS = ("n_episodes", "epsilon", "seed", "teachers")


class StudyError(ValueError):
    """A study file says what it cannot mean."""


@dataclass(frozen=True)
class Cell:
    """
    One run of a study.

    :param algo: key of the Zoo's ``--algo``
    :param env: environment
    :param seed: its seed
    :param n_timesteps: its length
    :param hyperparams: what differs from ``hyperparams/<algo>.yml``
    :param labels: where in the grid it lies
    :param evaluation: how its agents are scored
    :param env_kwargs: arguments of the environment
    :param records: whether the teacher's play is shared with other cells
    """

    algo: str
    env: str
    seed: int
    n_timesteps: int | None = None
    hyperparams: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    records: bool = False

    @property
    def key(self) -> str:
        """A folder's name: readable, and another one for every other setting."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        words = [re.sub(r"[^A-Za-z0-9.]+", "", str(value)) for value in self.labels.values()]
        return "-".join([*words, digest])

    @property
    def recording_key(self) -> str | None:
        """A name for the teacher's play: the same for all cells that can share it; None where there is none."""
        if not self.records or self.algo not in ("pd", "qpd"):
            return None
        # What a student does with the play does not change it.
        shared = {"teacher", "teacher_eps", "n_envs", "frame_stack", "env_wrapper", "train_freq"}
        settings = {name: value for name, value in self.hyperparams.items() if name in shared}
        about = [self.algo, self.env, self.n_timesteps, self.env_kwargs, settings]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        return f"{file_name(self.env)}-{digest}"


@dataclass(frozen=True)
class Study:
    """
    A study file.

    :param name: its file's name
    :param title: one line
    :param cells: its runs
    :param published: rows of the paper, with the labels of the grid and ``percent``
    :param paper: what is reproduced
    :param notes: what differs, for the report
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
    :param hyperparams: of the run
    :return: whether the run leaves one agent of one game, last or best; students beside a teacher and those of several
        tasks have evaluations of their own
    """
    return algo in ("pd", "qpd") or (algo == "rtpd" and not hyperparams.get("students", True))


def evaluation_keys(cell: Cell) -> set[str]:
    """
    :param cell: a cell
    :return: what its evaluation reads; nothing for students beside a teacher, which the run itself evaluates
    """
    if cell.algo in ("mtpd", "mtdqn"):
        return set(MULTI_TASK_EVALUATION_KEYS)
    return set(EVALUATION_KEYS) - {"teachers"} if leaves_one_agent(cell.algo, cell.hyperparams) else set()
