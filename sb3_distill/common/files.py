"""Paths of the Zoo's files, and helpers to write files."""

import os
from pathlib import Path


def file_name(env_id: str) -> str:
    """
    :param env_id: id of an environment
    :return: the id without slashes ("ALE/Pong-v5" has one), as the Zoo and the hub write it in file names
    """
    return env_id.replace("/", "-")


def run_folder(root: Path, algo: str, env_id: str) -> Path:
    """
    :param root: a folder of runs
    :param algo: key of the Zoo's ``--algo``
    :param env_id: id of the environment
    :return: the folder of the first run of this algorithm and environment; the Zoo numbers the runs from 1
    """
    return root / algo / f"{file_name(env_id)}_1"


def model_zip(run: Path, env_id: str) -> Path:
    """
    :param run: a run folder
    :param env_id: id of the run's environment
    :return: path of the model that the Zoo saves at the end of the run
    """
    return run / f"{file_name(env_id)}.zip"


def write_whole(path: Path, text: str) -> None:
    """
    Write a file atomically: other processes never see a part of it.

    :param path: the file
    :param text: the content
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f"{path.name}.{os.getpid()}")
    incomplete.write_text(text)
    incomplete.replace(path)


def check_writable(path: Path) -> None:
    """
    Check that a file can be written, before the work whose result it will hold.

    :param path: the file
    :raises OSError: it cannot be written
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("ab").close()
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}): name another file with -o.") from error
    if is_new:
        path.unlink()
