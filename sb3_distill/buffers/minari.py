"""Recordings as Minari datasets."""

import ast
import copy
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from sb3_distill.buffers.record import Obs
from sb3_distill.buffers.recording_meta import RecordingError, RecordingSettings
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.files import dead_partials, file_name, flush_all, naming_errors, partial_path

# Names the folder of Minari's datasets
_ROOT = "MINARI_DATASETS_PATH"


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


@contextmanager
def _whole_dataset(dataset_id: str) -> Iterator[None]:
    """Let Minari write a dataset into a folder of its own, from where it is moved to the others when it is whole."""
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage.datasets_root_dir import get_dataset_path

    root = get_dataset_path()
    folder = root / dataset_id
    if folder.exists():
        raise RecordingError(f"{folder} exists: choose another dataset_id, or delete it with minari.delete_dataset.")
    aside = partial_path(root / file_name(dataset_id))
    for left in [aside, *dead_partials(root, file_name(dataset_id))]:
        shutil.rmtree(left, ignore_errors=True)
    try:
        with naming_errors(folder):
            with _datasets_in(aside):
                yield
            flush_all(aside, folder)
            *namespace, _ = dataset_id.rsplit("/", 1)
            if namespace and namespace[0] not in list_local_namespaces():
                create_namespace(namespace[0])
            (aside / dataset_id).rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _datasets_in(root: Path) -> Iterator[None]:
    before = os.environ.get(_ROOT)
    os.environ[_ROOT] = str(root)
    try:
        yield
    finally:
        del os.environ[_ROOT]
        if before is not None:
            os.environ[_ROOT] = before


def _rows(observations: Obs) -> Any:
    """The observations of an episode as Minari takes them."""
    if isinstance(observations, dict):
        return {key: list(part) for key, part in observations.items()}
    return list(observations)


def to_minari(recording: Recording, dataset_id: str) -> Any:
    """
    Write the episodes that came to their end as a Minari dataset. Stacked frames are written whole, once per step. The
    dataset's environment is the game with its arguments and its time limit, without wrappers.

    :param recording: recording of a teacher's play
    :param dataset_id: such as "pong/dqn-v0"
    :return: the dataset
    :raises RecordingError: Minari is not installed, no episode is whole, the environment is not registered, or there is
        a dataset of this name
    :raises OSError: the dataset cannot be written
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
                observations=_rows(episode.observations),
                actions=list(episode.actions),
                rewards=episode.rewards.tolist(),
                terminations=ends[0].tolist(),
                truncations=ends[1].tolist(),
            )
        )
    if not buffers:
        raise RecordingError(f"No episode of {recording.folder} came to its end: record more steps.")
    spec = _spec_of(recording.settings)
    with _whole_dataset(dataset_id):
        minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=spec,
            algorithm_name=f"teacher with sha256 {recording.settings.teacher}",
            description="Recorded by sb3_distill",
            observation_space=recording.observation_space,
            action_space=recording.action_space,
            # Otherwise Minari writes some images as JPEG, which are not the same afterwards.
            jpeg_encoding=False,
        )
    return minari.load_dataset(dataset_id)
