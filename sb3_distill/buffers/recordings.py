"""A teacher's play on disk: recorded by the first student that it teaches, read by all others."""

import json
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_distill.buffers.frames import planes_of
from sb3_distill.buffers.record import StepRecord
from sb3_distill.common.answers import Answers
from sb3_distill.common.files import dead_partials, partial_path

FORMAT = 3
_META, _FRAMES, _TERMINALS, _TOKEN = "recording.json", "frames.zlib", "terminals.npz", "token"
_COLUMNS = ("actions", "rewards", "dones", "truncations")
# Prefix of the columns with the parts of the teacher's answers
_ANSWERS = "answers_"
# Names of the fields of ``EpisodeEnd`` in the file
_END = ("row", "env", "r", "l")
# Number of planes that are compressed together: neighbouring planes are similar
_BLOCK = 64
# Stands for a black plane, which is not written
_BLACK = -1


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
    :param observation_space: the students' observations, as text
    :param teacher_eps: share of random actions
    """

    algorithm: str
    teacher: str
    env_id: str | None
    env_kwargs: dict[str, str] = field(default_factory=dict)
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


class RecordedEpisode(NamedTuple):
    """Observations ``(n_steps + 1, ...)``, the actions and rewards between them, and how the episode ended."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool


class RecordingWriter:
    """
    Writes a recording: planes of images that are not in the image before, compressed in blocks as they come; all else
    at the end. The folder appears under its name when it is whole.

    :param folder: folder of the recording
    :param settings: the settings on which it depends
    :param observation_space: Observation space
    :param n_envs: number of parallel environments
    :param token: that of an unfinished recording, to go on with the frames that it has written
    :raises RecordingError: the observations are a Dict, or there is no unfinished recording with this token
    """

    def __init__(
        self,
        folder: Path,
        settings: RecordingSettings,
        observation_space: spaces.Space,
        n_envs: int,
        token: str | None = None,
    ) -> None:
        if isinstance(observation_space, spaces.Dict):
            raise RecordingError("Dict observations cannot be recorded: learn without recording=.")
        assert observation_space.shape is not None and observation_space.dtype is not None
        self.folder = folder
        self.settings = settings
        self.n_envs = n_envs
        self.shape = observation_space.shape
        self.dtype = observation_space.dtype
        self.partial = partial_path(folder)
        self.token = secrets.token_hex(8) if token is None else token
        if token is not None:
            _find_unfinished(folder, token).rename(self.partial)
        for left in [self.partial, *dead_partials(folder.parent, folder.name)] if token is None else []:
            shutil.rmtree(left, ignore_errors=True)
        self.partial.mkdir(parents=True, exist_ok=True)
        (self.partial / _TOKEN).write_text(self.token)
        self.columns: dict[str, list[np.ndarray]] = {}
        self.observations: list[np.ndarray] = []
        self.terminals: list[np.ndarray] = []
        self.episodes: list[EpisodeEnd] = []
        self.images = is_image_space(observation_space, check_channels=False)
        if self.images:
            # By environment: the planes of its latest image, with their numbers in the file
            self._latest: list[dict[bytes, int]] = [{} for _ in range(n_envs)]
            self._black = bytes(self.shape[1] * self.shape[2])
            self._n_planes = 0
            self._pending: list[bytes] = []
            self._offsets = [0]
            self._file = (self.partial / _FRAMES).open("wb" if token is None else "r+b")

    def add(self, record: StepRecord) -> None:
        """
        Record one step of the vector environment.

        :param record: the step, whose observations are no Dict
        """
        obs, infos = record.observations, record.infos
        assert isinstance(obs, np.ndarray) and isinstance(record.answers, Answers)
        row = len(self.observations)
        truncations = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        values = (record.actions, record.rewards, record.dones, truncations)
        answers = {f"{_ANSWERS}{name}": array for name, array in record.answers.arrays().items()}
        for name, value in {**dict(zip(_COLUMNS, values, strict=True)), **answers}.items():
            self.columns.setdefault(name, []).append(np.array(value))
        self.observations.append(np.stack([self._stored(env, own) for env, own in enumerate(obs)]))
        for env in np.flatnonzero(record.dones).tolist():
            self.terminals.append(self._stored(env, infos[env]["terminal_observation"]))
            episode = infos[env].get("episode")
            self.episodes.append(
                EpisodeEnd(
                    row,
                    env,
                    None if episode is None else float(episode["r"]),
                    None if episode is None else int(episode["l"]),
                )
            )

    @property
    def n_steps(self) -> int:
        """Number of recorded steps, of all environments together."""
        return len(self.observations) * self.n_envs

    def _stored(self, env: int, obs: np.ndarray) -> np.ndarray:
        """An observation as it is stored: of an image, the numbers of its planes, of which new ones are written."""
        if not self.images:
            return np.array(obs, dtype=self.dtype)
        planes = planes_of(obs)
        known = {self._black: _BLACK, **self._latest[env]}
        for plane in planes:
            if plane not in known:
                known[plane] = self._n_planes
                self._write_plane(plane)
        self._latest[env] = {plane: known[plane] for plane in planes}
        return np.array([known[plane] for plane in planes], dtype=np.int32)

    def _write_plane(self, plane: bytes) -> None:
        self._n_planes += 1
        self._pending.append(plane)
        if len(self._pending) == _BLOCK:
            self._write_block()

    def _write_block(self) -> None:
        if self._pending:
            data = zlib.compress(b"".join(self._pending), 1)
            self._file.write(data)
            self._offsets.append(self._offsets[-1] + len(data))
            self._pending = []

    def abort(self, keep: bool = False) -> None:
        """
        Leave a recording unfinished.

        :param keep: keep its frames, for a run that goes on with it
        """
        if self.images:
            self._file.close()
        if not keep:
            shutil.rmtree(self.partial, ignore_errors=True)

    def close(self, teacher_score: RecordedScore | None = None) -> None:
        """
        Finish the recording.

        :param teacher_score: the teacher's score in the training environment, if it was measured
        :raises RecordingError: the folder's name is taken by something else; the message says where the recording is
        """
        for name, rows in self.columns.items():
            np.save(self.partial / f"{name}.npy", np.stack(rows))
        np.save(self.partial / "observations.npy", np.stack(self.observations))
        if self.images:
            self._write_block()
            self._file.close()
            np.save(self.partial / "offsets.npy", np.array(self._offsets))
        np.savez_compressed(self.partial / _TERMINALS, observations=np.array(self.terminals))
        meta = {
            "format": FORMAT,
            "settings": asdict(self.settings),
            "n_rows": len(self.observations),
            "n_envs": self.n_envs,
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "images": self.images,
            "teacher_score": None if teacher_score is None else asdict(teacher_score),
            "episodes": [dict(zip(_END, end, strict=True)) for end in self.episodes],
        }
        (self.partial / _TOKEN).unlink()
        (self.partial / _META).write_text(json.dumps(meta))
        try:
            self.partial.rename(self.folder)
        except OSError as error:
            if (self.folder / _META).is_file():
                # Another run has finished the same recording first.
                shutil.rmtree(self.partial)
                return
            # Under a name that no other run writes to or cleans up
            kept = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.", dir=self.folder.parent)) / self.folder.name
            self.partial.rename(kept)
            raise RecordingError(
                f"The recording cannot be written to {self.folder} ({error.strerror}): what is there is no recording. "
                f"The recording is finished and was left in {kept}: move it, or pass recording={str(kept)!r}."
            ) from error


def _find_unfinished(folder: Path, token: str) -> Path:
    """What a stopped run has written of a recording."""
    for path in folder.parent.glob(f".{folder.name}.*.partial"):
        with suppress(OSError):
            if (path / _TOKEN).read_text() == token:
                return path
    raise RecordingError(
        f"The frames of the unfinished recording {folder} are gone, so the run cannot go on with it: delete the run's "
        "folder, and start anew."
    )


class Recording:
    """
    A finished recording. Large arrays are mapped from the disk and read when they are needed.

    :param folder: folder that ``RecordingWriter`` wrote
    :raises RecordingError: the folder holds no whole recording
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            meta = json.loads((self.folder / _META).read_text())
            if meta["format"] != FORMAT:
                raise RecordingError(f"{folder} has format {meta['format']}, not {FORMAT}: record it anew.")
            self.settings = RecordingSettings(**meta["settings"])
            self.n_rows, self.n_envs = int(meta["n_rows"]), int(meta["n_envs"])
            self.shape = tuple(meta["shape"])
            self.dtype = np.dtype(meta["dtype"])
            self.images = bool(meta["images"])
            score = meta["teacher_score"]
            # Earlier versions wrote mean and deviation alone, not how they were measured.
            self.teacher_score = RecordedScore(**score) if isinstance(score, dict) else None
            self.episodes = [EpisodeEnd(*(end[name] for name in _END)) for end in meta["episodes"]]
            names = [*_COLUMNS, *(path.stem for path in sorted(self.folder.glob(f"{_ANSWERS}*.npy")))]
            self.columns = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in names}
            self._observations = np.load(self.folder / "observations.npy", mmap_mode="r")
            with np.load(self.folder / _TERMINALS, allow_pickle=False) as data:
                ends = [(end.row, end.env) for end in self.episodes]
                self._terminals = dict(zip(ends, data["observations"], strict=True))
            if self.images:
                self._offsets = np.load(self.folder / "offsets.npy")
                # If all planes were black, none was stored.
                self._frames = np.zeros(0, np.uint8)
                if len(self._offsets) > 1:
                    self._frames = np.memmap(self.folder / _FRAMES, dtype=np.uint8, mode="r")
                # Stacks need the planes of a few neighbouring blocks of each environment.
                self._block = lru_cache(maxsize=8)(self._read_block)
        except RecordingError:
            raise
        except (OSError, EOFError, KeyError, ValueError, TypeError) as error:
            raise RecordingError(f"{folder} holds no whole recording: {error}. Delete it to record anew.") from error

    @property
    def observation_space(self) -> spaces.Box:
        """Space of one environment's observations; its bounds are those of its type."""
        low, high = -np.inf, np.inf
        if self.dtype.kind in "iu":
            low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        elif self.dtype.kind == "b":
            low, high = 0, 1
        return spaces.Box(low, high, self.shape, self.dtype.type)

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
        stored = {name.removeprefix(_ANSWERS): self.columns[name] for name in self.columns if name.startswith(_ANSWERS)}
        return Answers.of_arrays({name: np.array(column[row]) for name, column in stored.items()})

    def _read_block(self, index: int) -> np.ndarray:
        data = zlib.decompress(self._frames[self._offsets[index] : self._offsets[index + 1]].tobytes())
        return np.frombuffer(data, dtype=np.uint8).reshape(-1, *self.shape[1:])

    def _restored(self, stored: np.ndarray) -> np.ndarray:
        """Observations from what is stored of them."""
        if not self.images:
            return np.array(stored)
        planes = np.zeros((*stored.shape, *self.shape[1:]), dtype=np.uint8)
        for position in zip(*np.nonzero(stored != _BLACK), strict=True):
            number = int(stored[position])
            planes[position] = self._block(number // _BLOCK)[number % _BLOCK]
        return planes

    def observations(self, row: int) -> np.ndarray:
        """
        :param row: step of the vector environment
        :return: the observations before it, ``(n_envs, ...)``, exactly as they were
        """
        return self._restored(self._observations[row])

    def terminal(self, row: int, env: int) -> np.ndarray:
        """
        :param row: step of the vector environment with which an episode ended
        :param env: the environment in which it ended
        :return: the last observation of the episode, exactly as it was
        """
        return self._restored(self._terminals[row, env])

    def finished_episodes(self) -> Iterator[RecordedEpisode]:
        """
        :return: the episodes that came to their end, environment by environment
        """
        for env in range(self.n_envs):
            start = 0
            for row in (end.row for end in self.episodes if end.env == env):
                rows = range(start, row + 1)
                observations = [self.observations(index)[env] for index in rows]
                truncated = bool(self.columns["truncations"][row, env])
                yield RecordedEpisode(
                    np.stack([*observations, self.terminal(row, env)]),
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
