"""Runs of a study that train several students from one stream of play."""

import json
from pathlib import Path

import pytest
import yaml

from sb3_distill.agents.load import load_teacher
from sb3_distill.results.row import parse_rows
from sb3_distill.study.cell import StudyError
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import manifest_of
from sb3_distill.study.report import describe_study
from sb3_distill.study.run import collect, run_study
from tests.study.studies import run_here

SETTINGS = {"algo": "pd", "env": "CartPole-v1", "n_timesteps": 600, "rollout_policy": "teacher"}
SIZES = {
    "small": {"policy_kwargs": {"net_arch": [4]}},
    "large": {"policy_kwargs": {"net_arch": [8, 8]}},
}


def study_of(path: Path, settings=None, **changes):
    content = {"settings": {**SETTINGS, **(settings or {})}, "grid": {"seed": [0]}, **changes}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(path)


def test_values_of_a_dimension_become_students_of_one_run(tmp_path):
    study = study_of(
        tmp_path / "s.yml",
        settings={"policy": "MlpPolicy"},
        grid={"student": SIZES, "loss": ["kl", "mse"], "seed": [0, 1]},
        share_play="student",
        published=[{"env": "CartPole-v1", "student": "large", "loss": "kl", "percent": 90.0}],
    )
    assert [cell.labels for cell in study.cells] == [
        {"student": "small+large", "loss": loss, "seed": seed} for loss in ("kl", "mse") for seed in ("0", "1")
    ]
    first = study.cells[0]
    assert first.hyperparams["policy_kwargs"] == {"net_arch": [4]}
    # A student says what differs from the first.
    assert first.hyperparams["students"] == {"student_large": {"policy_kwargs": {"net_arch": [8, 8]}}}
    assert first.students == {"small": "", "large": "student_large"}


def test_students_can_differ_in_any_setting_of_their_own(tmp_path):
    grid = {"bits": {"float": {"policy": "MlpPolicy"}, "1/2": {"policy": "MlpPolicy", "weight_bits": 4}}}
    settings = {"algo": "qpd", "learning_starts": 100, "policy_kwargs": {}}
    study = study_of(tmp_path / "s.yml", settings=settings, grid=grid, share_play="bits")
    (cell,) = study.cells
    assert cell.hyperparams["students"] == {"bits_1_2": {"weight_bits": 4}}
    # With a policy of its own, a student takes over no policy_kwargs: it says them.
    grid = {"policy": ["MlpPolicy", "Net3Policy"]}
    (cell,) = study_of(
        tmp_path / "s.yml", settings={"policy_kwargs": {"net_arch": [4]}}, grid=grid, share_play="policy"
    ).cells
    own = {"policy": "Net3Policy", "policy_kwargs": {"net_arch": [4]}}
    assert cell.hyperparams["students"] == {"policy_Net3Policy": own}


def test_a_student_can_say_null(tmp_path):
    grid = {"bits": {"standard": {}, "full": {"weight_bits": None, "activation_bits": None}}}
    settings = {"algo": "qpd", "learning_starts": 100}
    (cell,) = study_of(tmp_path / "s.yml", settings=settings, grid=grid, share_play="bits").cells
    assert cell.hyperparams["students"] == {"bits_full": {"weight_bits": None, "activation_bits": None}}


@pytest.mark.parametrize(
    "settings, changes, message",
    [
        ({}, {"share_play": "students", "grid": {"student": SIZES}}, "dimension of share_play.*Did you mean 'student'"),
        ({}, {"share_play": "env", "grid": {"env": ["CartPole-v1", "Acrobot-v1"]}}, "grid.env.Acrobot-v1 sets env"),
        ({}, {"share_play": "seed", "grid": {"seed": [0, 1]}}, "grid.seed.1 sets seed, which students that share"),
        ({}, {"share_play": "seed"}, "has one value"),
        ({}, {"share_play": "batch_size", "grid": {"batch_size": [8, 16]}}, "grid.batch_size.16 sets batch_size"),
        (
            {},
            {"share_play": "x", "grid": {"x": {"slow": {"learning_rate": 0.1}, "fast": {"loss": "mse"}}}},
            "grid.x.fast does not say learning_rate, which grid.x.slow says",
        ),
        ({}, {"share_play": "x", "grid": {"x": {"a b": {"loss": "kl"}, "a-b": {"loss": "mse"}}}}, "rename one"),
        ({"students": ["MlpPolicy"]}, {"share_play": "loss", "grid": {"loss": ["kl", "mse"]}}, "students of its own"),
        ({"algo": "rtpd"}, {"share_play": "loss", "grid": {"loss": ["kl", "mse"]}}, "a cell has rtpd"),
        ({"students": {"a": {"los": "kl"}}}, {}, r"students\['a'\].*Did you mean 'loss'"),
        ({"students": {"a": {"batch_size": 8}}}, {}, r"students\['a'\]: batch_size belongs to the run"),
        ({"students": {"a": "Net9Policy"}}, {}, "Net9Policy"),
        ({"students": {"first": {}}}, {}, "'first' is the name of the first student"),
        ({"students": {"a": {}}}, {"published": [{"env": "CartPole-v1", "percent": 1.0}]}, "does not say player"),
    ],
)
def test_mistakes_are_named(tmp_path, settings, changes, message):
    # What the grid sets, and what is not of the algorithm
    left_out = {*changes.get("grid", ()), *(["rollout_policy"] if settings.get("algo") == "rtpd" else [])}
    settings = {name: value for name, value in {**SETTINGS, **settings}.items() if name not in left_out}
    path = tmp_path / "s.yml"
    path.write_text(yaml.safe_dump({"settings": settings, "grid": {"seed": [0]}, **changes}, sort_keys=False))
    with pytest.raises(StudyError, match=message):
        read_study(path)


def test_every_student_has_a_row(cartpole_teacher, tmp_path):
    """Their labels tell them apart, as they tell runs of their own apart."""
    evaluation = {"n_episodes": 8, "select": "best", "eval_freq": 100, "eval_episodes": 2}
    study = study_of(
        tmp_path / "s.yml",
        settings={"teacher": str(cartpole_teacher)},
        grid={"student": {**SIZES, "mse": {"loss": "mse", "policy_kwargs": {"net_arch": [8]}}}, "seed": [0]},
        share_play="student",
        record=True,
        evaluation=evaluation,
    )
    folder = tmp_path / "out"
    assert not run_study(study, folder, run_here)
    results = json.loads((folder / "results.json").read_text())
    assert results["study"]["grid"] == {"student": ["small", "large", "mse"], "seed": ["0"]}
    rows = results["agents"]
    assert [row["student"] for row in rows] == ["small", "large", "mse"]
    assert all(row["percent_interval"] and row["seed"] == "0" and "player" not in row for row in rows)
    # Each row is of its own student.
    (cell,) = study.cells
    zips = cell.zips(folder / "cells" / cell.key / "pd" / "CartPole-v1_1")
    assert all(path.stem == "best_model" for path in zips.values())
    for row, path in zip(rows, zips.values(), strict=True):
        assert row["n_parameters"] == load_teacher(path, device="cpu").n_parameters
    assert len({row["n_parameters"] for row in rows}) == 3
    assert len({tuple(row["traces"]) for row in rows}) > 1
    # Nothing is left to do.
    assert manifest_of(folder, cell) is not None and not run_study(study, folder, lambda *_: pytest.fail("ran again"))
    section = describe_study(folder)
    assert [line[0] for line in section.table] == ["student", "small", "large", "mse"]
    assert "one run learned from the same play" in section.legend
    # And has its own settings.
    read = parse_rows((folder / "results.json").read_text())
    arches = [row.settings["policy_kwargs"]["net_arch"] for row in read]
    assert arches == [[4], [8, 8], [8]] and [row.settings.get("loss") for row in read] == [None, None, "mse"]
    assert not any("students" in row.settings for row in read)


def test_students_that_the_settings_name(cartpole_teacher, tmp_path):
    study = study_of(
        tmp_path / "s.yml",
        settings={"teacher": str(cartpole_teacher), "students": {"other": {"policy_kwargs": {"net_arch": [4]}}}},
        evaluation={"n_episodes": 2},
    )
    assert not run_study(study, tmp_path / "out", run_here)
    rows = collect(study, tmp_path / "out")
    assert [row.player for row in rows] == ["first", "other"]
    assert [line[0] for line in describe_study(tmp_path / "out").table] == ["player", "first", "other"]
    (cell,) = study.cells
    assert all(path.stem == "CartPole-v1" for path in cell.zips(tmp_path).values())
    # They are scored after the run, as a single student is.
    read = parse_rows((tmp_path / "out" / "results.json").read_text())
    assert [row.conditions["n_episodes"] for row in read] == [2, 2]
    assert [row.settings.get("policy_kwargs") for row in read] == [None, {"net_arch": [4]}]
