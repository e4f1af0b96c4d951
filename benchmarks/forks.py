"""Runs a function in a copy of this process, and tells how it ended."""

import contextlib
import os
import signal
import traceback
from collections.abc import Callable

# After which a copy has hung
SECONDS = 600


def in_a_fork(function: Callable[[], str]) -> str:
    """What a function says in a copy of this process, or how that has died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(SECONDS)
        try:
            said = function()
        except BaseException:
            said = f"no sentence: {traceback.format_exc()}"
        with contextlib.suppress(OSError), os.fdopen(writing, "wb") as pipe:
            pipe.write(said.encode("utf-8", "backslashreplace")[:20_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"{'hung' if name in ('SIGXCPU', 'SIGALRM', 'SIGKILL') else 'crashed'}: {name}"
    return said
