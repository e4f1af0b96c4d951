"""Writes a teacher's play to the disk while it plays."""

import glob
import json
import math
import secrets
import shutil
import tempfile
import zlib
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_distill.buffers.frames import planes_of
from sb3_distill.buffers.record import StepRecord
from sb3_distill.buffers.recording_meta import (
    ANSWERS,
    COLUMNS,
    FORMAT,
    META,
    TERMINALS,
    EpisodeEnd,
    RecordedPart,
    RecordedScore,
    RecordingError,
    RecordingSettings,
    part_suffixes,
)
from sb3_distill.buffers.recordings import BLACK, BLOCK, Recording
from sb3_distill.common.answers import Answers
from sb3_distill.common.files import dead_partials, flush_all, naming_errors, partial_path
from sb3_distill.common.utils import setting

# In an unfinished recording: the mark by which the run that goes on with it knows it
_TOKEN = "token"
# What a step of the vector environment has in memory beside its observations: so many arrays, each with so many bytes
# beside its numbers
_N_ARRAYS, _ARRAY = 6, 120
# And the lock that its writer holds
_LOCK = ".lock"


class PartWriter:
    """
    Writes the observations of one part of a recording.

    :param folder: folder in which the recording is written
    :param suffix: what the names of its files end with
    :param space: space of one environment's observations
    :param n_envs: number of parallel environments
    :param goes_on: whether the file with the frames is there already
    """

    def __init__(self, folder: Path, suffix: str, space: spaces.Space, n_envs: int, goes_on: bool) -> None:
        assert space.shape is not None and space.dtype is not None
        self.folder, self.suffix = folder, suffix
        self.shape, self.dtype = space.shape, space.dtype
        self.images = is_image_space(space, check_channels=False)
        self.observations: list[np.ndarray] = []
        self.terminals: list[np.ndarray] = []
        if self.images:
            # By environment: the planes of its latest image, with their numbers in the file
            self.latest: list[dict[bytes, int]] = [{} for _ in range(n_envs)]
            self._black = bytes(self.shape[1] * self.shape[2])
            self.n_planes = 0
            self.pending: list[bytes] = []
            self.offsets = [0]
            self.file = (folder / f"frames{suffix}.zlib").open("r+b" if goes_on else "wb")

    @property
    def described(self) -> RecordedPart:
        """What the recording says of it."""
        return RecordedPart(self.shape, str(self.dtype), self.images)

    @property
    def step_bytes(self) -> int:
        """How many bytes one step takes, without its frames."""
        return 4 * self.shape[0] if self.images else math.prod(self.shape) * self.dtype.itemsize

    def add(self, obs: np.ndarray) -> None:
        """
        :param obs: the observations before a step ``(n_envs, ...)``
        """
        self.observations.append(np.stack([self._stored(env, own) for env, own in enumerate(obs)]))

    def end(self, env: int, obs: np.ndarray) -> None:
        """
        :param env: the environment in which an episode ended
        :param obs: its last observation
        """
        self.terminals.append(self._stored(env, obs))

    def _stored(self, env: int, obs: np.ndarray) -> np.ndarray:
        """An observation as it is stored: of an image, the numbers of its planes, of which new ones are written."""
        if not self.images:
            return np.array(obs, dtype=self.dtype)
        planes = planes_of(obs)
        known = {self._black: BLACK, **self.latest[env]}
        for plane in planes:
            if plane not in known:
                known[plane] = self.n_planes
                self._write_plane(plane)
        self.latest[env] = {plane: known[plane] for plane in planes}
        return np.array([known[plane] for plane in planes], dtype=np.int32)

    def _write_plane(self, plane: bytes) -> None:
        self.n_planes += 1
        self.pending.append(plane)
        if len(self.pending) == BLOCK:
            self._write_block()

    def _write_block(self) -> None:
        if self.pending:
            data = zlib.compress(b"".join(self.pending), 1)
            with naming_errors(self.folder):
                self.file.write(data)
            self.offsets.append(self.offsets[-1] + len(data))
            self.pending = []

    def close(self) -> None:
        """Close the file with the frames."""
        if self.images:
            self.file.close()

    def write_rest(self) -> None:
        """Write what is not on the disk yet, but for the last observations of episodes."""
        np.save(self.folder / f"observations{self.suffix}.npy", np.stack(self.observations))
        if self.images:
            self._write_block()
            self.close()
            np.save(self.folder / f"offsets{self.suffix}.npy", np.array(self.offsets))


class RecordingWriter:
    """
    Writes a recording: planes of images that are not in the image before, compressed in blocks as they come; all else
    at the end. The folder appears under its name when it is whole.

    :param folder: folder of the recording
    :param settings: the settings on which it depends
    :param observation_space: Observation space
    :param n_envs: number of parallel environments
    :param token: that of an unfinished recording, to go on with the frames that it has written
    :raises RecordingError: there is no unfinished recording with this token
    """

    def __init__(
        self,
        folder: Path,
        settings: RecordingSettings,
        observation_space: spaces.Space,
        n_envs: int,
        token: str | None = None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.n_envs = n_envs
        self.partial = partial_path(folder)
        self.token = secrets.token_hex(8) if token is None else token
        if token is not None:
            left, self._lock = _take_unfinished(folder, token)
            left.rename(self.partial)
        else:
            remove_dead_recordings(folder)
            if self.partial.exists():
                raise RecordingError(f"The recording {folder} is being written already, by a run in this process.")
        with naming_errors(folder):
            self.partial.mkdir(parents=True, exist_ok=True)
            if token is None:
                self._lock = FileLock(self.partial / _LOCK)
                self._lock.acquire(timeout=0)
            (self.partial / _TOKEN).write_text(self.token)
        self.columns: dict[str, list[np.ndarray]] = {}
        self.episodes: list[EpisodeEnd] = []
        own = observation_space if isinstance(observation_space, spaces.Dict) else {"": observation_space}
        self.parts = {
            key: PartWriter(self.partial, suffix, own[key], n_envs, token is not None)
            for key, suffix in part_suffixes(own).items()
        }

    def add(self, record: StepRecord) -> None:
        """
        Record one step of the vector environment.

        :param record: the step
        """
        infos = record.infos
        assert isinstance(record.answers, Answers)
        row = self._n_rows
        truncations = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        values = (record.actions, record.rewards, record.dones, truncations)
        answers = {f"{ANSWERS}{name}": array for name, array in record.answers.arrays().items()}
        for name, value in {**dict(zip(COLUMNS, values, strict=True)), **answers}.items():
            self.columns.setdefault(name, []).append(np.array(value))
        for key, part in self.parts.items():
            part.add(record.observations[key] if key else record.observations)  # type: ignore[arg-type]
        for env in np.flatnonzero(record.dones).tolist():
            last = infos[env]["terminal_observation"]
            for key, part in self.parts.items():
                part.end(env, last[key] if key else last)
            episode = infos[env].get("episode")
            self.episodes.append(
                EpisodeEnd(
                    row,
                    env,
                    None if episode is None else float(episode["r"]),
                    None if episode is None else int(episode["l"]),
                )
            )

    def step_bytes(self, action_space: spaces.Space) -> int:
        """
        :param action_space: Action space
        :return: about how many bytes one step takes in the files of the recording, without its frames
        """
        n_answers = 2 * math.prod(action_space.shape or ())
        if isinstance(action_space, spaces.Discrete):
            n_answers = int(action_space.n)
        # The action, the reward and two flags come to 14 bytes.
        return 4 * (n_answers + 1) + 14 + sum(part.step_bytes for part in self.parts.values())

    def memory_bytes(self, action_space: spaces.Space) -> float:
        """
        :param action_space: Action space
        :return: about how many bytes of memory one step takes until the recording is closed
        """
        return self.step_bytes(action_space) + (_N_ARRAYS + len(self.parts)) * _ARRAY / self.n_envs

    @property
    def n_steps(self) -> int:
        """Number of recorded steps, of all environments together."""
        return self._n_rows * self.n_envs

    @property
    def _n_rows(self) -> int:
        return len(self.columns.get("actions", []))

    @property
    def images(self) -> bool:
        """Whether frames are written."""
        return any(part.images for part in self.parts.values())

    def abort(self, keep: bool = False) -> None:
        """
        Leave a recording unfinished.

        :param keep: keep its frames, for a run that goes on with it
        """
        for part in self.parts.values():
            # A full disk has been told already.
            with suppress(OSError):
                part.close()
        if not keep:
            shutil.rmtree(self.partial, ignore_errors=True)
        self._lock.release()

    def close(self, teacher_score: RecordedScore | None = None) -> None:
        """
        Finish the recording.

        :param teacher_score: the teacher's score in the training environment, if it was measured
        :raises RecordingError: the folder's name is taken by something else; the message says where the recording is
        :raises OSError: the recording cannot be written
        """
        with naming_errors(self.folder):
            self._write_rest(teacher_score)
        flush_all(self.partial, self.folder)
        (self.partial / _LOCK).unlink(missing_ok=True)
        self._lock.release()
        try:
            self.partial.rename(self.folder)
            # Until then, a run that is killed goes on with it.
            (self.folder / _TOKEN).unlink()
        except OSError as error:
            there = _recording_in(self.folder)
            if there is not None and (there.settings, there.n_envs) == (self.settings, self.n_envs):
                # Another run has finished the same recording first.
                shutil.rmtree(self.partial)
                return
            # Under a name that no other run writes to or cleans up
            kept = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.", dir=self.folder.parent)) / self.folder.name
            self.partial.rename(kept)
            found = "no recording" if there is None else "a recording with other settings, of another run"
            raise RecordingError(
                f"The recording cannot be written to {self.folder} ({error.strerror}): what is there is {found}. "
                f"The recording is finished and was left in {kept}: move it, or pass "
                f"{setting('recording', repr(str(kept)))}."
            ) from error

    def _write_rest(self, teacher_score: RecordedScore | None) -> None:
        for name, rows in self.columns.items():
            np.save(self.partial / f"{name}.npy", np.stack(rows))
        for part in self.parts.values():
            part.write_rest()
        terminals = {f"observations{part.suffix}": np.array(part.terminals) for part in self.parts.values()}
        np.savez_compressed(self.partial / TERMINALS, **terminals)  # type: ignore[arg-type]
        meta = {
            "format": FORMAT,
            "settings": asdict(self.settings),
            "n_rows": self._n_rows,
            "n_envs": self.n_envs,
            "parts": {key: asdict(part.described) for key, part in self.parts.items()},
            "teacher_score": None if teacher_score is None else asdict(teacher_score),
            "episodes": [dict(zip(("row", "env", "r", "l"), end, strict=True)) for end in self.episodes],
        }
        (self.partial / META).write_text(json.dumps(meta))


def _recording_in(folder: Path) -> Recording | None:
    with suppress(RecordingError):
        return Recording(folder)
    return None


def remove_dead_recordings(folder: Path) -> None:
    """
    Remove what processes of this machine had recorded when they were killed.

    :param folder: folder of the recording
    """
    for left in (partial_path(folder), *dead_partials(folder.parent, folder.name)):
        # A process in a container may have a number that is free here.
        with suppress(OSError, Timeout), FileLock(left / _LOCK).acquire(timeout=0):
            shutil.rmtree(left, ignore_errors=True)


def _take_unfinished(folder: Path, token: str) -> tuple[Path, FileLock]:
    """What a stopped run has written of a recording, locked. Its process may have had any number, on any machine."""
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        with suppress(OSError):
            if (path / _TOKEN).read_text() != token:
                continue
            lock = FileLock(path / _LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise RecordingError(
                    f"The unfinished recording {folder} is still being written by the run that began it: wait until "
                    "that run has ended."
                ) from error
            return path, lock
    raise RecordingError(
        f"The frames of the unfinished recording {folder} are gone, so the run cannot go on with it: delete the run's "
        "folder, and start anew."
    )
