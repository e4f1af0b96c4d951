"""Cells that were stopped go on from their checkpoint."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sb3_distill.common.locks import locked
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import TRAINED, stopped_in
from sb3_distill.study.run import collect, only_study_in, run_study
from tests.study.studies import CARTPOLE, run_here, write


@pytest.fixture
def study_file(cartpole_teacher, tmp_path) -> Path:
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher), "n_timesteps": 4_000}
    return write(tmp_path / "losses.yml", settings=settings, grid={"loss": ["kl"], "seed": [0]})


def rows_in(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())["agents"]


def stop_after_a_checkpoint(options: list[str], out: Path, stop: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sb3_distill", "study", *options],
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background ignores Ctrl-C, and so would the study.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(out.glob("cells/.*/pd/*/run_state.zip")) and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(stop)
    process.communicate(timeout=60)
    for folder in out.glob("cells/.*"):
        # The cell's own process may end a moment later.
        with locked(folder, "waits for its end", wait=True):
            pass


@pytest.mark.ci
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_cell_goes_on_from_its_checkpoint(stop, study_file, tmp_path, capsys):
    study = read_study(study_file)
    (cell,) = study.cells
    assert not run_study(study, tmp_path / "whole", run_here)
    out = tmp_path / "out"
    options = [str(study_file), "-o", str(out), "-j", "1", "--save-freq", "500"]
    stop_after_a_checkpoint(options, out, stop)
    folder = stopped_in(out, cell.key)
    assert folder is not None and not (out / "cells" / cell.key).exists()
    # What it has written of the recording stays, too; what cannot go on does not.
    (out / "cells" / f".{cell.key}.0").mkdir()
    (out / "recordings" / ".another.host-1.partial").mkdir()
    with only_study_in(out):
        assert [path.name for path in out.glob("cells/*")] == [folder.name]
        assert len(list(out.glob("recordings/.*.partial"))) == 1
    assert main([*options, "--dry-run"]) == 0
    assert "stopped" in capsys.readouterr().out
    assert main(options) == 0
    assert [path.name for path in out.glob("cells/*")] == [cell.key]
    log = (out / "cells" / cell.key / "train.log").read_text()
    assert log.count("rl_zoo3.train") == 1 and "goes on at step" in log
    assert rows_in(out) == rows_in(tmp_path / "whole")


def test_a_cell_that_was_stopped_while_it_was_scored_is_not_trained_again(study_file, tmp_path):
    study = read_study(study_file)
    (cell,) = study.cells
    assert not run_study(study, tmp_path / "out", run_here)
    rows = rows_in(tmp_path / "out")
    finished = tmp_path / "out" / "cells" / cell.key
    before = (finished / "train.log").read_text()
    (finished / "manifest.json").unlink()
    (finished / TRAINED).write_text("12.5")
    finished.rename(finished.with_name(f".{cell.key}.0123"))
    assert main([str(study_file), "-o", str(tmp_path / "out"), "-j", "1"]) == 0
    assert (finished / "train.log").read_text() == before
    assert json.loads((finished / "manifest.json").read_text())["seconds"]["train"] == 12.5
    assert [row.to_dict() for row in collect(study, tmp_path / "out")] == rows


@pytest.mark.ci
def test_a_checkpoint_outlives_what_can_be_mended(study_file, cartpole_teacher, tmp_path):
    (cell,) = read_study(study_file).cells
    out = tmp_path / "out"
    options = [str(study_file), "-o", str(out), "-j", "1", "--save-freq", "500"]
    stop_after_a_checkpoint(options, out, signal.SIGKILL)
    away = cartpole_teacher.rename(cartpole_teacher.with_name("away.zip"))
    try:
        assert main(options) == 1
    finally:
        away.rename(cartpole_teacher)
    folder = stopped_in(out, cell.key)
    assert folder is not None and list(folder.glob("pd/*/run_state.zip"))
    assert str(folder) in (out / "failed" / cell.key / "problem.txt").read_text()
    assert main(options) == 0 and not (out / "failed" / cell.key).exists()
    assert "goes on at step" in (out / "cells" / cell.key / "train.log").read_text()
