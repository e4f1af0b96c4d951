"""A recording in the place of an environment."""

from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from sb3_distill.buffers.recordings import Recording, RecordingError, RecordingWriter
from sb3_distill.envs.inspection import frame_channels_of


class RecordedVecEnv(VecEnvWrapper):
    """
    Stands for an environment in which the teacher has played: whatever is done, what was recorded happens.

    :param venv: the environment, which is not stepped
    :param recording: what happened
    :param start: row to begin with
    """

    def __init__(self, venv: VecEnv, recording: Recording, start: int = 0) -> None:
        super().__init__(venv)
        self.recording = recording
        self.row = start
        self._terminals = recording.terminals()
        self._ends = {(episode["row"], episode["env"]): episode for episode in recording.episodes}

    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """
        :return: the teacher's outputs for the current observations, and the actions that were played
        """
        columns = self.recording.columns
        return np.array(columns["outputs"][self.row]), np.array(columns["actions"][self.row])

    def reset(self) -> np.ndarray:
        return self.recording.observations(self.row)

    def step_async(self, actions: np.ndarray) -> None:
        pass

    def step_wait(self) -> Any:
        columns, row = self.recording.columns, self.row
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for env in np.flatnonzero(columns["dones"][row]).tolist():
            infos[env]["terminal_observation"] = self._terminals[row, env]
            infos[env]["TimeLimit.truncated"] = bool(columns["truncations"][row, env])
            if self._ends[row, env]["r"] is not None:
                infos[env]["episode"] = {key: self._ends[row, env][key] for key in ("r", "l")} | {"t": 0.0}
        self.row += 1
        # The observation after the last step is never used: it stands for itself.
        obs = self.recording.observations(min(self.row, self.recording.n_rows - 1))
        return obs, np.array(columns["rewards"][row]), np.array(columns["dones"][row]), infos


def read_or_record(
    folder: Path, settings: dict[str, Any], venv: VecEnv, start: int, total_timesteps: int
) -> tuple[VecEnv, RecordingWriter | None]:
    """
    :param folder: of a recording that exists, or is to be
    :param settings: what the play depends on
    :param venv: where the teacher plays
    :param start: steps that the run has behind it
    :param total_timesteps: steps before it
    :return: the environment to learn in, and who records it
    :raises RecordingError: the recording is another one, or not whole
    """
    if folder.exists():
        recording = Recording(folder)
        recording.check(settings, venv.num_envs, start + total_timesteps)
        return RecordedVecEnv(venv, recording, start // venv.num_envs), None
    if start > 0:
        raise RecordingError(f"There is no recording {folder}, and a run that goes on would record a part only.")
    frame_channels = frame_channels_of(venv)
    return venv, RecordingWriter(folder, settings, venv.observation_space, venv.num_envs, frame_channels)
