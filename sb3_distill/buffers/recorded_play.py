"""Reads a recording in place of playing."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_distill.buffers.record import Obs, StepRecord
from sb3_distill.buffers.recording_meta import RecordingError, RecordingSettings
from sb3_distill.buffers.recording_writer import RecordingWriter, remove_dead_recordings
from sb3_distill.buffers.recordings import Recording
from sb3_distill.buffers.unfinished import resume_writer


class RecordedPlay:
    """
    Reads a recording step by step, in place of the environment.

    :param recording: the recording
    :param start: row to begin with
    """

    def __init__(self, recording: Recording, start: int = 0) -> None:
        self.recording = recording
        self.row = start
        # Observations by row: those after a step are those before the next one.
        self._cached: dict[int, Obs] = {}
        self._ends = {(end.row, end.env): end for end in recording.episodes}

    @property
    def is_over(self) -> bool:
        """Whether all steps have been read."""
        return self.row >= self.recording.n_rows

    def step(self) -> tuple[StepRecord, Obs]:
        """
        :return: the next step, and the observations after it. After the last step, where nothing more was recorded,
            these are the observations before it.
        """
        recording, columns, row = self.recording, self.recording.columns, self.row
        self.row += 1
        infos: list[dict[str, Any]] = [{} for _ in range(recording.n_envs)]
        for env in np.flatnonzero(columns["dones"][row]).tolist():
            infos[env]["terminal_observation"] = recording.terminal(row, env)
            infos[env]["TimeLimit.truncated"] = bool(columns["truncations"][row, env])
            end = self._ends[row, env]
            if end.total_reward is not None:
                infos[env]["episode"] = {"r": end.total_reward, "l": end.length, "t": 0.0}
        record = StepRecord(
            self.observations(row),
            np.ones(recording.n_envs, dtype=bool) if row == 0 else np.array(columns["dones"][row - 1]),
            recording.answers(row),
            np.array(columns["actions"][row]),
            np.array(columns["rewards"][row]),
            np.array(columns["dones"][row]),
            infos,
        )
        return record, self.observations(self.row)

    def observations(self, row: int) -> Obs:
        """
        :param row: a row, also the one after the last
        :return: its observations; those of the last row if there is none
        """
        if row not in self._cached:
            self._cached = {row: self.recording.observations(min(row, self.recording.n_rows - 1))}
        return self._cached[row]


def read_or_record(
    folder: Path,
    settings: RecordingSettings,
    observation_space: spaces.Space,
    n_envs: int,
    start: int,
    total_timesteps: int,
    unfinished: dict[str, Any] | None = None,
) -> tuple[RecordedPlay | None, RecordingWriter | None]:
    """
    :param folder: folder of the recording, which may not exist yet
    :param settings: the settings on which the play depends
    :param observation_space: Observation space
    :param n_envs: number of parallel environments
    :param start: number of steps that the run has done already
    :param total_timesteps: number of steps that it will do
    :param unfinished: what a stopped run had recorded (see ``writer_state``)
    :return: the reader if the recording exists, else the writer
    :raises RecordingError: the recording was made with other settings, or is not complete
    """
    if folder.exists():
        recording = Recording(folder)
        recording.check(settings, n_envs, start + total_timesteps)
        # What stopped runs had recorded of it is not needed any more.
        remove_dead_recordings(folder)
        return RecordedPlay(recording, start // n_envs), None
    if unfinished is not None:
        return None, resume_writer(folder, settings, observation_space, n_envs, unfinished)
    if start > 0:
        raise RecordingError(f"There is no recording {folder}, and a run that goes on would record a part only.")
    return None, RecordingWriter(folder, settings, observation_space, n_envs)
