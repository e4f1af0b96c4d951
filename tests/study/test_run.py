"""Cells in their order, and the backends that run them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from sb3_distill.buffers.recordings import Recording
from sb3_distill.cli import main as command_line
from sb3_distill.common.files import default_config
from sb3_distill.reading.text import load_yaml
from sb3_distill.study.backends import attempt, run_locally, run_on_ray
from sb3_distill.study.cell import Cell
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from sb3_distill.study.job import end_with
from sb3_distill.study.manifest import Manifest, manifest_of
from sb3_distill.study.report import main as report
from sb3_distill.study.run import collect, estimate_seconds, only_study_in, ready_cells, run_study
from tests.helpers import REPOSITORY, content_of, full_disk
from tests.study.studies import CARTPOLE, run_here, write


@pytest.fixture(scope="module")
def study_file(tmp_path_factory, cartpole_teacher) -> Path:
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher)}
    return write(tmp_path_factory.mktemp("study") / "losses.yml", settings=settings)


@pytest.fixture(scope="module")
def finished(study_file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "losses"
    study = read_study(study_file)
    assert not run_study(study, folder, run_here)
    collect(study, folder)
    return folder


# --- Plans


def test_one_cell_of_each_recording_comes_first(tmp_path):
    cells = [
        Cell("pd", env, seed, 100, {"loss": loss}, records="shared")
        for env in ("CartPole-v1", "Acrobot-v1")
        for loss in ("kl", "nll")
        for seed in (0, 1)
    ]
    alone = Cell("rtpd", "CartPole-v1", 0)
    ready = ready_cells([*cells, alone], tmp_path)
    # Cells without a recording need not wait.
    assert [cell.env for cell in ready[:2]] == ["CartPole-v1", "Acrobot-v1"] and ready[2:] == [alone]
    # Where the first one has failed, another one records: not all of them at once.
    assert ready_cells([cell for cell in cells if cell not in ready], tmp_path) == [cells[1], cells[5]]
    keys = {cell.env: cell.recording_key for cell in cells}
    assert len(set(keys.values())) == 2
    # What the play depends on makes it another one.
    assert replace(cells[0], hyperparams={"teacher_eps": 0.3}).recording_key != keys["CartPole-v1"]
    assert replace(cells[0], hyperparams={"loss": "mse", "learning_rate": 1.0}).recording_key == keys["CartPole-v1"]
    # Each seed has its own unless the study says that they are shared.
    own = [replace(cell, records="per seed") for cell in cells[:4]]
    assert [cell.recording_key == own[0].recording_key for cell in own] == [True, False, True, False]
    assert ready_cells(own, tmp_path) == own[:2]
    (tmp_path / "recordings" / keys["CartPole-v1"]).mkdir(parents=True)
    assert ready_cells(cells, tmp_path) == [cells[4], *cells[:4]]


def test_a_plan_takes_as_long_as_its_longest_cell(tmp_path, capsys):
    settings = {**CARTPOLE["settings"], "n_timesteps": 60_000}
    path = write(tmp_path / "s.yml", settings=settings, grid={"seed": [0, 1, 2]}, published=None)
    for jobs, minutes in ((2, "0:05:58"), (8, "0:03:59")):
        assert main([str(path), "-o", str(tmp_path / "out"), "-j", str(jobs), "--dry-run"]) == 0
        assert f"3 cells, 3 to do, time about {minutes} with {jobs} at the same time" in capsys.readouterr().out


def test_estimates():
    cell = Cell("pd", "CartPole-v1", 0, 10_000)
    # 1,250 steps of 8 games, 9,000 // 32 * 4 updates, 30 episodes of student and teacher
    assert estimate_seconds(cell, []) == pytest.approx(1.25 + 1_124 * 0.003 + 60 * 0.1)
    manifests = [Manifest(cell, (), {"train": seconds, "evaluate": 1}, "", {}) for seconds in (3, 5, 100)]
    assert estimate_seconds(cell, manifests) == 6
    # Each student has its updates and its episodes, also those under way.
    several = replace(cell, hyperparams={"students": {"a": {}, "b": {}}}, evaluation={"eval_freq": 5_000})
    assert estimate_seconds(several, []) == pytest.approx(1.25 + 3 * 1_124 * 0.003 + (4 * 30 + 3 * 2 * 10) * 0.1)
    # 10,000 * 20 // 256 updates
    assert estimate_seconds(replace(cell, algo="ppd"), []) == pytest.approx(1.25 + 781 * 0.003 + 60 * 0.1)
    # The shipped length, where the study names none
    shipped = load_yaml(default_config(cell.algo))[cell.env]["n_timesteps"]
    named = replace(cell, n_timesteps=int(shipped))
    assert estimate_seconds(replace(cell, n_timesteps=None), []) == estimate_seconds(named, [])


@pytest.mark.parametrize(
    ("name", "minutes"),
    # From the shortest to the longest cell, on one core of an AMD EPYC
    [
        ("qpd_mujoco", (12, 18)),
        ("rtpd_tables_minatar", (26, 49)),
        ("ppd_lunar", (1, 3)),
        ("ppd_mujoco", (4, 8)),
        ("pd_table1_hour", (9, 24)),
    ],
)
def test_rough_guesses_are_near_what_cells_have_taken(name, minutes):
    for cell in read_study(REPOSITORY / "studies" / f"{name}.yml").cells:
        assert minutes[0] / 2 < estimate_seconds(cell, []) / 60 < minutes[1] * 2


def test_a_plan_says_that_ray_is_missing(study_file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([str(study_file), "--backend", "ray", "--dry-run"]) == 1
    assert "Ray is not installed: pip install 'sb3-distill[ray]'" in capsys.readouterr().err


def test_command_line(study_file, tmp_path, capsys):
    assert command_line(["study", str(study_file), "-o", str(tmp_path), "--dry-run"]) == 0
    assert "2 cells, 2 to do" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([str(study_file), "-j", "0"])
    assert "at least 1" in capsys.readouterr().err


# --- Runs


def test_a_study_runs_is_skipped_and_goes_on(finished, study_file, capsys):
    study = read_study(study_file)
    manifests = [manifest_of(finished, cell) for cell in study.cells]
    assert all(manifests)
    results = json.loads((finished / "results.json").read_text())
    assert [row["loss"] for row in results["agents"]] == ["kl", "nll"]
    assert results["agents"][0]["n_parameters"] > 0 and len(results["agents"][0]["returns"]) == 8
    for row in results["agents"]:
        assert row["percent_definition"] == "signed quotient" and row["n_distinct"] == row["n_distinct_pairs"] == 8
        low, high = row["percent_interval"]
        assert low <= row["percent_of_teacher"] <= high and row["verdict"] and row["margin"] == 5
    assert manifests[0].command.startswith("python -m rl_zoo3.train --algo pd --env CartPole-v1")
    # It can be pasted, and names what is there now.
    words = shlex.split(manifests[0].command)
    assert f"teacher:{study.cells[0].hyperparams['teacher']!r}" in words
    assert Path(words[words.index("-f") + 1]) == finished / "cells" / study.cells[0].key
    assert manifests[0].versions["torch"]
    # A Zoo run folder in every cell, one recording and one score of the teacher for all
    assert (finished / "cells" / study.cells[0].key / "pd" / "CartPole-v1_1" / "CartPole-v1.zip").is_file()
    assert len(list((finished / "recordings").iterdir())) == len(list((finished / "teachers").iterdir())) == 1
    assert Recording(next((finished / "recordings").iterdir())).n_rows == 600
    times = [path.stat().st_mtime_ns for path in finished.glob("cells/*/manifest.json")]
    capsys.readouterr()
    assert main([str(study_file), "-o", str(finished), "--dry-run"]) == 0
    assert "2 cells, 0 to do" in capsys.readouterr().out
    assert main([str(study_file), "-o", str(finished)]) == 0
    assert times == [path.stat().st_mtime_ns for path in finished.glob("cells/*/manifest.json")]
    header, *lines = (finished / "results.csv").read_text().splitlines()
    assert len(lines) == 2 and "mean_interval_low,mean_interval_high" in header and "[" not in lines[0]


@pytest.mark.ci
def test_what_cannot_be_imported_is_not_tried_again(cartpole_teacher, tmp_path, monkeypatch, capsys):
    # A wrapper whose package lacks another one, and which notes the processes that have tried it
    (tmp_path / "lacking.py").write_text(
        "import gymnasium, os\n"
        "class Lacking(gymnasium.Wrapper):\n"
        "    def __init__(self, env):\n"
        f"        print(os.getpid(), file=open({str(tmp_path / 'tries')!r}, 'a'))\n"
        "        import a_package_that_is_not_there\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{REPOSITORY}")
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher), "env_wrapper": "lacking.Lacking"}
    path = write(tmp_path / "s.yml", settings=settings, grid={"seed": [0]}, published=None)
    assert main([str(path), "-o", str(tmp_path / "out"), "-j", "1", "--gym-packages", "lacking"]) == 1
    assert "ModuleNotFoundError: No module named 'a_package_that_is_not_there'" in capsys.readouterr().err
    assert len(set((tmp_path / "tries").read_text().split()) - {str(os.getpid())}) == 1


@pytest.mark.ci
def test_failed_cells_are_tried_again_and_reported(cartpole_teacher, tmp_path, capsys):
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher)}
    grid = {"loss": ["kl"], "temperature": [-1.0, 0.5], "seed": [0]}
    path = write(tmp_path / "s.yml", settings=settings, grid=grid, published=None)
    assert main([str(path), "-o", str(tmp_path / "out"), "-j", "1"]) == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out and "temperature" in captured.err
    (failed,) = (tmp_path / "out" / "failed").iterdir()
    assert "temperature" in (failed / "stderr.txt").read_text()
    # What did not fail is there, nothing half done is; the second cell recorded where the first one could not.
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["agents"]) == 1 and len(list((tmp_path / "out" / "recordings").iterdir())) == 1
    (failure,) = results["failures"]
    assert failure["labels"]["temperature"] == "-1.0" and "temperature" in failure["problem"]
    assert "or for a recording of its play: 1" in captured.out and "1/2 done, 1 failed, 0 to go" in captured.out
    # The report names it, and what the grid compares though one value alone has come to its end.
    assert report([str(tmp_path / "out"), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Cells that have not finished: 1 of 2." in page and "kl -1.0 0:" in page
    assert (tmp_path / "report" / "tables.md").read_text().splitlines()[2].startswith("| temperature |")
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 1


def cells_under_way(folder: Path) -> list[int]:
    import psutil

    commands = {process.pid: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    return [
        pid
        for pid, words in commands.items()
        if "sb3_distill.study.job" in words and any(str(folder) in word for word in words)
    ]


@pytest.mark.ci
def test_interrupted_studies_end_at_once(study_file, tmp_path):
    content = yaml.safe_load(study_file.read_text())
    content = {**content, "settings": {**content["settings"], "n_timesteps": 50_000_000}, "record": False}
    path = write(tmp_path / "s.yml", **{**content, "grid": {"loss": ["kl", "nll", "mse"]}})
    command = [sys.executable, "-m", "sb3_distill", "study", str(path), "-o", str(tmp_path / "out"), "-j", "2"]
    study = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background ignores Ctrl-C, and so would the study.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        # The Zoo would save what was learned so far, and the study would take it for a finished cell.
        while len(list((tmp_path / "out").glob("cells/.*/pd"))) < 2 and study.poll() is None:
            time.sleep(0.1)
        assert len(cells_under_way(tmp_path)) == 2
        # Reports can be written meanwhile.
        assert report([str(tmp_path / "out"), "-o", str(tmp_path / "report")]) == 0
        study.send_signal(signal.SIGINT)
        _, errors = study.communicate(timeout=60)
    finally:
        # The cells end with it.
        study.kill()
    assert study.returncode == 130 and len(errors.splitlines()) == 1 and "interrupted" in errors
    assert not cells_under_way(tmp_path) and not list((tmp_path / "out" / "cells").iterdir())
    assert json.loads((tmp_path / "out" / "results.json").read_text())["agents"] == []
    assert not (tmp_path / "out" / ".lock").exists()


@pytest.mark.ci
def test_a_killed_study_leaves_no_worker_behind(study_file, tmp_path):
    import psutil

    content = yaml.safe_load(study_file.read_text())
    content = {**content, "settings": {**content["settings"], "n_timesteps": 50_000_000}, "record": False}
    path = write(tmp_path / "s.yml", **content)
    study = os.fork()
    if study == 0:
        # The workers import this checkout, too.
        os.chdir(REPOSITORY)
        os._exit(main([str(path), "-o", str(tmp_path / "out"), "-j", "2"]))
    workers: list[psutil.Process] = []
    # Before they have even imported what they need
    while len(workers) < 2 and os.waitpid(study, os.WNOHANG) == (0, 0):
        workers = psutil.Process(study).children()
    os.kill(study, signal.SIGKILL)
    os.waitpid(study, 0)
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    # It can be run again.
    with only_study_in(tmp_path / "out"):
        assert not list((tmp_path / "out" / "cells").iterdir())


def test_a_worker_ends_with_all_that_it_has_started(tmp_path):
    import psutil

    reader, writer = os.pipe()
    told, tell = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.setsid()
        os.close(writer)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        os.write(tell, str(child.pid).encode())
        end_with(reader)
        signal.pause()
    child = psutil.Process(int(os.read(told, 100)))
    # As when the process that holds it is killed
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGKILL
    _, alive = psutil.wait_procs([child], timeout=60)
    assert not alive
    for end in (reader, told, tell):
        os.close(end)


def test_a_study_and_its_report_on_a_full_disk(finished, study_file, tmp_path, capsys):
    assert report([str(finished), "-o", str(tmp_path / "report")]) == 0
    assert set(content_of(tmp_path)) == {"report/index.html", "report/tables.md", "report/tables.tex"}
    before = content_of(tmp_path)
    with full_disk():
        assert report([str(finished), "-o", str(tmp_path / "report")]) == 1
        assert f"{tmp_path / 'report' / 'tables.md'} cannot be written" in capsys.readouterr().err
        assert main([str(study_file), "-o", str(tmp_path / "out")]) == 1
    assert f"{tmp_path / 'out' / 'results.json'} cannot be written" in capsys.readouterr().err
    assert content_of(tmp_path) == before


def test_a_folder_is_of_one_study_at_a_time_and_cleared_of_what_was_killed(study_file, finished, capsys):
    for name in ("cells/.key.0123", "recordings/x.7.partial"):
        (finished / name).mkdir()
    with only_study_in(finished):
        assert not list(finished.glob("*/*.partial")) and not list(finished.glob("cells/.*"))
        assert main([str(study_file), "-o", str(finished)]) == 1
    assert "another process runs the cells of a study there" in capsys.readouterr().err
    assert main([str(study_file), "-o", str(finished)]) == 0


@pytest.mark.parametrize("is_process", [False, pytest.param(True, marks=pytest.mark.ci)])
def test_students_beside_a_teacher_need_evaluations(is_process, tmp_path):
    """Where updates follow episodes, nobody knows before how many there will be."""
    settings = {"algo": "rtpd", "env": "CartPole-v1", "n_timesteps": 300, "eval_freq": 500, "n_envs": 1}
    settings["train_freq"] = [1, "episode"]
    changes = {"grid": {"seed": [0]}, "record": False, "published": None, "evaluation": None}
    path = write(tmp_path / "s.yml", settings=settings, **changes)
    (cell,) = read_study(path).cells
    message = "makes 0 updates, with eval_freq=500 updates"
    job = cell.key, json.dumps(asdict(cell))
    if not is_process:
        with pytest.raises(ValueError, match=message):
            list(run_here([job], tmp_path / "out"))
        return
    assert message in attempt(*job, str(tmp_path / "out"), 1, threading.Event())
    # What was trained is there though it could not be scored.
    (failed,) = (tmp_path / "out" / "failed").iterdir()
    assert (failed / "rtpd" / "CartPole-v1_1" / "CartPole-v1.zip").is_file() and (failed / "train.log").is_file()
    assert not list((tmp_path / "out" / "cells").iterdir())


# --- Backends


@pytest.mark.ci
def test_ray_gives_the_same_rows_though_a_worker_is_killed(finished, study_file, tmp_path):
    pytest.importorskip("ray")
    import psutil

    study = read_study(study_file)
    study = replace(study, cells=study.cells[:1])
    killed = threading.Event()
    give_up = threading.Event()

    def kill_a_worker() -> None:
        while not killed.is_set() and not give_up.wait(0.2):
            for process in psutil.process_iter(["cmdline", "ppid"]):
                command = process.info["cmdline"] or []
                # A cell that is under way, whose parent is the worker
                if "sb3_distill.study.job" in command and any(str(tmp_path) in word for word in command):
                    os.kill(process.info["ppid"], signal.SIGKILL)
                    killed.set()
                    break

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    try:
        failures = run_study(study, tmp_path, run_on_ray(None, n_jobs=1, n_threads=1))
    finally:
        give_up.set()
        killer.join()
        import ray

        ray.shutdown()
    assert killed.is_set() and not failures
    rows = [row.to_dict() for row in collect(study, tmp_path)]
    assert rows == json.loads((finished / "results.json").read_text())["agents"][:1]


def test_local_backend_survives_a_cell_that_dies(study_file, tmp_path):
    study = read_study(study_file)
    cell = replace(study.cells[0], n_timesteps=50_000_000, records=False)
    done = threading.Event()

    def kill_the_cell() -> None:
        killed: set[int] = set()
        while len(killed) < 2 and not done.wait(0.2):
            for pid in set(cells_under_way(tmp_path)) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    killer = threading.Thread(target=kill_the_cell)
    killer.start()
    failures = run_study(replace(study, cells=(cell,)), tmp_path, run_locally(1, 1))
    done.set()
    killer.join()
    assert list(failures.values()) == ["killed by signal 9 (SIGKILL), perhaps out of memory"]
