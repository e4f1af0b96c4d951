"""Paths of the Zoo's files, and helpers to write files."""

import errno
import glob
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# Name of a file that is being written: that of the whole file, and who writes it
_PARTIAL = re.compile(r"\..+\.(?P<host>[^.]+)-(?P<pid>\d+)\.partial")


def file_name(env_id: str) -> str:
    """
    :param env_id: id of an environment
    :return: the id without slashes ("ALE/Pong-v5" has one), as the Zoo and the hub write it in file names
    """
    return env_id.replace("/", "-")


def check_name(what: str, name: str) -> str:
    """
    :param what: what has this name, for the message
    :param name: a name from a file or from a user, of which a file or folder is to be made
    :return: the name
    :raises ValueError: it would lead to another folder, or is no name of a file
    """
    if name in ("", ".", "..") or not name.isprintable() or set(name) & set("/\\\0") or len(name.encode()) > 150:
        shown = repr(name) if len(name) <= 60 else f"{name[:60]!r}…"
        raise ValueError(
            f"{what} is the name of a folder, so it must be 1 to 150 printable bytes without slashes, not {shown}."
        )
    return name


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


def default_config(name: str) -> Path:
    """
    Path of the hyperparameters that we ship for an algorithm, or of those of the papers ("strict").

    :param name: key of ``ALGORITHMS``, or "strict"
    :return: path of a YAML file
    """
    return shipped_folder("hyperparams") / f"{name}.yml"


def shipped_folder(name: str) -> Path:
    """
    :param name: name of a folder that we ship
    :return: its path: as in the Zoo, inside the package if it was installed from a wheel, and else at the top of the
        repository
    """
    package = Path(__file__).parents[1]
    return package / name if (package / name).is_dir() else package.parent / name


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """
    Write a file that appears under its name whole or not at all, also if the process is killed or the disk is full: it
    is written beside, flushed to the disk, and renamed. What killed processes have left in the folder is removed.

    :param path: the file; what is no file, such as ``/dev/stdout``, is written to directly
    :return: a context with the open file; if it is left by an exception, an older file stays as it was
    :raises OSError: the file cannot be written; the message names it
    """
    # The file that a link names is replaced, and not the link.
    path = path.resolve() if path.is_symlink() else path
    if _is_device(path):
        with naming_errors(path), path.open("wb") as file:
            yield file
        return
    partial = partial_path(path)
    try:
        with naming_errors(path):
            with _written_beside(path, partial) as file:
                yield file
            partial.replace(path)
        _flush_folder(path.parent)
    finally:
        _remove(partial)


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _written_beside(path: Path, partial: Path) -> Iterator[IO[bytes]]:
    # What a rename would not ask: whether the file may be written itself
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partials(path.parent)
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _remove(partial: Path) -> None:
    # Where it could not be made, it may be that nothing can be removed either.
    with suppress(OSError):
        partial.unlink()


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """
    Name the path in errors: that of a full disk says nothing but that it is full.

    :param path: what is written
    :return: a context
    :raises OSError: what the content of the context raises, with the path
    """
    try:
        yield
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{path} cannot be written ({error.strerror or error}); what was there before is unchanged. Make room, or "
            "choose a folder that can be written",
        ) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """
    Write a file that appears under its name whole or not at all.

    :param path: the file
    :param content: the content
    :raises OSError: the file cannot be written
    """
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_together(files: Mapping[Path, str | bytes], gone: Iterable[Path] = ()) -> None:
    """
    Replace several files that belong together. All are written before the first one is replaced. The last one describes
    the others: it never stands beside others than those that it describes.

    :param files: the contents, of files in one folder; no other process may write there meanwhile (see ``locked``)
    :param gone: files of an earlier time that do not belong to them
    :raises OSError: a file cannot be written
    """
    description = list(files)[-1]
    partials = {path: partial_path(path) for path in files}
    try:
        for path, content in files.items():
            with naming_errors(path), _written_beside(path, partials[path]) as file:
                file.write(content.encode() if isinstance(content, str) else content)
        description.unlink(missing_ok=True)
        _flush_folder(description.parent)
        for path in gone:
            path.unlink(missing_ok=True)
        for path, partial in partials.items():
            with naming_errors(path):
                partial.replace(path)
        _flush_folder(description.parent)
    finally:
        for partial in partials.values():
            _remove(partial)


def flush_all(partial: Path, folder: Path) -> None:
    """
    Have the disk hold all that is in a folder, before the folder gets its name.

    :param partial: the folder
    :param folder: its name, for errors
    :raises OSError: the disk is full
    """
    with naming_errors(folder):
        for place, _, names in os.walk(partial):
            for name in names:
                _flush(Path(place, name))
            _flush_folder(Path(place))


def flushed_size(path: Path) -> int:
    """
    :param path: a file to which somebody appends
    :return: its size, all of which the disk holds
    :raises OSError: the file cannot be read
    """
    size = path.stat().st_size
    _flush(path)
    return size


def partial_path(path: Path) -> Path:
    """
    :param path: a file or a folder
    :return: where this process writes it, beside it; ``dead_partials`` knows the name
    """
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.partial")


def remove_partials(folder: Path) -> None:
    """
    Remove the files that processes of this machine were writing in a folder when they were killed.

    :param folder: the folder
    """
    for path in dead_partials(folder):
        if path.is_file():
            path.unlink(missing_ok=True)


def dead_partials(folder: Path, name: str | None = None) -> list[Path]:
    """
    :param folder: a folder
    :param name: name of a file or folder in it; None for all
    :return: what processes of this machine were writing under this name when they were killed
    """
    host = _host()
    pattern = f".{'*' if name is None else glob.escape(name)}.*.partial"
    found = [(path, _PARTIAL.fullmatch(path.name)) for path in folder.glob(pattern)]
    return [path for path, by in found if by is not None and by["host"] == host and not _is_running(int(by["pid"]))]


def _host() -> str:
    return re.sub(r"[^\w-]", "_", platform.node()) or "host"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It runs, and belongs to somebody else.
        pass
    return True


def _flush_folder(folder: Path) -> None:
    """Have the disk remember a rename. Some file systems know no such thing for folders."""
    with suppress(OSError):
        _flush(folder)


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _why_not_writable(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is a file, not a folder"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"no right to write in {existing}"


def check_writable_folder(folder: Path) -> None:
    """
    Check that files can be written into a folder, before the work whose results they will hold. Nothing is made.

    :param folder: the folder, which need not exist yet
    :raises OSError: a file is in its place, or it may not be written
    """
    problem = _why_not_writable(folder)
    if problem:
        raise OSError(f"{folder} cannot be written ({problem}): name another place with -o.")


def check_own_folder(folder: Path, names: Iterable[str], is_ours: bool) -> None:
    """
    Refuse a folder in which files of somebody else would be replaced.

    :param folder: the folder, which need not exist
    :param names: files that would be written or removed there
    :param is_ours: whether what it holds says that an earlier call has written them
    :raises FileExistsError: it holds one of them, and is not ours
    """
    theirs = [name for name in names if (folder / name).exists()]
    if theirs and not is_ours:
        raise FileExistsError(
            f"{folder} holds other files, of which {theirs[0]} would be replaced: name a folder that is empty or new."
        )


@contextmanager
def without_empty_folders(folder: Path) -> Iterator[None]:
    """
    Leave no folder behind into which nothing was written.

    :param folder: the folder
    :return: a context; what its content makes of this folder and of those above is removed, unless it holds something
    """
    own = folder.absolute()
    missing = [path for path in (own, *own.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            # It was not made, or it holds something.
            with suppress(OSError):
                path.rmdir()


def check_writable(path: Path) -> None:
    """
    Check that a file can be written, before the work whose result it will hold. Nothing is left.

    :param path: the file
    :raises OSError: it cannot be written
    """
    problem = ""
    partial = partial_path(path)
    try:
        if not path.parent.is_dir():
            problem = _why_not_writable(path.parent)
        elif not _is_device(path):
            with _written_beside(path, partial):
                pass
    except OSError as error:
        problem = error.strerror or str(error)
    finally:
        _remove(partial)
    if problem:
        raise OSError(f"{path} cannot be written ({problem}): name another place with -o.")
