"""A recording that is not finished: its state, and how a run that goes on finishes it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_distill.buffers.recording_meta import EpisodeEnd, RecordingError, RecordingSettings
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.state.file import Blocks


def writer_state(writer: RecordingWriter) -> dict[str, Any]:
    """
    :param writer: what a run writes
    :return: all that is not on the disk yet, and how much is; as plain values and arrays
    """
    state: dict[str, Any] = {
        "columns": {name: np.stack(rows) for name, rows in writer.columns.items()},
        "observations": np.stack(writer.observations) if writer.observations else None,
        "terminals": list(writer.terminals),
        "episodes": [tuple(end) for end in writer.episodes],
    }
    if writer.images:
        writer._file.flush()
        os.fsync(writer._file.fileno())
        state |= {
            "token": writer.token,
            "offsets": list(writer._offsets),
            "pending": Blocks(list(writer._pending)),
            "n_planes": writer._n_planes,
            "latest": [(Blocks(list(latest)), list(latest.values())) for latest in writer._latest],
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
    writer.observations = [] if state["observations"] is None else list(state["observations"])
    writer.terminals = list(state["terminals"])
    writer.episodes = [EpisodeEnd(*end) for end in state["episodes"]]
    if writer.images:
        end = state["offsets"][-1]
        if writer._file.seek(0, os.SEEK_END) < end:
            writer._file.close()
            raise RecordingError(
                f"The unfinished recording in {writer.partial} has lost frames, so the run cannot go on with it: "
                "delete the run's folder and start anew."
            )
        # What was written after the state is written again.
        writer._file.truncate(end)
        writer._file.seek(end)
        writer._offsets = list(state["offsets"])
        writer._pending = list(state["pending"].items)
        writer._n_planes = state["n_planes"]
        writer._latest = [dict(zip(planes.items, numbers, strict=True)) for planes, numbers in state["latest"]]
    return writer
