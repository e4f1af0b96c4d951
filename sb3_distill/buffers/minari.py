"""Recordings as Minari datasets."""

from typing import Any

import numpy as np

from sb3_distill.buffers.recordings import Recording, RecordingError


def to_minari(recording: Recording, dataset_id: str) -> Any:
    """
    Write the episodes that came to their end as a Minari dataset. Stacked frames are written whole, once per step.

    :param recording: recording of a teacher's play
    :param dataset_id: such as "pong/dqn-v0"
    :return: the dataset
    :raises RecordingError: Minari is not installed, or no episode is whole
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
        env=recording.settings.env_id,
        algorithm_name=f"teacher with sha256 {recording.settings.teacher}",
        description="Recorded by sb3_distill",
        observation_space=recording.observation_space,
        action_space=recording.action_space,
    )
