"""Locks of folders, so that two processes never mix what they write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class InUseError(OSError):
    """Another process writes to the folder."""


_LOCK = ".lock"
# Folders whose lock this process holds for the code within
_lent: set[Path] = set()


@contextmanager
def locked(folder: Path, doing: str, wait: bool = False, lend: bool = False) -> Iterator[None]:
    """
    Lock a folder for this process. The lock ends with the process, however it ends.

    :param folder: the folder, which is made where there is none
    :param doing: what the lock is for, such as "trains"
    :param wait: wait until the folder is free
    :param lend: code within may lock the folder, too, and does so under this lock
    :raises InUseError: another process has locked the folder
    :raises OSError: the folder cannot be written
    """
    # The code within may go to another folder.
    own = folder.resolve()
    path = own / _LOCK
    if own in _lent:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise InUseError(
            f"{folder} is in use: another process {doing} there. Wait for it, or choose another folder."
        ) from error
    except OSError as error:
        reason = f"{folder} is a file" if folder.is_file() else error.strerror or error
        raise type(error)(f"{folder} cannot be written ({reason}): choose another folder.") from error
    if lend:
        _lent.add(own)
    try:
        yield
    finally:
        _lent.discard(own)
        # While it is held: whoever has opened it meanwhile sees that it is gone, and tries again.
        path.unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """
    :param folder: a folder
    :return: whether a process has locked it at this moment
    """
    path = folder / _LOCK
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        # It cannot be written, so nobody here can have locked it.
        return False
