"""What a recording says of itself, and the checks that its arrays are what it says."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sb3_distill.common.formats import format_problem
from sb3_distill.reading.arrays import check_dtype
from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import MAX_DATA_BYTES, MAX_DIMENSIONS, MAX_SPACE_ELEMENTS, ReadError, check_size
from sb3_distill.reading.schema import read_fields
from sb3_distill.reading.text import parse_json

FORMAT = 4
# Before, observations were no Dict, and what is a part now stood beside the other fields.
_FORMAT_OF_ONE_PART = 3
META, TERMINALS = "recording.json", "terminals.npz"
COLUMNS = ("actions", "rewards", "dones", "truncations")
# Prefix of the columns with the parts of the teacher's answers
ANSWERS = "answers_"
# Largest file that says what a recording is: it names every episode
_MAX_META_BYTES = 4 * MAX_DATA_BYTES


class RecordingError(ValueError):
    """A recording cannot be used, or cannot be made."""


@dataclass(frozen=True, kw_only=True)
class RecordingSettings:
    """
    The settings on which a teacher's play depends, besides the number of environments.

    :param algorithm: class of the students, or the nearest parent of it in this package
    :param teacher: the teacher's sha256
    :param env_id: the environment
    :param env_kwargs: its arguments, as text; recordings of earlier versions do not say them
    :param student_keys: the keys of a Dict observation that the students see, see ``ObservationView``
    :param teacher_keys: those that the teacher sees
    :param observation_space: the students' observations, as text
    :param teacher_eps: share of random actions
    """

    algorithm: str
    teacher: str
    env_id: str | None
    env_kwargs: dict[str, str] = field(default_factory=dict)
    student_keys: str | list[str] | None = None
    teacher_keys: str | list[str] | None = None
    observation_space: str
    teacher_eps: float


@dataclass(frozen=True)
class RecordedScore:
    """
    The teacher's score in the environment of the recording, and how it was measured.

    :param mean: mean return
    :param std: standard deviation of the returns
    :param n_episodes: number of episodes
    :param seed: seed of the starts and of the actions
    :param sampled: whether actions were drawn from the teacher's distribution, and not greedy
    :param epsilon: share of uniformly random actions
    """

    mean: float
    std: float
    n_episodes: int
    seed: int
    sampled: bool
    epsilon: float


class EpisodeEnd(NamedTuple):
    """The end of an episode, with return and length from its Monitor; None if there was no Monitor."""

    row: int
    env: int
    total_reward: float | None
    length: int | None


@dataclass(frozen=True)
class _End:
    """An ``EpisodeEnd`` as it stands in the file."""

    row: int
    env: int
    r: float | None
    l: int | None  # noqa: E741


@dataclass(frozen=True)
class RecordedPart:
    """
    The observations under one key, or all of them if they are no Dict.

    :param shape: shape of an observation
    :param dtype: its type
    :param images: whether observations are stored as planes
    """

    shape: tuple[int, ...]
    dtype: str
    images: bool


@dataclass(frozen=True, kw_only=True)
class RecordingMeta:
    """
    What a recording says of itself.

    :param format: version of the format
    :param settings: the settings on which it depends
    :param n_rows: steps of the vector environment
    :param n_envs: number of environments
    :param parts: the observations, by key; those that are no Dict under an empty one
    :param teacher_score: the teacher's score, if it was measured; in recordings of earlier versions, mean and standard
        deviation alone
    :param teacher_rule: in recordings of earlier versions
    :param episodes: the ends of its episodes
    """

    format: int
    settings: RecordingSettings
    n_rows: int
    n_envs: int
    parts: Mapping[str, RecordedPart]
    teacher_score: RecordedScore | tuple[float, ...] | None
    teacher_rule: str | None = None
    episodes: tuple[_End, ...]


def read_meta(folder: Path) -> RecordingMeta:
    """
    :param folder: folder of a recording
    :return: what it says of itself
    :raises RecordingError: it has another format
    :raises ValueError: something in it is missing or impossible
    """
    content = parse_json(read_file(folder / META, _MAX_META_BYTES))
    found = content.get("format") if isinstance(content, dict) else None
    problem = format_problem(folder, found, FORMAT)
    if problem is not None:
        raise RecordingError(problem)
    assert found is not None
    if found < _FORMAT_OF_ONE_PART:
        raise RecordingError(f"{folder} has format {found}, not {FORMAT}: record it anew.")
    if found == _FORMAT_OF_ONE_PART:
        own = [entry.name for entry in fields(RecordedPart) if entry.name in content]
        content["parts"] = {"": {name: content.pop(name) for name in own}}
    meta = read_fields(RecordingMeta, content, META)
    for part in meta.parts.values():
        check_size("the shape in it", len(part.shape), MAX_DIMENSIONS, "numbers")
        check_dtype("its observation", np.dtype(part.dtype))
        check_size("its observation", math.prod(part.shape), MAX_SPACE_ELEMENTS, "elements")
        if part.images and (len(part.shape) != 3 or part.dtype != "uint8"):
            raise ReadError(f"it has images of the shape {part.shape} and the type {part.dtype}")
    if not meta.parts or min((meta.n_rows, meta.n_envs, *(n for part in meta.parts.values() for n in part.shape))) < 1:
        raise ReadError("a shape or a number in it is impossible")
    if not all(0 <= end.row < meta.n_rows and 0 <= end.env < meta.n_envs for end in meta.episodes):
        raise ReadError("an episode ends outside of it")
    return meta


def part_suffixes(keys: Iterable[str]) -> dict[str, str]:
    """
    :param keys: the keys of the observations; an empty one if they are no Dict
    :return: what the names of the files of each part end with: keys can be any text
    """
    return {key: f"_{number}" if key else "" for number, key in enumerate(keys)}


def check_columns(meta: RecordingMeta, columns: Mapping[str, np.ndarray]) -> None:
    """
    :param meta: what the recording says of itself
    :param columns: actions, rewards, ends and the parts of the teacher's answers
    :raises ReadError: one of them is of another type or shape
    """
    kinds = {"actions": "iuf", "rewards": "f", "dones": "b", "truncations": "b"}
    for name, column in columns.items():
        fits = column.shape[:2] == (meta.n_rows, meta.n_envs) and column.dtype.kind in kinds.get(name, "f")
        if not fits or (name in COLUMNS[1:] and column.ndim != 2):
            raise ReadError(f"{name} has {column.dtype} of the shape {column.shape}")
    ends = {(end.row, end.env) for end in meta.episodes}
    if not set(zip(*(axis.tolist() for axis in np.nonzero(columns["dones"])), strict=True)) <= ends:
        raise ReadError("its episodes are not those that its steps end")


def check_observations(
    meta: RecordingMeta, part: RecordedPart, observations: np.ndarray, terminals: np.ndarray
) -> None:
    """
    :param meta: what the recording says of itself
    :param part: what it says of these observations
    :param observations: what is stored of them: of images the numbers of their planes
    :param terminals: the same of the last observations of episodes
    :raises ReadError: one of them is of another type or shape
    """
    own = part.shape[:1] if part.images else part.shape
    for name, array, first in (
        ("observations", observations, (meta.n_rows, meta.n_envs)),
        ("terminals", terminals, (len(meta.episodes),)),
    ):
        fits = array.dtype.kind == "i" if part.images else array.dtype == part.dtype
        if (array.size and (array.shape != (*first, *own) or not fits)) or len(array) != first[0]:
            raise ReadError(f"{name} has {array.dtype} of the shape {array.shape}, not of {(*first, *own)}")


def check_offsets(offsets: np.ndarray, size: int) -> None:
    """
    :param offsets: where the blocks of frames begin, and where the last one ends
    :param size: size of all of them
    :raises ReadError: they are no positions in order
    """
    if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0:
        raise ReadError("offsets.npy is no list of positions")
    if min(np.diff([*offsets.tolist(), size])) < 0:
        raise ReadError("offsets.npy has positions outside of the frames")
