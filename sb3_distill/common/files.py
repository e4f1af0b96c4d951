"""Where the Zoo's files lie, and how files are written."""

import os
from pathlib import Path


def file_name(env_id: str) -> str:
    """
    :param env_id: an environment
    :return: its id as the Zoo and the hub write it in names of files: "ALE/Pong-v5" has a slash
    """
    return env_id.replace("/", "-")


def run_folder(root: Path, algo: str, env_id: str) -> Path:
    """
    :param root: a folder of runs
    :param algo: key of the Zoo's ``--algo``
    :param env_id: the environment
    :return: the folder of the first run in there; the Zoo numbers those that follow
    """
    return root / algo / f"{file_name(env_id)}_1"


def model_zip(run: Path, env_id: str) -> Path:
    """
    :param run: a run folder
    :param env_id: its environment
    :return: the model that the run left last
    """
    return run / f"{file_name(env_id)}.zip"


def write_whole(path: Path, text: str) -> None:
    """
    Write a file that is either whole or not there, whoever reads it meanwhile.

    :param path: the file
    :param text: what goes in
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(f"{path.name}.{os.getpid()}")
    incomplete.write_text(text)
    incomplete.replace(path)


def check_writable(path: Path) -> None:
    """
    Find out before the work and not after it.

    :param path: a file to write
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
