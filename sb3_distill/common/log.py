"""Shows the package's messages, such as the files of an agent that are read."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


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
