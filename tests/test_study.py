"""Study files, their cells, and the backends that run them."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import run_python

from sb3_distill.agents.errors import TeacherError
from sb3_distill.buffers.recordings import Recording
from sb3_distill.evaluation.players import RandomPlayer
from sb3_distill.evaluation.starts import record_starts
from sb3_distill.study.backends import run_locally, run_on_ray
from sb3_distill.study.cell import Cell, StudyError
from sb3_distill.study.cli import main
from sb3_distill.study.file import merge, read_study
from sb3_distill.study.job import load_references, score_path, score_teacher, starts_of, starts_path, train_arguments
from sb3_distill.study.report import main as report
from sb3_distill.study.run import collect, estimate_seconds, locked, manifest_of, ready_cells, run_study

STUDIES = Path(__file__).parent.parent / "studies"
CARTPOLE = {
    "title": "CartPole & losses",
    "settings": {"algo": "pd", "env": "CartPole-v1", "n_timesteps": 600, "rollout_policy": "teacher"},
    "grid": {"loss": ["kl", "nll"], "seed": [0]},
    "record": True,
    "evaluation": {"n_episodes": 2},
    "published": [{"loss": "kl", "percent": 101.5}],
}


def write(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**CARTPOLE, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def study_file(tmp_path_factory, cartpole_teacher) -> Path:
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher)}
    return write(tmp_path_factory.mktemp("study") / "losses.yml", settings=settings)


@pytest.fixture(scope="module")
def finished(study_file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "losses"
    assert main([str(study_file), "-o", str(folder), "-j", "1"]) == 0
    return folder


def test_grid_settings_and_labels(tmp_path):
    path = write(
        tmp_path / "s.yml",
        settings={"algo": "pd", "policy_kwargs": {"net_arch": [8]}, "n_timesteps": "1e4"},
        per_env={"CartPole-v1": {"temperature": 0.5}},
        grid={
            "env": ["CartPole-v1", "Acrobot-v1"],
            "student": {"small": {"policy_kwargs": {"activation_fn": "relu"}}, "nll": {"loss": "nll"}},
            "seed": [3],
        },
        record=False,
        published=None,
    )
    cells = read_study(path).cells
    assert [cell.labels for cell in cells] == [
        {"env": env, "student": student, "seed": "3"}
        for env in ("CartPole-v1", "Acrobot-v1")
        for student in ("small", "nll")
    ]
    assert cells[0].hyperparams == {"policy_kwargs": {"net_arch": [8], "activation_fn": "relu"}, "temperature": 0.5}
    assert cells[3].hyperparams == {"policy_kwargs": {"net_arch": [8]}, "loss": "nll"}
    assert cells[0].n_timesteps == 10_000 and cells[0].seed == 3
    assert len({cell.key for cell in cells}) == 4
    arguments = train_arguments(cells[3], tmp_path, None)
    assert "loss:'nll'" in arguments and "policy_kwargs:{'net_arch': [8]}" in arguments
    assert arguments[arguments.index("--env") + 1] == "Acrobot-v1"


def test_numbers_that_yaml_takes_for_text(tmp_path):
    settings = {"algo": "pd", "env": "CartPole-v1", "buffer_size": "2.7e7", "learning_rate": "lin_1e-3"}
    grid = {"temperature": ["1e-3", ".5E1"], "seed": [0]}
    path = write(tmp_path / "s.yml", settings=settings, grid=grid, record=False, published=None)
    first, second = read_study(path).cells
    assert first.hyperparams == {"buffer_size": 27_000_000, "learning_rate": "lin_1e-3", "temperature": 0.001}
    assert second.hyperparams["temperature"] == 5 and second.labels["temperature"] == "5"


@pytest.mark.parametrize(
    "settings, evaluation, reads",
    [
        ({"algo": "rtpd"}, {"n_episodes": 3}, "Settings say how rtpd evaluates students"),
        ({"algo": "rtpd", "students": None}, {"teachers": {}}, "Its cells read .*teacher"),
        ({"algo": "mtdqn"}, {"teacher": "x"}, "Its cells read epsilon, n_episodes, seed, teachers"),
    ],
)
def test_keys_of_evaluation_that_nothing_reads(tmp_path, settings, evaluation, reads):
    settings = {"env": "CartPole-v1", **settings}
    changes = {"grid": {"seed": [0]}, "record": False, "published": None}
    with pytest.raises(StudyError, match=f"reads evaluation.{next(iter(evaluation))}: leave it out. {reads}"):
        read_study(write(tmp_path / "s.yml", settings=settings, evaluation=evaluation, **changes))


def test_merge_is_deep():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}, "d": None}) == {"a": {"b": 5, "c": 2}, "d": None}


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yml")), ids=lambda path: path.stem)
def test_shipped_studies_are_whole(path):
    study = read_study(path)
    assert study.cells and study.paper
    assert path.stem.endswith(("_small", "_minatar", "_pong")) or (STUDIES / f"{path.stem}_small.yml").is_file()
    for cell in study.cells:
        assert set(cell.labels) == set(study.cells[0].labels)
    for row in study.published:
        # Every published number stands beside a cell.
        labels = {name: value for name, value in row.items() if name not in ("percent", "player", "task")}
        assert any(all(cell.labels[name] == str(value) for name, value in labels.items()) for cell in study.cells)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"setings": {}}, "Unknown key 'setings': choose one of .*Did you mean 'settings'"),
        ({"grid": {"algo": ["pf"], "env": ["CartPole-v1"]}}, "Unknown algorithm 'pf': choose one of pd, rtpd"),
        ({"settings": {"algo": "pd", "env": "X", "temprature": 1}}, "Unknown setting 'temprature'.*'temperature'"),
        ({"evaluation": {"episodes": 3}}, "Unknown key of evaluation 'episodes'.*Did you mean 'n_episodes'"),
        ({"evaluation": {"select": "first"}}, "Unknown evaluation.select 'first': choose one of last, best"),
        ({"evaluation": {"select": "best"}}, "'best' needs evaluation.eval_freq"),
        ({"per_env": {"CartPole-v0": {}}}, "Unknown environment of per_env 'CartPole-v0'.*'CartPole-v1'"),
        ({"published": [{"los": "kl", "percent": 1}]}, "Unknown field of published 'los'.*Did you mean 'loss'"),
        ({"grid": {"loss": "kl"}}, "grid.loss must be a list"),
        ({"grid": {"loss": []}}, "grid.loss must be a list"),
        ({"grid": {"loss": {"x": 3}}}, "grid.loss.x must map names to values, not 3"),
        ({"settings": {"env": "CartPole-v1"}}, "algo and env must be named"),
        ({"settings": {"algo": "pd", "env": "CartPole-v1"}}, "say rollout_policy: teacher in settings"),
        ({"settings": {"algo": "pd", "env": "CartPol-v1"}, "record": False}, "no environment 'CartPol-v1'.*CartPole"),
        ({"settings": {**CARTPOLE["settings"], "policy": "MlpPolice"}}, "Unknown policy of pd 'MlpPolice'.*MlpPolicy"),
        ({"settings": {**CARTPOLE["settings"], "n_timesteps": "many"}}, "n_timesteps must be a whole number"),
        ({"settings": {**CARTPOLE["settings"], "n_timesteps": -5}}, "n_timesteps must be .* at least 1, not -5"),
        ({"settings": {**CARTPOLE["settings"], "env_kwargs": 3}}, "env_kwargs must map names to values, not 3"),
        ({"grid": {"loss": ["kl"], "seed": ["abc"]}}, "seed must be a whole number of at least 0, not 'abc'"),
        ({"grid": {"loss": ["kl"], "seed": [0, 1, 0]}}, "the same cell twice: .*'seed': '0'"),
        ({"grid": {}}, "has no grid"),
        ({"record": "yes please"}, "record must be true or false, not 'yes please'"),
        ({"evaluation": {"n_episodes": 0}}, "evaluation.n_episodes must be a whole number of at least 1, not 0"),
        ({"evaluation": {"n_episodes": True}}, "evaluation.n_episodes must be a whole number"),
        ({"evaluation": {"epsilon": 3}}, "evaluation.epsilon must be a number between 0 and 1, not 3"),
        ({"evaluation": {"eval_freq": "often"}}, "evaluation.eval_freq must be .* at least 1, not 'often'"),
        ({"evaluation": {"starts_from": "random"}}, "states of Atari games .* not for pd on CartPole-v1"),
        ({"published": [{"loss": "kl"}]}, "row {'loss': 'kl'} of published must say percent"),
        ({"grid": {"student": {}}}, "grid.student must be a list of values or a mapping"),
        ({"grid": {"mean": {"x": {}}}}, "grid.mean has the name of a field of the results"),
        ({"published": [{"loss": "kll", "percent": 1}]}, "Unknown loss of published 'kll'.*Did you mean 'kl'"),
        ({"published": [{"loss": "kl", "percent": 1, "score": 3}]}, "Unknown field of published 'score'"),
        ({"evaluation": {"eval_episodes": 3}}, "eval_episodes needs evaluation.eval_freq"),
        (
            {"evaluation": {"teachers": {}}},
            "no cell of the study reads evaluation.teachers: leave it out. Its cells read",
        ),
        ({"published": {"loss": "kl", "percent": 1}}, "published must be a list of rows such as"),
        ({"published": ["94.7"]}, "published must be a list of rows such as"),
    ],
)
def test_bad_study_files(tmp_path, changes, message):
    with pytest.raises(StudyError, match=message):
        read_study(write(tmp_path / "s.yml", **changes))


@pytest.mark.parametrize("algo, students", [("rtpd", {"small": "MlpPolicy"}), ("mtdqn", None)])
def test_the_best_model_is_of_runs_that_keep_one(tmp_path, algo, students):
    settings = {"algo": algo, "env": "CartPole-v1", **({"students": students} if students else {})}
    changes = {"grid": {"seed": [0]}, "record": False, "published": None}
    best = {"select": "best", "eval_freq": 100}
    with pytest.raises(StudyError, match=f"'best' is for pd, qpd.*this {algo} run keeps no best model"):
        read_study(write(tmp_path / "s.yml", settings=settings, evaluation=best, **changes))
    alone = {"algo": "rtpd", "env": "CartPole-v1", "students": None}
    (cell,) = read_study(write(tmp_path / "s.yml", settings=alone, evaluation=best, **changes)).cells
    arguments = train_arguments(cell, tmp_path, None)
    assert arguments[arguments.index("--eval-freq") + 1] == "100"


@pytest.mark.parametrize("text, message", [("[1", "is no YAML"), ("3", "must map"), ("title: x", "has no grid")])
def test_files_that_are_no_studies(tmp_path, text, message, capsys):
    (tmp_path / "s.yml").write_text(text)
    assert main([str(tmp_path / "s.yml"), "--dry-run"]) == 1
    assert message in capsys.readouterr().err
    for content in (b"a: !!python/object:os.system {}", b"title: \xff\xfe"):
        (tmp_path / "s.yml").write_bytes(content)
        with pytest.raises(StudyError, match="is no YAML"):
            read_study(tmp_path / "s.yml")


def test_one_cell_of_each_recording_comes_first(tmp_path):
    cells = [
        Cell("pd", env, seed, 100, {"loss": loss}, records=True)
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
    (tmp_path / "recordings" / keys["CartPole-v1"]).mkdir(parents=True)
    assert ready_cells(cells, tmp_path) == [cells[4], *cells[:4]]


def test_a_plan_takes_as_long_as_its_longest_cell(tmp_path, capsys):
    settings = {**CARTPOLE["settings"], "n_timesteps": 60_000}
    path = write(tmp_path / "s.yml", settings=settings, grid={"seed": [0, 1, 2]}, published=None)
    for jobs, minutes in ((2, "0:01:30"), (8, "0:01:00")):
        assert main([str(path), "-o", str(tmp_path / "out"), "-j", str(jobs), "--dry-run"]) == 0
        assert f"3 cells, 3 to do, time about {minutes} with {jobs} at the same time" in capsys.readouterr().out


def test_environments_of_modules(tmp_path, capsys):
    changes = {"settings": {"algo": "pd", "env": "nowhere:Game-v0"}, "grid": {"seed": [0]}, "record": False}
    path = write(tmp_path / "s.yml", **changes, published=None, evaluation={"starts_from": "random"})
    assert main([str(path), "--dry-run"]) == 1
    assert "names an environment that is not registered: " in capsys.readouterr().err


def test_estimates():
    cell = Cell("pd", "CartPole-v1", 0, 10_000)
    assert estimate_seconds(cell, []) == pytest.approx(10)
    assert estimate_seconds(replace(cell, n_timesteps=None), []) is None
    manifests = [
        {"cell": {"algo": "pd", "env": "CartPole-v1"}, "seconds": {"train": seconds, "evaluate": 1}}
        for seconds in (3, 5, 100)
    ]
    assert estimate_seconds(cell, manifests) == 6
    # Frames take longer than vectors.
    assert estimate_seconds(replace(cell, env="PongNoFrameskip-v4"), []) > 100


def test_a_study_runs_is_skipped_and_goes_on(finished, study_file, capsys):
    study = read_study(study_file)
    manifests = [manifest_of(finished, cell) for cell in study.cells]
    assert all(manifests)
    results = json.loads((finished / "results.json").read_text())
    assert [row["loss"] for row in results["agents"]] == ["kl", "nll"]
    assert results["agents"][0]["n_parameters"] > 0 and len(results["agents"][0]["returns"]) == 2
    assert manifests[0]["command"].startswith("python -m rl_zoo3.train --algo pd --env CartPole-v1")
    # It can be pasted, and names what is there now.
    words = shlex.split(manifests[0]["command"])
    assert f"teacher:{study.cells[0].hyperparams['teacher']!r}" in words
    assert Path(words[words.index("-f") + 1]) == finished / "cells" / study.cells[0].key
    assert manifests[0]["versions"]["torch"]
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


def test_failed_cells_are_tried_again_and_reported(cartpole_teacher, tmp_path, capsys):
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher)}
    path = write(tmp_path / "s.yml", settings=settings, grid={"loss": ["kl"], "temperature": [-1.0, 0.5], "seed": [0]})
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
    assert "Cells that wait for it: 1" in captured.out and "1/2 done, 0 running, 0 waiting" in captured.out
    # The report names it, and what the grid compares though one value alone has come to its end.
    assert report([str(tmp_path / "out"), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "1 of 2 cells have not finished" in page and "kl -1.0 0:" in page
    assert (tmp_path / "report" / "tables.md").read_text().splitlines()[2].startswith("| temperature |")
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 1


def cells_under_way(folder: Path) -> list[int]:
    import psutil

    commands = {process.pid: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    return [pid for pid, words in commands.items() if "sb3_distill.study.job" in words and str(folder) in words[-1]]


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


def test_a_folder_is_of_one_study_at_a_time_and_cleared_of_what_was_killed(study_file, finished, capsys):
    for name in ("cells/.key.0123", "recordings/x.7.partial"):
        (finished / name).mkdir()
    with locked(finished):
        assert not list(finished.glob("*/*.partial")) and not list(finished.glob("cells/.*"))
        assert main([str(study_file), "-o", str(finished)]) == 1
    assert "another process runs its cells" in capsys.readouterr().err
    assert main([str(study_file), "-o", str(finished)]) == 0


def test_best_models_and_environments_with_arguments(cartpole_teacher, tmp_path):
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher), "env_kwargs": {"max_episode_steps": 5}}
    evaluation = {"n_episodes": 2, "select": "best", "eval_freq": 200, "eval_episodes": 1}
    path = write(tmp_path / "s.yml", settings=settings, evaluation=evaluation, grid={"loss": ["kl"]}, record=False)
    assert main([str(path), "-o", str(tmp_path / "out"), "-j", "1"]) == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["agents"]
    assert row["returns"] == [5, 5] and row["teacher_mean"] == 5 and row["percent_of_teacher"] == 100
    # Teachers are scored anew where the environment is another one.
    (cell,) = read_study(path).cells
    folder = tmp_path / "out" / "teachers"
    protocol = {"n_episodes": 2, "epsilon": 0.0, "seed": 0}
    assert score_teacher(replace(cell, env_kwargs={}), str(cartpole_teacher), folder, protocol).mean > 5
    assert len(list(folder.iterdir())) == 2


def test_starts_are_recorded_once_for_a_game(tmp_path):
    evaluation = {"n_episodes": 3, "starts_from": "random"}
    settings = {"algo": "pd", "env": "PongNoFrameskip-v4"}
    changes = {"grid": {"seed": [0]}, "record": False, "published": None}
    (cell,) = read_study(write(tmp_path / "s.yml", settings=settings, evaluation=evaluation, **changes)).cells
    with pytest.raises(StudyError, match=r"states of Atari games .* not for mtdqn"):
        read_study(write(tmp_path / "s.yml", settings={**settings, "algo": "mtdqn"}, evaluation=evaluation, **changes))
    recorded = record_starts(RandomPlayer(6), "random", "PongNoFrameskip-v4", n_states=2, n_episodes=1)
    path = starts_path(cell, tmp_path)
    assert path != starts_path(replace(cell, env_kwargs={"mode": 1}), tmp_path)
    recorded.save(path)
    assert starts_of(cell, tmp_path) == recorded and starts_of(replace(cell, evaluation={}), tmp_path) is None
    # Scores from there are others than those of the game's own start, and one of a name of its own.
    names = {
        score_path(cell, "0" * 64, tmp_path),
        score_path(replace(cell, evaluation={"n_episodes": 3}), "0" * 64, tmp_path),
    }
    assert len(names) == 2


def test_ray_gives_the_same_rows_though_a_worker_is_killed(finished, study_file, tmp_path):
    pytest.importorskip("ray")
    import psutil

    study = read_study(study_file)
    killed = threading.Event()
    give_up = threading.Event()

    def kill_a_worker() -> None:
        while not killed.is_set() and not give_up.wait(0.2):
            for process in psutil.process_iter(["cmdline", "ppid"]):
                command = process.info["cmdline"] or []
                # A cell that is under way, whose parent is the worker
                if "sb3_distill.study.job" in command and str(tmp_path) in command[-1]:
                    os.kill(process.info["ppid"], signal.SIGKILL)
                    killed.set()
                    break

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    try:
        failures = run_study(study, tmp_path, run_on_ray(None, n_jobs=2, n_threads=1))
    finally:
        give_up.set()
        killer.join()
        import ray

        ray.shutdown()
    assert killed.is_set() and not failures
    assert collect(study, tmp_path) == json.loads((finished / "results.json").read_text())["agents"]


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
    assert list(failures.values()) == ["killed by signal 9 (SIGKILL), perhaps for want of memory"]


def test_wrong_names_of_the_evaluation_cost_no_training(cartpole_teacher, tmp_path):
    cell = Cell("pd", "CartPole-v1", 0, evaluation={"teacher": str(cartpole_teacher), "starts_from": "random"})
    load_references(cell)
    with pytest.raises(TeacherError, match="no agent at nothing"):
        load_references(replace(cell, evaluation={"starts_from": "nothing"}))
    tasks = {"CartPole-v1": str(cartpole_teacher), "MountainCar-v0": "nothing"}
    env_kwargs = {"env_ids": list(tasks), "pad": True}
    with pytest.raises(TeacherError, match="no agent at nothing"):
        load_references(Cell("mtdqn", "MultiTask-v0", 0, evaluation={"teachers": tasks}, env_kwargs=env_kwargs))


def test_students_beside_a_teacher_need_evaluations(tmp_path, capsys):
    settings = {"algo": "rtpd", "env": "CartPole-v1", "n_timesteps": 300, "eval_freq": 500}
    changes = {"grid": {"seed": [0]}, "record": False, "published": None, "evaluation": None}
    path = write(tmp_path / "s.yml", settings=settings, **changes)
    assert main([str(path), "-o", str(tmp_path / "out"), "-j", "1"]) == 1
    assert "512 steps made 0 updates, with eval_freq=500 updates" in capsys.readouterr().err
    # What was trained is there though it could not be scored.
    (failed,) = (tmp_path / "out" / "failed").iterdir()
    assert (failed / "rtpd" / "CartPole-v1_1" / "CartPole-v1.zip").is_file() and (failed / "train.log").is_file()
    assert not list((tmp_path / "out" / "cells").iterdir())


def test_command_line(study_file, tmp_path):
    result = run_python(tmp_path, "-m", "sb3_distill", "study", study_file, "--dry-run")
    assert "2 cells, 2 to do" in result.stdout
    result = run_python(tmp_path, "-m", "sb3_distill", "study", study_file, "-j", "0", status=2)
    assert "at least 1" in result.stderr
