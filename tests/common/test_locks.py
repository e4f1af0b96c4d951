import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from sb3_distill.common.locks import InUseError, locked
from tests.helpers import content_of


def test_one_process_at_a_time(tmp_path: Path):
    folder = tmp_path / "run"
    with locked(folder, "trains"):
        # After the first refusal, too, it is the first one's.
        for _ in range(2):
            with pytest.raises(InUseError, match="run is in use: another process trains"), locked(folder, "trains"):
                pass
    assert not content_of(tmp_path)
    with (
        pytest.raises(OSError, match=r"^/dev/null/run cannot be written \(Not a directory\)"),
        locked(Path("/dev/null/run"), "trains"),
    ):
        pass


@pytest.mark.parametrize("with_child", [False, True], ids=["alone", "with a forked child"])
def test_locks_end_with_the_process(with_child, tmp_path: Path):
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        with locked(tmp_path, "trains"):
            if with_child and os.fork() == 0:
                # Such as the worker of a SubprocVecEnv that is waiting; it ends with the alarm.
                os.close(tell)
                signal.alarm(30)
                signal.pause()
            os.write(tell, b"!")
            signal.pause()
    os.close(tell)
    assert os.read(told, 1)
    os.close(told)
    with pytest.raises(InUseError), locked(tmp_path, "trains"):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with locked(tmp_path, "trains"):
        pass
    assert not content_of(tmp_path)


def test_the_code_within_may_go_to_another_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with locked(Path("run"), "resumes"):
        monkeypatch.chdir(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_lock_can_be_lent(tmp_path: Path):
    with locked(tmp_path, "resumes", lend=True):
        with locked(tmp_path / ".." / tmp_path.name, "trains"):
            pass
        # It is still held.
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".lock").acquire(timeout=0)
    with locked(tmp_path, "trains"), pytest.raises(InUseError), locked(tmp_path, "trains"):
        pass
