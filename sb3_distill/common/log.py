"""What a user sees while work goes on: the package's messages, progress bars, and a word about long waits."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

# Seconds after which a wait for a network is explained
_PATIENCE = 5.0
# A bar inside a bar would draw over it, and is not needed.
_is_shown = threading.Lock()


@contextmanager
def shown_messages(stream: TextIO) -> Iterator[None]:
    """
    Show the package's messages for the length of a ``with`` block: where the user's own handlers or an outer block
    show them, else on a stream. Afterwards the logger is as it was before.

    :param stream: the stream
    """
    log = logging.getLogger("sb3_distill")
    level, handler = log.level, logging.NullHandler() if log.hasHandlers() else logging.StreamHandler(stream)
    log.addHandler(handler)
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


@contextmanager
def hidden_messages() -> Iterator[None]:
    """Hide the package's messages, but not its warnings, for the length of a ``with`` block or a function: what is said
    of files that a user has named says nothing of those that are written on the way."""
    log = logging.getLogger("sb3_distill")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def progress_bar(label: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """
    Show a progress bar for the length of a ``with`` block, on the standard error stream, if that is a terminal: never
    in what a program prints or in a log.

    :param label: what goes on
    :param total: how much there is to do; None: not known
    :return: a function that takes how much is done by now
    """
    if not sys.stderr.isatty() or _is_shown.locked():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # What is printed meanwhile stands above the bar; if it goes to a file, it goes there as it is.
    redirected = sys.stdout.isatty()
    with _is_shown, Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=redirected) as bar:
        task = bar.add_task(escape(label), total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def explained_wait(message: str) -> Iterator[None]:
    """
    Log a message if a ``with`` block takes long, as one that waits for a network may.

    :param message: what is waited for, and what the user can do
    """
    timer = threading.Timer(_PATIENCE, logging.getLogger("sb3_distill").warning, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
