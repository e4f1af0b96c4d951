"""A recording that is not finished: its state, and how a run that goes on finishes it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_distill.buffers.recording_meta import EpisodeEnd, RecordingError, RecordingSettings
from sb3_distill.buffers.recording_writer import PartWriter, RecordingWriter
from sb3_distill.state.file import Blocks


def writer_state(writer: RecordingWriter) -> dict[str, Any]:
    """
    :param writer: what a run writes
    :return: all that is not on the disk yet, and how much is; as plain values and arrays
    """
    state: dict[str, Any] = {
        "columns": {name: np.stack(rows) for name, rows in writer.columns.items()},
        "episodes": [tuple(end) for end in writer.episodes],
        "parts": {key: _part_state(part) for key, part in writer.parts.items()},
    }
    return {**state, "token": writer.token} if writer.images else state


def _part_state(part: PartWriter) -> dict[str, Any]:
    state: dict[str, Any] = {
        "observations": np.stack(part.observations) if part.observations else None,
        "terminals": list(part.terminals),
    }
    if part.images:
        part.file.flush()
        os.fsync(part.file.fileno())
        state |= {
            "offsets": list(part.offsets),
            "pending": Blocks(list(part.pending)),
            "n_planes": part.n_planes,
            "latest": [(Blocks(list(latest)), list(latest.values())) for latest in part.latest],
        }
    return state


def resume_writer(
    folder: Path,
    settings: RecordingSettings,
    observation_space: spaces.Space,
    n_envs: int,
    state: dict[str, Any],
) -> RecordingWriter:
    """
    Go on with the recording of a run that was stopped.

    :param folder: folder of the recording
    :param settings: the settings on which it depends
    :param observation_space: Observation space
    :param n_envs: number of parallel environments
    :param state: what ``writer_state`` returned
    :return: the writer in that state
    :raises RecordingError: the frames that were recorded are gone
    """
    writer = RecordingWriter(folder, settings, observation_space, n_envs, state.get("token"))
    writer.columns = {name: list(rows) for name, rows in state["columns"].items()}
    writer.episodes = [EpisodeEnd(*end) for end in state["episodes"]]
    # States of earlier versions have one part, and what is of it beside the rest.
    for key, own in state.get("parts", {"": state}).items():
        _resume_part(writer.parts[key], own)
    return writer


def _resume_part(part: PartWriter, state: dict[str, Any]) -> None:
    part.observations = [] if state["observations"] is None else list(state["observations"])
    part.terminals = list(state["terminals"])
    if part.images:
        end = state["offsets"][-1]
        if part.file.seek(0, os.SEEK_END) < end:
            part.file.close()
            raise RecordingError(
                f"The unfinished recording in {part.folder} has lost frames, so the run cannot go on with it: "
                "delete the run's folder and start anew."
            )
        # What was written after the state is written again.
        part.file.truncate(end)
        part.file.seek(end)
        part.offsets = list(state["offsets"])
        part.pending = list(state["pending"].items)
        part.n_planes = state["n_planes"]
        part.latest = [dict(zip(planes.items, numbers, strict=True)) for planes, numbers in state["latest"]]
