"""What a user sees while work goes on: bars on terminals alone, and a word about long waits."""

import io
import json
import logging
import os
import pty
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import load_teacher
from sb3_distill.cli import main
from sb3_distill.common import log
from sb3_distill.common.log import explained_wait, hidden_messages, progress_bar, shown_messages


@contextmanager
def terminal() -> Iterator[list[bytes]]:
    """Standard error is a terminal; what was shown there is complete at the end."""
    screen, end = pty.openpty()
    shown: list[bytes] = []
    reader = threading.Thread(target=_read, args=(screen, shown))
    reader.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        with os.fdopen(end, "w") as stream:
            patch.setattr(sys, "stderr", stream)
            yield shown
    reader.join()


def _read(screen: int, shown: list[bytes]) -> None:
    with os.fdopen(screen, "rb", buffering=0) as file, suppress(OSError):
        # An error or nothing: the other end is closed.
        while part := file.read(1 << 16):
            shown.append(part)


def test_a_bar_shows_on_a_terminal_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal() as screen, progress_bar("cells of [red]mine", 4) as tell, progress_bar("inside", 9) as inner:
        tell(3)
        inner(9)
        print("a line of results")
    shown = b"".join(screen).decode()
    assert "cells of [red]mine" in shown and "3/4" in shown and "inside" not in shown
    # What goes into a file goes there as it is.
    assert capsys.readouterr().out == "a line of results\n"


@pytest.mark.parametrize("forced", ["", "1"])
def test_logs_and_files_have_no_bar(
    forced: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", forced)
    with progress_bar("cells", 4) as tell:
        tell(4)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_evaluate_shows_a_bar_beside_its_json(cartpole_teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with terminal() as screen:
        assert main(["evaluate", str(cartpole_teacher), "--env", "CartPole-v1", "-n", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_episodes"] == 2
    assert "2/2" in b"".join(screen).decode()


def test_the_hub_is_not_waited_for_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """This hub hangs until the user was told, and then has no network."""
    told = threading.Event()
    messages: list[str] = []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            told.set()

    def hang(*_: Any, **__: Any) -> str:
        assert told.wait(60)
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hang)
    monkeypatch.setattr(log, "_PATIENCE", 0.0)
    handler = Told()
    logging.getLogger("sb3_distill").addHandler(handler)
    try:
        with pytest.raises(AgentError, match="no network"):
            load_teacher("hub:sb3/dqn-CartPole-v1")
    finally:
        logging.getLogger("sb3_distill").removeHandler(handler)
    assert len(messages) == 1 and messages[0].startswith("Still waiting for hub:sb3/dqn-CartPole-v1")


def test_a_short_wait_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    with explained_wait("Never shown."):
        pass
    for waiting in threading.enumerate():
        if isinstance(waiting, threading.Timer):
            waiting.join()
    assert "Never shown." not in caplog.text


def test_messages_of_files_on_the_way_are_hidden_and_warnings_are_not() -> None:
    package = logging.getLogger("sb3_distill")
    package.addHandler(logging.StreamHandler(stream := io.StringIO()))
    try:
        with shown_messages(sys.stderr):
            with hidden_messages():
                package.info("a file on the way")
                package.warning("a warning")
            package.info("a file that was named")
    finally:
        package.removeHandler(package.handlers[-1])
    assert stream.getvalue() == "a warning\na file that was named\n"
