"""Teachers that are others now than when a cell was run: they are told by their hashes, not by where they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from stable_baselines3 import DQN, PPO

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.files import model_zip, run_folder, write_whole
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN
from sb3_distill.results.tables import to_json
from sb3_distill.study.cell import Cell, StudyError
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import MANIFEST, Manifest
from sb3_distill.study.plan.replaced import find_replaced
from sb3_distill.study.report import main as report
from sb3_distill.study.reporting.means import geometric_groups
from sb3_distill.study.rows import agents_of, rows_of
from sb3_distill.study.run import collect
from sb3_distill.study.tables import group_rows, table_of
from tests.envs.tasks import make_env
from tests.mtpd.students import make
from tests.study.studies import CARTPOLE, run_here, write


def save_teacher(path: Path, seed: int) -> str:
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=seed, device="cpu").save(path)
    return load_teacher(path, device="cpu").sha256


def finish(cell: Cell, study: Path, model) -> Manifest:
    """What a cell leaves that has trained this model."""
    folder = study / "cells" / cell.key
    model.save(model_zip(run_folder(folder, cell.algo, cell.env), cell.env))
    run = run_folder(folder, cell.algo, cell.env)
    manifest = Manifest(cell, tuple(rows_of(cell, run, study)), {}, "", {}, agents_of(cell, run, study))
    write_whole(folder / MANIFEST, to_json(manifest.to_dict()))
    return manifest


def student_of(teacher: Path, n_timesteps: int = 60) -> PolicyDistillation:
    kwargs = {"learning_starts": 50, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}
    return PolicyDistillation("MlpPolicy", "CartPole-v1", str(teacher), **kwargs).learn(n_timesteps)


@pytest.fixture
def study(tmp_path) -> Path:
    """A study of two seeds, of which the first one has finished."""
    save_teacher(tmp_path / "teacher.zip", 0)
    settings = {**CARTPOLE["settings"], "n_timesteps": 100, "teacher": str(tmp_path / "teacher.zip")}
    changes = {"grid": {"seed": [0, 1]}, "evaluation": {"n_episodes": 2}, "published": None}
    path = write(tmp_path / "s.yml", settings=settings, **changes)
    first = read_study(path).cells[0]
    student = student_of(tmp_path / "teacher.zip")
    student.recording = tmp_path / "out" / "recordings" / first.recording_key
    finish(first, tmp_path / "out", student.learn(100))
    collect(read_study(path), tmp_path / "out")
    return path


def test_a_cell_of_another_teacher_is_no_seed_of_this_one(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sb3_distill.study.cli.run_locally", lambda n_jobs, n_threads, module: run_here)
    out, teacher = tmp_path / "out", tmp_path / "teacher.zip"
    before = load_teacher(teacher, device="cpu").sha256
    (done,) = (out / "cells").iterdir()
    manifest = json.loads((done / MANIFEST).read_text())
    assert manifest["agents"] == [{"setting": "teacher", "source": str(teacher), "sha256": before}]
    assert manifest["rows"][0]["teacher_sha256"] == before
    content = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    now = save_teacher(teacher, 1)
    arguments = [str(study), "-o", str(out), "-j", "1"]

    # It is neither counted with new cells nor lost.
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"{teacher} is another agent now (sha256 {now[:12]}) than for cells/{done.name}, recordings/" in error
    assert f"(sha256 {before[:12]})" in error and "--anew" in error and f"moved to {out / 'replaced'}" in error
    assert all(path.read_bytes() == bytes_ for path, bytes_ in content.items())
    assert [path.name for path in (out / "cells").iterdir()] == [done.name]
    for command in (
        lambda: main([*arguments, "--dry-run"]),
        lambda: report([str(out), "-o", str(tmp_path / "report")]),
    ):
        assert command() == 0
        assert f"Warning: {teacher} is another agent now (sha256 {now[:12]})" in capsys.readouterr().err

    # Asked for, it is made anew.
    content = yaml.safe_load(study.read_text())
    write(study, **{**content, "grid": {"seed": [0]}})
    assert main([*arguments, "--anew"]) == 0
    (row,) = json.loads((out / "results.json").read_text())["agents"]
    assert row["teacher_sha256"] == now
    (recording,) = (out / "recordings").iterdir()
    assert Recording(recording).settings.teacher == now
    (old,) = (out / "replaced" / "cells").iterdir()
    assert old.name == f"{done.name}-{before[:8]}-1" and json.loads((old / MANIFEST).read_text()) == manifest
    (old,) = (out / "replaced" / "recordings").iterdir()
    assert Recording(old).settings.teacher == before
    capsys.readouterr()
    assert main(arguments) == 0 and not capsys.readouterr().err


def test_cells_of_earlier_versions_know_their_teacher_by_the_students_file(study, tmp_path, capsys):
    (path,) = (tmp_path / "out" / "cells").glob(f"*/{MANIFEST}")
    manifest = json.loads(path.read_text())
    del manifest["agents"]
    path.write_text(json.dumps(manifest))
    assert main([str(study), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert not capsys.readouterr().err
    save_teacher(tmp_path / "teacher.zip", 1)
    assert main([str(study), "-o", str(tmp_path / "out")]) == 1
    assert "is another agent now" in capsys.readouterr().err


def test_a_teacher_that_is_gone_is_no_other_one(study, tmp_path, capsys):
    (tmp_path / "teacher.zip").unlink()
    content = yaml.safe_load(study.read_text())
    write(study, **{**content, "grid": {"seed": [0]}})
    assert main([str(study), "-o", str(tmp_path / "out")]) == 0 and not capsys.readouterr().err


def test_agents_that_the_evaluation_names_count_too(tmp_path):
    save_teacher(tmp_path / "teacher.zip", 0)
    save_teacher(tmp_path / "judge.zip", 1)
    cell = Cell("pd", "CartPole-v1", 0, evaluation={"teacher": str(tmp_path / "judge.zip"), "n_episodes": 1})
    manifest = finish(cell, tmp_path, student_of(tmp_path / "teacher.zip"))
    assert [agent.setting for agent in manifest.agents] == ["teacher", "evaluation.teacher"]
    judge = manifest.agents[1].sha256
    assert manifest.rows[0].teacher_sha256 == judge and not find_replaced(tmp_path, [manifest])
    now = save_teacher(tmp_path / "judge.zip", 2)
    (replaced,) = find_replaced(tmp_path, [manifest])
    assert (replaced.before, replaced.now) == (judge, now)


def test_a_teacher_that_is_replaced_under_way_gives_no_reference(tmp_path):
    save_teacher(tmp_path / "teacher.zip", 0)
    student = student_of(tmp_path / "teacher.zip")
    save_teacher(tmp_path / "teacher.zip", 1)
    with pytest.raises(StudyError, match=r"teacher.zip was replaced while the cell ran"):
        finish(Cell("pd", "CartPole-v1", 0), tmp_path, student)


def test_several_tasks_are_scored_against_those_who_taught_them(tmp_path):
    ids = ["CartPole-v1", "MountainCar-v0"]
    sources = {name: str(tmp_path / f"{name}.zip") for name in ids}
    save_teacher(Path(sources["CartPole-v1"]), 0)
    PPO("MlpPolicy", "MountainCar-v0", n_steps=8, batch_size=8, seed=0, device="cpu").save(sources["MountainCar-v0"])
    hashes = {name: load_teacher(source, device="cpu").sha256 for name, source in sources.items()}
    env_kwargs = {"env_ids": ids, "pad": True}
    cell = Cell("mtpd", "MultiTask-v0", 0, None, {"teachers": sources}, {}, {"n_episodes": 1}, env_kwargs)
    manifest = finish(cell, tmp_path, make(sources, make_env(env_ids=ids)).learn(100))
    by_task = {row.task: row for row in manifest.rows}
    assert {name: by_task[name].teacher_sha256 for name in ids} == hashes
    assert by_task[GEOMETRIC_MEAN].teacher_sha256 not in hashes.values()
    assert {agent.setting: (agent.source, agent.sha256) for agent in manifest.agents} == {
        f"teachers.{name}": (sources[name], hashes[name]) for name in ids
    }
    # Each by its task
    save_teacher(Path(sources["CartPole-v1"]), 1)
    (replaced,) = find_replaced(tmp_path, [manifest])
    assert (replaced.source, replaced.before) == (sources["CartPole-v1"], hashes["CartPole-v1"])
    with pytest.raises(StudyError, match=r"CartPole-v1.zip was replaced while the cell ran"):
        rows_of(cell, run_folder(tmp_path / "cells" / cell.key, cell.algo, cell.env), tmp_path)
    # Whom the evaluation names stands above them.
    others = {**sources, "CartPole-v1": str(tmp_path / "other.zip")}
    other = save_teacher(tmp_path / "other.zip", 2)
    named = replace(cell, evaluation={"n_episodes": 1, "teachers": others})
    manifest = finish(named, tmp_path, make(sources, make_env(env_ids=ids)))
    assert {row.task: row.teacher_sha256 for row in manifest.rows}["CartPole-v1"] == other
    assert {agent.setting.rpartition(".")[0] for agent in manifest.agents} == {"teachers", "evaluation.teachers"}


def test_tables_have_no_mean_over_students_of_different_teachers():
    row = Row("A", "cell", "pd", n_parameters=1, n_bytes=4, labels={"loss": "kl"})
    runs = [("A", 0, "a" * 64, 77.0), ("A", 1, "b" * 64, 440.0), ("A", 2, "b" * 64, 450.0), ("B", 0, "c" * 64, 100.0)]
    rows = [
        replace(row, env=env, seed=seed, teacher_sha256=sha256, percent_of_teacher=percent)
        for env, seed, sha256, percent in runs
    ]
    grid = {"env": ["A", "B"], "loss": ["kl"], "seed": ["0", "1", "2"]}
    groups = group_rows(rows, grid, [])
    assert [group.percents for group in groups] == [(77.0,), (440.0, 450.0), (100.0,)]
    table = table_of(groups)
    assert [line[:2] for line in table] == [
        ["teacher_sha256", "environment"],
        ["a" * 12, "A"],
        ["b" * 12, "A"],
        ["c" * 12, "B"],
    ]
    assert geometric_groups(groups, ["A", "B"]) == []
    # Teachers that differ between games, or are not known, are told by their game.
    same = [replace(entry, teacher_sha256=None if entry.seed == 0 else entry.teacher_sha256) for entry in rows]
    groups = group_rows(same, grid, [])
    assert [group.labels for group in groups] == [{"env": "A"}, {"env": "B"}]
    assert len(geometric_groups(groups, ["A", "B"])) == 1
