"""Recordings as Minari datasets."""

import ast
import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from sb3_distill.buffers.recording_meta import RecordingError, RecordingSettings
from sb3_distill.buffers.recordings import Recording


def _spec_of(settings: RecordingSettings) -> EnvSpec | None:
    """
    How Minari can make the game again, with its arguments and its time limit; None, with a warning, where this cannot
    be written into a file.
    """
    if settings.env_id is None:
        return None
    try:
        # A copy: the spec is that of the registry.
        spec = copy.deepcopy(gym.spec(settings.env_id))
    except gym.error.Error as error:
        raise RecordingError(f"{error} Import the package that registers it before to_minari.") from error
    try:
        for name, text in settings.env_kwargs.items():
            value = ast.literal_eval(text)
            if name == "max_episode_steps":
                spec.max_episode_steps = value
            else:
                spec.kwargs[name] = value
        spec.to_json()
    except Exception as error:
        # Arguments and entry points are objects of any kind.
        arguments = ", ".join(f"{name}={text}" for name, text in settings.env_kwargs.items()) or "no arguments"
        warnings.warn(
            f"The dataset does not say how to make {settings.env_id} ({arguments}), because this cannot be written "
            f"into a file: {str(error).splitlines()[0]} Its recover_environment() will not work."
        )
        return None
    return spec


def to_minari(recording: Recording, dataset_id: str) -> Any:
    """
    Write the episodes that came to their end as a Minari dataset. Stacked frames are written whole, once per step. The
    dataset's environment is the game with its arguments and its time limit, without wrappers.

    :param recording: recording of a teacher's play
    :param dataset_id: such as "pong/dqn-v0"
    :return: the dataset
    :raises RecordingError: Minari is not installed, no episode is whole, or the environment is not registered
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise RecordingError("Minari is not installed: pip install 'sb3-distill[minari]'.") from error

    buffers = []
    for index, episode in enumerate(recording.finished_episodes()):
        n_steps = len(episode.actions)
        ends = np.zeros((2, n_steps), dtype=bool)
        ends[:, -1] = episode.terminated, episode.truncated
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=list(episode.observations),
                actions=list(episode.actions),
                rewards=episode.rewards.tolist(),
                terminations=ends[0].tolist(),
                truncations=ends[1].tolist(),
            )
        )
    if not buffers:
        raise RecordingError(f"No episode of {recording.folder} came to its end: record more steps.")
    return minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        env=_spec_of(recording.settings),
        algorithm_name=f"teacher with sha256 {recording.settings.teacher}",
        description="Recorded by sb3_distill",
        observation_space=recording.observation_space,
        action_space=recording.action_space,
        # Otherwise Minari writes some images as JPEG, which are not the same afterwards.
        jpeg_encoding=False,
    )
