"""One row of results: written by ``sb3-distill evaluate`` and studies, read by tables and figures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from sb3_distill.common.formats import format_problem
from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.schema import conform, read_fields
from sb3_distill.reading.text import parse_json

# Fields that need not be known, each with another field. If that other field is known and the first is not, ``to_dict``
# writes the first as null; all other unknown fields are left out.
_NULL_BESIDE = {
    "n_macs": "agent_sha256",
    "percent_of_teacher_bytes": "n_macs",
    "teacher_mean": "mean",
    "percent_of_teacher": "env",
    "max_percent": "player",
}


@dataclass(frozen=True)
class Row:
    """
    The results of one agent in one environment. A field that is None or empty is unknown for this kind of run.

    :param env: id of the environment
    :param agent: source of the agent, or key of the study's cell
    :param algo: the agent's algorithm
    :param n_parameters: number of the agent's parameters (without a critic)
    :param n_bytes: the agent's size in bytes (without a critic)
    :param percent_of_teacher_bytes: ``n_bytes`` as a percentage of the teacher's
    :param n_macs: multiply-accumulate operations per action
    :param player: name of the student in a run that has several
    :param task: the task of a multi-task student, or ``GEOMETRIC_MEAN`` for all of them
    :param mean: mean return
    :param std: sample standard deviation of the returns
    :param median: median of the returns
    :param iqm: interquartile mean of the returns
    :param mean_interval: 95% confidence interval of the mean
    :param iqm_interval: 95% confidence interval of the interquartile mean
    :param n_distinct: number of different episodes: the effective number, which intervals use
    :param agent_sha256: hash of the agent; cells of a study leave it out, because it differs between equal runs
    :param taught_by: source of the agent that counts as 100%; the agent itself if it is one
    :param teacher_sha256: hash of the agent that counts as 100%; not in rows of earlier versions, nor of real-time
        distillation, where each run trains its own teacher
    :param teacher_mean: the teacher's mean return
    :param percent_of_teacher: the mean return as a percentage of the teacher's; NaN if it is not defined
    :param max_percent: the highest evaluation as a percentage of the teacher's highest one
    :param quotient: percentage of the teacher as the paper of the algorithm has it, where that is another number than
        ``percent_of_teacher``: for several tasks ``100 score / teacher`` and the geometric mean of these; for students
        beside a teacher the mean of ``100 score / teacher`` over the last evaluations. Unknown where a teacher's score
        is not positive.
    :param percent_definition: definition of the percentages: "signed quotient" or "normalized", see
        ``sb3_distill.results.statistics``
    :param percent_interval: 95% confidence interval of ``percent_of_teacher``, over pairs of episodes
    :param n_distinct_pairs: number of different pairs of episodes, of the agent and of its teacher
    :param margin: per cent of the teacher by which the agent may be worse
    :param verdict: whether it is: "not worse", "worse" or "undecided"
    :param returns: return of every episode
    :param lengths: length of every episode
    :param traces: hash of every episode; equal hashes are the same episode, played again
    :param starts_sha256: hash of the start states
    :param obs_noise: standard deviation of noise on observations, as a share of their range
    :param action_delay: steps by which actions came late
    :param obs_bits: bits to which observations were rounded
    :param statistics_note: what is to be said of the agent's VecNormalize statistics, if they may be of another moment
        than its weights
    :param seed: seed of the run; if the seed is a dimension of a study's grid, its label there
    :param labels: the other labels of the run in the grid of a study, by dimension
    :param conditions: how the agent was scored, as the file says beside its rows; not written with the row
    :param settings: settings of the run (where it has several students: of this one), as the file says beside its rows;
        not written with the row
    """

    env: str
    agent: str
    algo: str
    n_parameters: int
    n_bytes: int
    percent_of_teacher_bytes: float | None = None
    n_macs: int | None = None
    player: str | None = None
    task: str | None = None
    mean: float | None = None
    std: float | None = None
    median: float | None = None
    iqm: float | None = None
    mean_interval: Sequence[float] = ()
    iqm_interval: Sequence[float] = ()
    n_distinct: int | None = None
    agent_sha256: str | None = None
    taught_by: str | None = None
    teacher_sha256: str | None = None
    teacher_mean: float | None = None
    percent_of_teacher: float | None = None
    max_percent: float | None = None
    quotient: float | None = None
    percent_definition: str | None = None
    percent_interval: Sequence[float] = ()
    n_distinct_pairs: int | None = None
    margin: float | None = None
    verdict: str | None = None
    returns: Sequence[float] = ()
    lengths: Sequence[int] = ()
    traces: Sequence[str] = ()
    starts_sha256: str | None = None
    obs_noise: float | None = None
    action_delay: int | None = None
    obs_bits: int | None = None
    statistics_note: str | None = None
    seed: int | str | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Row":
        """
        :param content: the result of ``to_dict``
        :return: the row; names that are not fields become labels
        :raises ValueError: a field is missing, or of another type than it is written with
        """
        if not isinstance(content, Mapping):
            raise ReadError(f"a row must be a mapping, not {type(content).__name__}")
        own = {name: value for name, value in content.items() if name in ROW_FIELDS}
        labels = {
            name: conform(value, str | float | None, f"the label {name} of a row")
            for name, value in content.items()
            if name not in own
        }
        row = read_fields(cls, {**own, "labels": labels}, "a row")
        for name in ("mean_interval", "iqm_interval", "percent_interval"):
            if len(getattr(row, name)) not in (0, 2):
                raise ReadError(f"the {name} of a row must be two numbers")
        return row

    @property
    def is_of_run(self) -> bool:
        """Whether the run itself has scored the agent, as it does the last models of students beside their teacher."""
        return self.player is not None and self.algo == "rtpd" and not self.traces

    def to_dict(self) -> dict[str, Any]:
        """
        :return: fields and labels in one dictionary, without unknown fields
        """
        values = {name: getattr(self, name) for name in ROW_FIELDS}
        known = {n for n, value in values.items() if value is not None and not (np.ndim(value) and not len(value))}
        return {n: value for n, value in values.items() if n in known or _NULL_BESIDE.get(n) in known} | self.labels


def student_name(policy: str) -> str:
    """
    :param policy: name of a policy, such as "Net1Policy"
    :return: the name of a student of a run that is named after it, such as "net1"
    """
    return policy.removesuffix("Policy").lower()


def teachers_of(rows: Iterable[Row]) -> list[str]:
    """
    :param rows: rows of results
    :return: the hashes of the agents that count as 100% in them, as far as they are known, each once
    """
    return list(dict.fromkeys(row.teacher_sha256 for row in rows if row.teacher_sha256 is not None))


# Version of the JSON files with rows that evaluate and studies write; files of the first versions do not say it
FORMAT = 1
# Labels of a study's grid must not have these names.
ROW_FIELDS = tuple(entry.name for entry in fields(Row) if entry.name not in ("labels", "conditions", "settings"))


def parse_rows(text: str) -> list[Row]:
    """
    :param text: a JSON file of ``sb3-distill evaluate`` or of a study
    :return: its rows
    :raises ValueError: the text has no rows of results, or is of a later version
    """
    content = parse_json(text)
    if not isinstance(content, dict) or not isinstance(content.get("agents"), list):
        raise ValueError("The JSON has no rows of results: no list with the name agents.")
    problem = format_problem("The JSON", content.get("format", FORMAT), FORMAT)
    if problem is not None:
        raise ValueError(problem)
    rows = [Row.from_dict(row) for row in content["agents"]]
    try:
        cells = {row["agent"]: each["cell"] for each in content.get("manifests", ()) for row in each["rows"]}
        return [
            _with_cell(row, cells[row.agent]) if row.agent in cells else _with_protocol(row, content) for row in rows
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ReadError(f"The JSON does not say how its rows were made ({type(error).__name__}: {error})") from error


def _with_protocol(row: Row, content: Mapping[str, Any]) -> Row:
    """The row of a file of ``evaluate``, with what the file says of all its rows."""
    conditions = {
        **{name: content.get(name) for name in ("n_episodes", "epsilon", "stochastic")},
        "first_seed": content.get("seed"),
        "native": row.env in content.get("native", ()),
        "env_kwargs": content.get("env_kwargs", {}).get(row.env),
    }
    return replace(row, conditions=_without_defaults(conditions))


def _with_cell(row: Row, cell: Mapping[str, Any]) -> Row:
    """The row of a study, with the settings of its student in the cell."""
    evaluation = {} if row.is_of_run else {"n_episodes": 30, **cell.get("evaluation", {})}
    conditions = {**evaluation, "first_seed": evaluation.get("seed"), "env_kwargs": cell.get("env_kwargs")}
    conditions = {name: value for name, value in conditions.items() if name != "seed" and value != "last"}
    hyperparams = _own_hyperparams(row, cell.get("hyperparams", {}), cell.get("share_play", {}))
    settings = {"n_timesteps": cell.get("n_timesteps"), **hyperparams, "records": cell.get("records")}
    return replace(row, conditions=_without_defaults(conditions), settings=settings)


def _own_hyperparams(row: Row, hyperparams: Mapping[str, Any], share_play: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of the student of a run that the row is of: those of the first, and what it has instead."""
    own = {name: value for name, value in hyperparams.items() if name != "students"}
    students = hyperparams.get("students") or {}
    if not isinstance(students, Mapping):
        students = {student_name(policy): policy for policy in students}
    student = row.player
    for dimension, labels in share_play.items():
        # The first label is that of the first student.
        student = dict(zip(labels, [None, *students], strict=True))[row.labels[dimension]]
    if student not in students:
        return own
    entries = students[student] if isinstance(students[student], Mapping) else {"policy": students[student]}
    if "policy" in entries:
        # Those of the first student belong to its own policy.
        own.pop("policy_kwargs", None)
    return own | entries


def _without_defaults(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are not None, 0, False or empty, so that files that leave such ones out say the same."""
    return {name: value for name, value in facts.items() if value}
