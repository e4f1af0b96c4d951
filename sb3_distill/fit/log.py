"""Recorded observations: files of a robot's log, Minari datasets, and recordings of this library."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_distill.buffers.recordings import Recording
from sb3_distill.reading.arrays import read_npz

OBSERVATIONS, STARTS = "observations", "episode_starts"
# What says with which row an episode ends, as Gymnasium, SB3, D4RL and Minari call it
ENDS = ("dones", "done", "terminations", "terminated", "truncations", "truncated", "terminals", "timeouts", "lasts")
_MINARI_ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")


class LogError(ValueError):
    """A log cannot be read, or does not fit the teacher."""


class KeyedEpisode:
    """
    Dict observations of an episode. An index is a step, a slice is a part of the episode.

    :param parts: by key, the observations ``(n_steps, ...)``
    :raises LogError: they have different numbers of steps
    """

    def __init__(self, parts: Mapping[str, np.ndarray]) -> None:
        lengths = {key: len(np.atleast_1d(part)) for key, part in parts.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{length} of {key}" for key, length in lengths.items())
            raise LogError(f"its {OBSERVATIONS} have different numbers of steps: {found}")
        self.parts = parts

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, index: Any) -> Any:
        parts = {key: part[index] for key, part in self.parts.items()}
        return KeyedEpisode(parts) if isinstance(index, slice) else parts


Episode = np.ndarray | KeyedEpisode


def check_there(source: str | Path) -> None:
    """
    :param source: see ``read_log``
    :raises LogError: it is no file or folder, and cannot be the id of a Minari dataset
    """
    path = Path(source)
    if not (path.is_file() or path.is_dir()) and not (isinstance(source, str) and _MINARI_ID.fullmatch(source)):
        raise LogError(f"The log {source} cannot be used: there is no such file, folder or Minari dataset.")


def check_share(share: float) -> None:
    """
    :param share: see ``hold_out``
    :raises LogError: it is no share of which something is left on both sides
    """
    if not 0.0 < share < 1.0:
        raise LogError(
            f"held_out (--held-out) must be above 0 and below 1, not {share}: the student learns from all other "
            "episodes, and is compared with its teacher on these. At least one is held out, so take a small share."
        )


def read_log(source: str | Path, space: spaces.Space) -> list[Episode]:
    """
    Read recorded observations. Nothing is unpickled.

    :param source: an ``.npz`` with ``observations`` ``(n_steps, ...)`` (of Dict ones, ``observations/KEY`` for each)
        and, if it holds several episodes, ``episode_starts`` or any of ``ENDS``, each ``(n_steps,)``; the folder of a
        recording; or the id of a Minari dataset on this machine
    :param space: the teacher's observations
    :return: the observations of each episode, in the order of the log
    :raises LogError: the log cannot be read, or the teacher has other observations
    """
    parts = list(space.values()) if isinstance(space, spaces.Dict) else [space]
    if not all(isinstance(part, spaces.Box) for part in parts):
        raise LogError(f"The teacher observes {space}: a log holds arrays of numbers, so name another teacher.")
    check_there(source)
    path = Path(source)
    episodes: list[Episode]
    try:
        if path.is_dir():
            episodes = [_acted_on(episode.observations) for episode in Recording(path).finished_episodes()]
        elif path.is_file():
            if not zipfile.is_zipfile(path):
                raise LogError(
                    "it is no .npz, which holds arrays by name, or a damaged one: write one with "
                    f"numpy.savez('log.npz', {OBSERVATIONS}=..., dones=...)"
                )
            episodes = _split(read_npz(path), space)
        else:
            episodes = _read_minari(str(source))
        episodes = [_checked(episode, space) for episode in episodes if len(episode) > 0]
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise LogError(f"The log {source} cannot be used: {str(error).rstrip('.')}.") from error
    if not episodes:
        raise LogError(f"The log {source} holds no episode.")
    return episodes


def _split(arrays: dict[str, np.ndarray], space: spaces.Space) -> list[Episode]:
    """The episodes of an npz."""
    keys = list(space) if isinstance(space, spaces.Dict) else [""]
    names = {key: f"{OBSERVATIONS}/{key}" if key else OBSERVATIONS for key in keys}
    for name in names.values():
        if name not in arrays:
            raise LogError(f"it has the arrays {', '.join(arrays) or '(none)'}, but no {name} (n_steps, ...)")
        if arrays[name].ndim == 0:
            raise LogError(f"its {name} are a single number, not (n_steps, ...)")
    parts = {key: arrays[name] for key, name in names.items()}
    whole: Episode = KeyedEpisode(parts) if isinstance(space, spaces.Dict) else parts[""]
    n_steps = len(whole)
    is_start = np.zeros(n_steps, dtype=bool)
    for name in (STARTS, *ENDS):
        if name not in arrays:
            continue
        marks = arrays[name]
        if marks.shape != (n_steps,) or marks.dtype.kind not in "biuf":
            raise LogError(f"its {name} must be numbers of the shape ({n_steps},), not {marks.dtype} {marks.shape}")
        if not np.isfinite(marks).all():
            raise LogError(f"its {name} hold NaN or infinite numbers")
        if name == STARTS:
            is_start |= marks.astype(bool)
        else:
            is_start[1:] |= marks[:-1].astype(bool)
    cuts = [0, *(np.flatnonzero(is_start[1:]) + 1), n_steps]
    return [whole[first:end] for first, end in pairwise(cuts)]


def _read_minari(dataset_id: str) -> list[Episode]:
    none = "there is no such file or folder"
    try:
        import minari
    except ImportError as error:
        raise LogError(
            f"{none}. If it is a Minari dataset: Minari is not installed, pip install 'sb3-distill[minari]'"
        ) from error
    try:
        dataset = minari.load_dataset(dataset_id)
    except FileNotFoundError as error:
        raise LogError(
            f"{none}, and no Minari dataset of this name on this machine: minari download {dataset_id} fetches it, if "
            "there is one, and minari list local shows those that are here"
        ) from error
    episodes: list[Episode] = []
    for episode in dataset.iterate_episodes():
        found = episode.observations
        parts = found if isinstance(found, dict) else {"": found}
        if not all(isinstance(part, np.ndarray) and part.ndim > 0 for part in parts.values()):
            raise LogError("its observations are not one array for each step, or one for each key")
        episodes.append(_acted_on(found))
    return episodes


def _acted_on(observations: Any) -> Episode:
    """The observations of an episode without the last one, on which nobody acted."""
    return (KeyedEpisode(observations) if isinstance(observations, dict) else observations)[:-1]


def _checked(episode: Episode, space: spaces.Space) -> Episode:
    if isinstance(space, spaces.Dict):
        parts = episode.parts if isinstance(episode, KeyedEpisode) else {}
        missing = [key for key in space if key not in parts]
        if missing:
            raise LogError(f"it has no observations under {', '.join(missing)}, which the teacher sees")
        return KeyedEpisode({key: _checked_part(parts[key], part, f" ({key})") for key, part in space.items()})  # type: ignore[arg-type]
    if isinstance(episode, KeyedEpisode):
        raise LogError(f"its observations have the keys {', '.join(episode.parts)}, the teacher's none")
    return _checked_part(episode, space)  # type: ignore[arg-type]


def _checked_part(episode: np.ndarray, space: spaces.Box, key: str = "") -> np.ndarray:
    if episode.shape[1:] != space.shape:
        raise LogError(
            f"its observations{key} are of the shape {episode.shape[1:]}, the teacher's of {space.shape} (images "
            "channels first)"
        )
    if episode.dtype.kind not in "biuf" or not np.can_cast(episode.dtype, space.dtype, "same_kind"):
        raise LogError(f"its observations{key} are {episode.dtype}, the teacher's {space.dtype}")
    if space.dtype.kind == "f" and episode.dtype == np.uint8 and episode.ndim == 4:
        raise LogError(
            f"its observations{key} are pictures in bytes, and the teacher's {space.dtype}: say by what they are "
            "divided, teacher_kwargs scale:255 (scale:1 if the file does it itself), or record what the teacher sees"
        )
    if space.dtype.kind in "iu":
        known, low, high = np.iinfo(space.dtype.name), int(episode.min()), int(episode.max())
        if low < known.min or high > known.max:
            raise LogError(
                f"its observations{key} go from {low} to {high}, the teacher's {space.dtype} only from {known.min} to "
                f"{known.max}: record what the teacher sees"
            )
    with np.errstate(over="ignore"):
        found = episode.astype(space.dtype)
    if not np.isfinite(found).all():
        raise LogError(f"its observations{key} hold NaN or infinite numbers, or some too large for {space.dtype}")
    return found


def hold_out(
    episodes: Sequence[Episode], share: float, rng: np.random.Generator
) -> tuple[list[Episode], list[Episode]]:
    """
    :param episodes: the episodes of a log; a single one is cut in two
    :param share: share of the episodes, of a single one of its steps, that is held out
    :param rng: chooses them
    :return: the episodes to learn from, and those that are held out; both in the order of the log
    :raises LogError: the log has a single step
    """
    if len(episodes) == 1:
        (whole,) = episodes
        if len(whole) < 2:
            raise LogError("The log has a single step: some must be held out.")
        cut = len(whole) - _count(share, len(whole))
        return [whole[:cut]], [whole[cut:]]
    chosen = set(rng.permutation(len(episodes))[: _count(share, len(episodes))].tolist())
    kept = [episode for index, episode in enumerate(episodes) if index not in chosen]
    return kept, [episodes[index] for index in sorted(chosen)]


def _count(share: float, n: int) -> int:
    return min(max(round(share * n), 1), n - 1)
