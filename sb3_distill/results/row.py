"""One line of results: what ``sb3-distill evaluate`` and studies write, and what tables and figures show."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

# Comparisons with a teacher, each with the field that it stands beside: where that field is known and the comparison
# is not, the file says null.
_BESIDE = {
    "percent_of_teacher_bytes": "n_macs",
    "teacher_mean": "mean",
    "percent_of_teacher": "env",
    "max_percent": "player",
}


@dataclass(frozen=True)
class Row:
    """
    How one agent did in one environment. What is None or empty is not known of this kind of run.

    :param env: the environment
    :param agent: who played
    :param algo: its algorithm
    :param n_parameters: its parameters
    :param n_bytes: bytes of what acts
    :param percent_of_teacher_bytes: the same in per cent of the teacher's
    :param n_macs: multiply-accumulate operations of one decision
    :param player: name of a student that learned beside its teacher
    :param task: the task of a multi-task student, or ``GEOMETRIC_MEAN`` for all of them
    :param mean: mean return
    :param std: standard deviation of the returns
    :param median: their median
    :param iqm: their interquartile mean
    :param mean_interval: 95% interval of the mean
    :param iqm_interval: 95% interval of the interquartile mean
    :param teacher_mean: the teacher's mean return
    :param percent_of_teacher: the mean return in per cent of the teacher's; NaN where the teacher gives no measure
    :param max_percent: the highest evaluation in per cent of the teacher's highest
    :param percent_interval: 95% interval of ``percent_of_teacher``, where it does not follow from that of the mean
    :param returns: return of every episode
    :param lengths: length of every episode
    :param starts_sha256: of the start states
    :param seed: of the run; where it is a dimension of a study's grid, its label there
    :param labels: where in the grid of a study the run lies, beside the fields above
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
    teacher_mean: float | None = None
    percent_of_teacher: float | None = None
    max_percent: float | None = None
    percent_interval: Sequence[float] = ()
    returns: Sequence[float] = ()
    lengths: Sequence[int] = ()
    starts_sha256: str | None = None
    seed: int | str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Row":
        """
        :param content: what ``to_dict`` gave, perhaps read from a file
        :return: the row; names that are no fields are labels
        :raises TypeError: a field without which there is no row is missing
        """
        own = {name: value for name, value in content.items() if name in ROW_FIELDS}
        return cls(**own, labels={name: value for name, value in content.items() if name not in ROW_FIELDS})

    def to_dict(self) -> dict[str, Any]:
        """
        :return: fields and labels side by side, without what is not known
        """
        values = {name: getattr(self, name) for name in ROW_FIELDS}
        known = {name for name, value in values.items() if value not in (None, ())}
        return {n: value for n, value in values.items() if n in known or _BESIDE.get(n) in known} | self.labels


# Names that labels cannot have
ROW_FIELDS = tuple(entry.name for entry in fields(Row) if entry.name != "labels")


def parse_rows(text: str) -> list[Row]:
    """
    :param text: a JSON file of ``sb3-distill evaluate`` or of a study
    :return: its rows
    :raises ValueError: it is none
    """
    try:
        return [Row.from_dict(row) for row in json.loads(text)["agents"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"These are no results: {error}") from error
