"""What a run will need, before it starts: memory, room on the disk; and, once it learns, how long the rest takes."""

import shutil
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import torch as th

from sb3_distill.common.utils import counted

# Of what there is, the share from which on a warning is due
_MUCH = 0.8
# Seconds over which the rate of a run is measured, and the shortest rest that is worth a word
_MEASURED, _WORTH_SAYING = 30.0, 60.0
# What a container may use, what it uses, and how much of that are files that give way: of version 2 of control groups,
# and of version 1
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def in_words(n_bytes: float) -> str:
    """
    :param n_bytes: a number of bytes
    :return: the number in a unit that suits it
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n_bytes >= 0.9995 * size:
            number = n_bytes / size
            return f"{number:.3g} {unit}" if number < 100 else f"{number:,.0f} {unit}"
    return f"{n_bytes:.0f} bytes"


def machine_memory() -> int:
    """
    :return: bytes of memory of this machine, or as many as this container may use
    """
    limits = [psutil.virtual_memory().total]
    for folder, limit, _, _ in _GROUPS:
        # Not there, or "max"
        with suppress(OSError, ValueError):
            limits.append(int(Path(folder, limit).read_text()))
    return min(limits)


def free_memory() -> int:
    """
    :return: bytes of memory that are free now, on this machine and in this container
    """
    free = [psutil.virtual_memory().available]
    for folder, limit, usage, files in _GROUPS:
        with suppress(OSError, ValueError):
            left = int(Path(folder, limit).read_text()) - int(Path(folder, usage).read_text())
            numbers = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
            free.append(left + int(numbers.get(files, 0)))
    return max(min(free), 0)


def fits(n_bytes: float, n_held: float = 0.0) -> int:
    """
    :param n_bytes: bytes of one thing
    :param n_held: how much of them all is in memory already
    :return: as many of them fit into the memory that is free now, without a warning of ``check_memory``
    """
    return int(min(_MUCH * machine_memory(), free_memory() + n_held) / n_bytes)


def check_memory(what: str, n_bytes: float, advice: str, n_held: float = 0.0) -> None:
    """
    Refuse what this machine can never hold, and warn of what it may not hold now.

    :param what: what needs the memory, such as "The replay buffer"
    :param n_bytes: how much it needs, of shapes and numbers of steps that are known
    :param advice: what the user can do
    :param n_held: how much of it is in memory already
    :raises ValueError: the machine has less
    """
    total = machine_memory()
    if n_bytes > total:
        raise ValueError(
            f"{what} needs {in_words(n_bytes)} of memory, and this machine has {in_words(total)}. {advice}"
        )
    free = free_memory() + n_held
    if n_bytes > min(_MUCH * total, free):
        warnings.warn(
            f"{what} needs {in_words(n_bytes)} of memory. This machine has {in_words(total)}, of which "
            f"{in_words(min(free, total))} are free now. {advice}"
        )


def check_room(
    folder: Path,
    what: str,
    n_bytes: float,
    advice: str,
    n_peak: float = 0.0,
    n_held: float = 0.0,
    n_sure: float | None = None,
) -> None:
    """
    Refuse what cannot be written into a folder, and warn where there may be too little room.

    :param folder: the folder, or one that will be made
    :param what: what is written, such as "The checkpoints"
    :param n_bytes: how much room it needs
    :param advice: what the user can do
    :param n_peak: how much more it needs for a moment, while files are replaced
    :param n_held: how much of it is in the folder already
    :param n_sure: how much of it is certain enough to be refused; None: all
    :raises ValueError: there is less room
    """
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free + n_held
    if n_bytes <= free and n_bytes + n_peak <= _MUCH * free:
        return
    more = f", and {in_words(n_peak)} more while they are replaced" if n_peak else ""
    said = f"{what} need up to {in_words(n_bytes)} on the disk{more}. {folder} has {in_words(free)} free. {advice}"
    if (n_bytes if n_sure is None else n_sure) > free:
        raise ValueError(said)
    warnings.warn(said)


def zip_bytes(parameters: Iterable[th.Tensor]) -> int:
    """
    :param parameters: of a model
    :return: about how many bytes its zip has: the parameters, and two moments of each in its optimizer
    """
    return sum(12 * parameter.numel() for parameter in parameters)


def duration_in_words(seconds: float) -> str:
    """
    :param seconds: a duration
    :return: the duration, rounded
    """
    if seconds < 90:
        return counted(round(seconds), "second")
    minutes = round(seconds / 60)
    if minutes < 100:
        return counted(minutes, "minute")
    return f"{seconds / 3600:.1f} hours" if minutes < 2_880 else f"{seconds / 86_400:.1f} days"


class TimeToGo:
    """
    Says once how long the rest of a run takes, by the rate of its own steps while it learns.

    :param clock: gives seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._start: tuple[float, int] | None = None
        self._is_said = False

    def after(self, n_done: int, n_total: int) -> str | None:
        """
        :param n_done: number of steps that are done
        :param n_total: number of steps of the run
        :return: the sentence, when it is due
        """
        if self._is_said:
            return None
        now = self.clock()
        if self._start is None:
            self._start = now, n_done
        since, first = self._start
        if now - since < _MEASURED or n_done <= first:
            return None
        self._is_said = True
        rate = (n_done - first) / (now - since)
        rest = (n_total - n_done) / rate
        if rest < _WORTH_SAYING:
            return None
        return (
            f"About {duration_in_words(rest)} to go, if the run goes on at {rate:,.0f} steps a second as in the last "
            f"{now - since:.0f} seconds."
        )
