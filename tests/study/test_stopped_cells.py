"""What may have changed between the stop of a cell and the moment when it goes on."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from stable_baselines3 import DQN

from sb3_distill import load_teacher
from sb3_distill.common.locks import locked
from sb3_distill.results.tables import to_json
from sb3_distill.study.backends import attempt
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from sb3_distill.study.job import run_cell
from sb3_distill.study.manifest import SETTINGS, Manifest, clear_stopped, describe_versions, manifests_of
from sb3_distill.study.plan.replaced import find_replaced
from tests.helpers import REPOSITORY
from tests.study.stops import StopOnce
from tests.study.studies import CARTPOLE, run_here, write

PACKAGE = "tests.study.stops"


def put_teacher(path: Path, seed: int) -> str:
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=seed, device="cpu").save(path)
    return load_teacher(path, device="cpu").sha256


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    put_teacher(tmp_path / "teacher.zip", 0)
    settings = {**CARTPOLE["settings"], "teacher": str(tmp_path / "teacher.zip"), "callback": f"{PACKAGE}.StopOnce"}
    changes = {"grid": {"seed": [0]}, "evaluation": {"n_episodes": 2}, "published": None}
    return write(tmp_path / "s.yml", settings=settings, **changes)


@pytest.fixture
def stop(study_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Stops the study's cell after some checkpoints, in a folder of its own."""

    def run() -> Path:
        (cell,) = read_study(study_file, [PACKAGE]).cells
        folder = tmp_path / "out" / "cells" / f".{cell.key}.0"
        folder.mkdir(parents=True)
        (folder / SETTINGS).write_text(to_json(vars(cell)))
        StopOnce.calls_left = 350
        with pytest.raises(SystemError, match="stopped"):
            run_cell(folder, 100)
        return folder

    return run


def test_a_teacher_that_was_replaced_since_is_noticed(stop, study_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sb3_distill.study.cli.run_locally", lambda n_jobs, n_threads, module: run_here)
    folder, out = stop(), tmp_path / "out"
    before = load_teacher(tmp_path / "teacher.zip", device="cpu").sha256
    (cell,) = read_study(study_file, [PACKAGE]).cells
    assert not find_replaced(out, [], [cell])
    now = put_teacher(tmp_path / "teacher.zip", 1)
    arguments = [str(study_file), "-o", str(out), "-j", "1", "--gym-packages", PACKAGE]
    said = f"is another agent now (sha256 {now[:12]}) than for cells/{folder.name} (sha256 {before[:12]})"
    assert (
        main([*arguments, "--dry-run"]) == 0
        and f"Warning: {tmp_path / 'teacher.zip'} {said}" in capsys.readouterr().err
    )
    assert main(arguments) == 1 and said in capsys.readouterr().err
    assert (folder / "pd/CartPole-v1_1/run_state.zip").is_file()
    assert main([*arguments, "--anew"]) == 0
    (old,) = (out / "replaced" / "cells").iterdir()
    assert old.name == f"{cell.key}.0-{before[:8]}-1" and (old / "pd/CartPole-v1_1/run_state.zip").is_file()
    (manifest,) = manifests_of(out, [cell])
    assert manifest.agents[0].sha256 == now and len(manifest.stretches) == 1
    assert [path.name for path in (out / "recordings").iterdir()] == [cell.recording_key]


def test_seconds_and_versions_are_those_of_all_stretches(stop):
    folder = stop()
    before, start, (first,) = json.loads((folder / "stretches.json").read_text())
    written = (folder / "pd/CartPole-v1_1/run_state.zip").stat().st_mtime
    assert before == 0 and start < written
    # One that has left a checkpoint, with another version, and one that has not
    other = {**first, "torch": "1.0"}
    (folder / "stretches.json").write_text(json.dumps([0.0, written - 500, [other]]))
    StopOnce.calls_left = 20
    with pytest.raises(SystemError, match="stopped"):
        run_cell(folder, 100)
    before, _, stretches = json.loads((folder / "stretches.json").read_text())
    assert before == 500 and stretches == [other, first]
    run_cell(folder, 100)
    manifest = Manifest.from_dict(json.loads((folder / "manifest.json").read_text()))
    assert 500 < manifest.seconds["train"] < 600 and not (folder / "stretches.json").exists()
    assert manifest.stretches == (other, first) and manifest.versions == first and "threads" in first
    assert [text[-10:] for text in describe_versions([manifest])] == ["(cells: 1)"] * 2


def test_a_cell_that_an_earlier_version_has_stopped_goes_on(stop):
    folder = stop()
    before, start, _ = json.loads((folder / "stretches.json").read_text())
    (folder / "stretches.json").write_text(json.dumps([before + 1_000, start]))
    run_cell(folder, 100)
    manifest = Manifest.from_dict(json.loads((folder / "manifest.json").read_text()))
    assert manifest.seconds["train"] > 1_000 and len(manifest.stretches) == 1


def test_a_folder_that_was_moved_goes_on_where_it_is_and_keeps_no_checkpoints(stop, tmp_path):
    folder = stop()
    assert list(folder.glob("pd/*/rl_model_*_steps.zip"))
    (tmp_path / "out").rename(tmp_path / "moved")
    folder = tmp_path / "moved" / folder.relative_to(tmp_path / "out")
    run_cell(folder, 100)
    assert not (tmp_path / "out").exists() and len(list((tmp_path / "moved/recordings").iterdir())) == 1
    assert {path.name for path in folder.rglob("*.zip")} == {"CartPole-v1.zip"}
    assert "goes on at step 300 of 600" in (folder / "train.log").read_text()


def test_one_process_at_a_time_runs_a_cell(stop, study_file, tmp_path, capsys):
    folder, out = stop(), tmp_path / "out"
    plan = [str(study_file), "-o", str(out), "--dry-run", "--gym-packages", PACKAGE]
    assert main(plan) == 0 and "stopped" in capsys.readouterr().out
    begun = out / "cells" / ".another.0"
    with locked(folder, "runs this cell"), locked(begun, "runs this cell"):
        assert main(plan) == 0 and "running" in capsys.readouterr().out
        # Also one that cannot go on stays while somebody is in it.
        (begun / SETTINGS).write_text((folder / SETTINGS).read_text())
        clear_stopped(out)
        second = threading.Thread(target=run_cell, args=(folder, 100))
        second.start()
        # The first one finishes the cell, and then there is nothing left to do.
        (folder / "manifest.json").write_text("{}")
        assert begun.is_dir()
    second.join(timeout=60)
    assert not second.is_alive() and (folder / "manifest.json").read_text() == "{}"
    clear_stopped(out)
    assert not begun.exists() and folder.exists()


@pytest.mark.ci
def test_what_a_cell_says_when_it_goes_on_is_kept(stop, study_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    folder, out = stop(), tmp_path / "out"
    monitor = folder / "pd/CartPole-v1_1/0.monitor.csv"
    monitor.write_text(monitor.read_text()[:100])
    assert main([str(study_file), "-o", str(out), "-j", "1", "--gym-packages", PACKAGE]) == 0
    (said,) = (out / "cells").glob("*/stderr.txt")
    assert f"; it went on after a stop, and said more in {said}" in capsys.readouterr().out
    assert "0.monitor.csv is shorter than at the checkpoint" in said.read_text()


def test_a_cell_that_has_finished_is_not_run_again(tmp_path):
    """A worker of Ray that dies right after it has finished a cell has it tried again."""
    (tmp_path / "cells" / "kl-0").mkdir(parents=True)
    assert attempt("kl-0", "{}", str(tmp_path), 1, threading.Event(), ["no_such_module"]) == ""
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["kl-0"]
