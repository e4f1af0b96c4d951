"""A teacher's play on disk: recorded by the first student that it teaches, read by all others."""

import zlib
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from gymnasium import spaces

from sb3_distill.buffers.record import Obs
from sb3_distill.buffers.recording_meta import (
    ANSWERS,
    COLUMNS,
    META,
    TERMINALS,
    EpisodeEnd,
    RecordedPart,
    RecordedScore,
    RecordingError,
    RecordingMeta,
    RecordingSettings,
    check_columns,
    check_observations,
    check_offsets,
    part_suffixes,
    read_meta,
)
from sb3_distill.common.answers import Answers
from sb3_distill.reading.arrays import map_npy, read_npz
from sb3_distill.reading.limits import ReadError

# Number of planes that are compressed together: neighbouring planes are similar
BLOCK = 64
# Stands for a black plane, which is not written
BLACK = -1


class RecordedEpisode(NamedTuple):
    """
    Observations ``(n_steps + 1, ...)``, of a Dict by key, the actions and rewards between them, and how the episode
    ended.
    """

    observations: Obs
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool


def _whole(parts: dict[str, np.ndarray]) -> Obs:
    """The observations with these parts: those that are no Dict have one under an empty key."""
    return parts.get("", parts)


class _PartReader:
    """
    Reads the observations of one part of a recording.

    :param folder: folder of the recording
    :param suffix: what the names of its files end with
    :param meta: what the recording says of itself
    :param part: what it says of this part
    :param terminals: what is stored of the last observations of episodes
    :raises ValueError: the files are not what the recording says
    """

    def __init__(
        self, folder: Path, suffix: str, meta: RecordingMeta, part: RecordedPart, terminals: np.ndarray
    ) -> None:
        self.folder = folder
        self.shape, self.dtype, self.images = part.shape, np.dtype(part.dtype), part.images
        self._observations = map_npy(folder / f"observations{suffix}.npy")
        check_observations(meta, part, self._observations, terminals)
        ends = [(end.row, end.env) for end in meta.episodes]
        self._terminals = dict(zip(ends, terminals, strict=True))
        if self.images:
            self._frames_file = folder / f"frames{suffix}.zlib"
            self._offsets = map_npy(folder / f"offsets{suffix}.npy")
            # If all planes were black, none was stored.
            self._frames = np.zeros(0, np.uint8)
            if len(self._offsets) > 1:
                self._frames = np.memmap(self._frames_file, dtype=np.uint8, mode="r")
            check_offsets(self._offsets, len(self._frames))
            # Stacks need the planes of a few neighbouring blocks of each environment.
            self._block = lru_cache(maxsize=8)(self._read_block)

    @property
    def space(self) -> spaces.Box:
        """Space of one environment's observations; its bounds are those of its type."""
        low, high = -np.inf, np.inf
        if self.dtype.kind in "iu":
            low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        elif self.dtype.kind == "b":
            low, high = 0, 1
        return spaces.Box(low, high, self.shape, self.dtype.type)

    def observations(self, row: int) -> np.ndarray:
        """As ``Recording.observations``."""
        return self._restored(self._observations[row])

    def terminal(self, row: int, env: int) -> np.ndarray:
        """As ``Recording.terminal``."""
        return self._restored(self._terminals[row, env])

    def episode(self, rows: range, env: int) -> np.ndarray:
        """
        :param rows: all steps of an episode
        :param env: the environment in which it was played
        :return: its observations, with the last one
        """
        return np.stack([*(self.observations(row)[env] for row in rows), self.terminal(rows[-1], env)])

    def _read_block(self, index: int) -> np.ndarray:
        size = self.shape[1] * self.shape[2]
        try:
            if not 0 <= index < len(self._offsets) - 1:
                raise ReadError("there is no such block")
            unpacking = zlib.decompressobj()
            packed = self._frames[self._offsets[index] : self._offsets[index + 1]].tobytes()
            data = unpacking.decompress(packed, BLOCK * size)
            if not unpacking.eof or len(data) % size:
                raise ReadError("it has another size")
        except (ValueError, zlib.error) as error:
            raise RecordingError(
                f"{self._frames_file}: block {index} is damaged ({error}). Delete the recording to record anew."
            ) from error
        return np.frombuffer(data, dtype=np.uint8).reshape(-1, *self.shape[1:])

    def _restored(self, stored: np.ndarray) -> np.ndarray:
        """Observations from what is stored of them."""
        if not self.images:
            return np.array(stored)
        planes = np.zeros((*stored.shape, *self.shape[1:]), dtype=np.uint8)
        for position in zip(*np.nonzero(stored != BLACK), strict=True):
            number = int(stored[position])
            block = self._block(number // BLOCK)
            if number % BLOCK >= len(block):
                raise RecordingError(f"{self.folder} has no plane {number}. Delete it to record anew.")
            planes[position] = block[number % BLOCK]
        return planes


class Recording:
    """
    A finished recording. Large arrays are mapped from the disk and read when they are needed.

    :param folder: folder that ``RecordingWriter`` wrote
    :raises RecordingError: the folder holds no whole recording
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            meta = read_meta(self.folder)
            self.settings = meta.settings
            self.n_rows, self.n_envs = meta.n_rows, meta.n_envs
            # Earlier versions wrote mean and deviation alone, not how they were measured.
            self.teacher_score = meta.teacher_score if isinstance(meta.teacher_score, RecordedScore) else None
            self.episodes = [EpisodeEnd(end.row, end.env, end.r, end.l) for end in meta.episodes]
            names = [*COLUMNS, *(path.stem for path in sorted(self.folder.glob(f"{ANSWERS}*.npy")))]
            self.columns = {name: map_npy(self.folder / f"{name}.npy") for name in names}
            check_columns(meta, self.columns)
            if self.columns["actions"].ndim == 2 and self.answers(0).preferences.ndim != 2:
                raise ReadError("its answers are not one number for each action")
            terminals = read_npz(self.folder / TERMINALS)
            self.parts = {
                key: _PartReader(self.folder, suffix, meta, meta.parts[key], terminals[f"observations{suffix}"])
                for key, suffix in part_suffixes(meta.parts).items()
            }
        except RecordingError:
            raise
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            advice = "Delete it to record anew."
            if missing == META:
                # It is something else, which nobody should delete.
                advice = "Name the folder of one, or one that does not exist yet."
            raise RecordingError(f"{folder} holds no whole recording: it has no {missing}. {advice}") from error
        except (OSError, EOFError, KeyError, ValueError, TypeError, BadZipFile, zlib.error) as error:
            raise RecordingError(f"{folder} holds no whole recording: {error}. Delete it to record anew.") from error

    @property
    def observation_space(self) -> spaces.Box | spaces.Dict:
        """Space of one environment's observations; its bounds are those of its type."""
        parts: dict[str, Any] = {key: part.space for key, part in self.parts.items()}
        return parts[""] if "" in parts else spaces.Dict(parts)

    @property
    def action_space(self) -> spaces.Space:
        """Space of one environment's actions: as many as the teacher has answers, or continuous without bounds."""
        actions = self.columns["actions"]
        if actions.ndim == 2:
            return spaces.Discrete(self.answers(0).preferences.shape[1])
        return spaces.Box(-np.inf, np.inf, actions.shape[2:], actions.dtype.type)

    def answers(self, row: int) -> Answers:
        """
        :param row: step of the vector environment
        :return: the teacher's answers to the observations before it, ``(n_envs, ...)``
        """
        stored = {name.removeprefix(ANSWERS): self.columns[name] for name in self.columns if name.startswith(ANSWERS)}
        return Answers.of_arrays({name: np.array(column[row]) for name, column in stored.items()})

    def observations(self, row: int) -> Obs:
        """
        :param row: step of the vector environment
        :return: the observations before it, ``(n_envs, ...)``, exactly as they were
        """
        return _whole({key: part.observations(row) for key, part in self.parts.items()})

    def terminal(self, row: int, env: int) -> Obs:
        """
        :param row: step of the vector environment with which an episode ended
        :param env: the environment in which it ended
        :return: the last observation of the episode, exactly as it was
        """
        return _whole({key: part.terminal(row, env) for key, part in self.parts.items()})

    def finished_episodes(self) -> Iterator[RecordedEpisode]:
        """
        :return: the episodes that came to their end, environment by environment
        """
        for env in range(self.n_envs):
            start = 0
            for row in (end.row for end in self.episodes if end.env == env):
                rows = range(start, row + 1)
                truncated = bool(self.columns["truncations"][row, env])
                yield RecordedEpisode(
                    _whole({key: part.episode(rows, env) for key, part in self.parts.items()}),
                    np.array(self.columns["actions"][start : row + 1, env]),
                    np.array(self.columns["rewards"][start : row + 1, env]),
                    not truncated,
                    truncated,
                )
                start = row + 1

    def check(self, settings: RecordingSettings, n_envs: int, total_timesteps: int) -> None:
        """
        :param settings: the settings of the run that wants to read it
        :param n_envs: its number of environments
        :param total_timesteps: its length
        :raises RecordingError: the run would have played otherwise, or longer
        """
        wanted = {**asdict(settings), "n_envs": n_envs}
        present = {**asdict(self.settings), "n_envs": self.n_envs}
        for name, value in wanted.items():
            if present[name] != value:
                raise RecordingError(
                    f"The recording {self.folder} was made with {name}={present[name]!r}, not {value!r}: name "
                    "another folder, or delete it to record anew."
                )
        if self.n_rows * self.n_envs < total_timesteps:
            raise RecordingError(
                f"The recording {self.folder} has {self.n_rows * self.n_envs:,} steps, fewer than {total_timesteps:,}: "
                "name another folder, or delete it to record anew."
            )
