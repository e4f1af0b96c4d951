"""Grids that say less than they seem to."""

import pytest

from sb3_distill.study.cell import StudyError
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from tests.study.studies import CARTPOLE, write

SETTINGS = {"algo": "pd", "env": "CartPole-v1"}


def read(path, **changes):
    return read_study(write(path / "s.yml", **{"record": False, "published": None, **changes}))


def test_keys_that_are_written_twice(tmp_path, capsys):
    path = write(tmp_path / "s.yml")
    path.write_text(path.read_text() + "grid:\n  loss: [mse]\n")
    first, second = (number for number, line in enumerate(path.read_text().splitlines(), 1) if line == "grid:")
    assert main([str(path), "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert f"{path}: The key 'grid' is written twice, in line {first} and in line {second}." in said


@pytest.mark.parametrize(
    "settings, grid, message",
    [
        # Four runs, all at 0.5
        (
            SETTINGS,
            {"temperature": [0.1, 1.0], "student": {"a": {"temperature": 0.5}, "b": {"temperature": 0.5}}},
            r"grid.temperature and grid.student.a both set temperature, so one of them would have no effect",
        ),
        (
            SETTINGS,
            {"student": {"a": {}, "b": {"loss": "kl"}}, "about": {"c": {}, "d": {"loss": "nll"}}},
            "grid.student.b and grid.about.d both set loss",
        ),
        (
            SETTINGS,
            {
                "size": {"a": {"policy_kwargs": {"net_arch": [8], "ortho_init": True}}},
                "start": {"b": {"policy_kwargs": {"ortho_init": False}}},
            },
            "both set policy_kwargs.ortho_init",
        ),
        (
            SETTINGS,
            {
                "size": {"a": {"policy_kwargs": {"net_arch": [8]}}},
                "start": {"b": {"policy_kwargs": "dict(ortho_init=False)"}},
            },
            "grid.size.a and grid.start.b both set policy_kwargs.net_arch",
        ),
        (
            {**SETTINGS, "policy_kwargs": "dict(ortho_init=False)"},
            {"size": {"a": {}, "b": {"policy_kwargs": {"net_arch": [8]}}}},
            "settings and grid.size.b both set policy_kwargs, one as a text and one as a mapping",
        ),
        (
            {**SETTINGS, "policy_kwargs": {"net_arch": [8]}},
            {"size": {"a": {}, "b": {"policy_kwargs": "dict(ortho_init=False)"}}},
            "one as a text and one as a mapping.*Write both as mappings",
        ),
        (
            {**SETTINGS, "loss": "mse"},
            {"loss": ["kl", "nll"]},
            "settings.loss has no effect, because grid.loss sets it in every cell. Leave one of them out",
        ),
        (
            {**SETTINGS, "policy_kwargs": {"net_arch": [8], "ortho_init": False}},
            {"size": {"a": {"policy_kwargs": {"net_arch": [4]}}, "b": {"policy_kwargs": {"net_arch": [16]}}}},
            "settings.policy_kwargs.net_arch has no effect, because grid.size.a sets it",
        ),
        (SETTINGS, {"student": {1: {}, "1": {"loss": "kl"}}}, "grid.student has '1' twice"),
        (SETTINGS, {"temperature": [1, "1"]}, "grid.temperature has '1' twice"),
        (SETTINGS, {"loss": ["kl"], "seed": [0, 1, 0]}, "grid.seed has '0' twice. Name every value once"),
        # The same seed, spelled in two ways
        (SETTINGS, {"seed": [0, 0.0]}, "seed=0 and seed=0.0 of the grid are the same cell twice"),
        (SETTINGS, {"temperature": [1, 1.0], "seed": [0, 1]}, "temperature=1 and temperature=1.0 of the grid"),
        (
            SETTINGS,
            {"student": {"a": {"loss": "kl", "policy_kwargs": {}}, "b": {"policy_kwargs": {}, "loss": "kl"}}},
            "student=a and student=b of the grid are the same cell twice: all their settings are equal",
        ),
        (
            SETTINGS,
            {
                "student": {
                    "a": {"policy_kwargs": {"net_arch": [8], "optimizer_kwargs": {"eps": 1e-3}}},
                    "b": {"policy_kwargs": "dict(optimizer_kwargs=dict(eps=0.001), net_arch=[8])"},
                }
            },
            "student=a and student=b of the grid are the same cell twice",
        ),
        (
            {"algo": "pd"},
            {"env": ["CartPole-v1", "gymnasium:CartPole-v1"]},
            "env=CartPole-v1 and env=gymnasium:CartPole-v1 of the grid are the same cell twice",
        ),
        # Runs that differ in their seed are averaged.
        (
            SETTINGS,
            {"seed": {"a": {"seed": 0}, "b": {"seed": 1, "loss": "nll"}}},
            "grid.seed.b must set seed and nothing else, not seed, loss, because results have its label as their seed",
        ),
        (SETTINGS, {"env": {"a": {"loss": "kl"}}}, "grid.env.a must set env and nothing else, not loss"),
    ],
)
def test_settings_that_have_no_effect(tmp_path, settings, grid, message):
    with pytest.raises(StudyError, match=message):
        read(tmp_path, settings=settings, grid=grid)


@pytest.mark.parametrize(
    "own, grid, message",
    [
        ({"temperature": 1.0}, {"temperature": [0.1, 0.2]}, "per_env.CartPole-v1.temperature has no effect"),
        ({"env": "Acrobot-v1"}, {"loss": ["kl"]}, "per_env.CartPole-v1 must not set env"),
        ({"policy_kwargs": "dict(ortho_init=False)"}, {"loss": ["kl"]}, "settings and per_env.CartPole-v1 both set"),
    ],
)
def test_settings_of_an_environment_that_have_no_effect(tmp_path, own, grid, message):
    settings = {**SETTINGS, "policy_kwargs": {"net_arch": [8]}}
    with pytest.raises(StudyError, match=message):
        read(tmp_path, settings=settings, per_env={"CartPole-v1": own}, grid=grid)


def test_settings_that_some_cells_replace(tmp_path):
    settings = {**SETTINGS, "loss": "kl", "temperature": 0.1, "policy_kwargs": None, "students": None}
    del settings["env"], settings["students"]
    grid = {
        "env": {"pole": {"env": "CartPole-v1"}, "acrobot": {"env": "Acrobot-v1"}},
        "student": {"a": {}, "b": {"loss": "nll", "policy_kwargs": {"net_arch": [8]}}},
        "seed": [0, 1],
    }
    cells = read(tmp_path, settings=settings, per_env={"Acrobot-v1": {"temperature": 1.0}}, grid=grid).cells
    assert len(cells) == 8 and cells[0].labels == {"env": "pole", "student": "a", "seed": "0"}
    assert [cell.hyperparams["temperature"] for cell in cells] == [0.1] * 4 + [1.0] * 4
    assert cells[2].hyperparams["policy_kwargs"] == {"net_arch": [8]} and cells[0].hyperparams["policy_kwargs"] is None
    # Texts that are not dict(…) are compared as they are.
    read(tmp_path, settings=SETTINGS, grid={"learning_rate": ["lin_1e-3", "lin_2e-3"], "teacher": ["f(1)", "f(2)"]})


@pytest.mark.parametrize(
    "changes, published, message",
    [
        ({}, [{"loss": "kl", "seed": 0, "percent": 1}], "Unknown field of published 'seed'"),
        (
            {},
            [{"loss": "kl", "percent": 1}, {"loss": "kl", "percent": 2}],
            "'percent': 1} and .*'percent': 2} of published stand beside the same result. Keep one",
        ),
        ({}, [{"loss": "kl", "player": "a", "percent": 1}], "beside no result: the runs there have no player"),
        (
            {
                "grid": {"student": {"many": {"algo": "rtpd"}, "one": {"algo": "pd"}}},
                "settings": {"env": "CartPole-v1"},
            },
            [{"student": "many", "percent": 1}],
            "does not say player",
        ),
        (
            {
                "grid": {"student": {"a": {"env": "CartPole-v1"}, "b": {"env": "Acrobot-v1"}}},
                "settings": {"algo": "pd"},
            },
            [{"student": "b", "percent": 1}],
            "stands beside no result: no run is of this env and these labels",
        ),
    ],
)
def test_published_numbers_stand_beside_one_result(tmp_path, changes, published, message):
    published = [{"env": "CartPole-v1", **row} for row in published]
    with pytest.raises(StudyError, match=message):
        read(tmp_path, **{"settings": CARTPOLE["settings"], **changes, "evaluation": {}, "published": published})


@pytest.mark.parametrize("text", ["seed: 2026-99-99", "a: !!int ''"])
def test_values_that_yaml_cannot_read(tmp_path, text):
    (tmp_path / "s.yml").write_text(text)
    with pytest.raises(StudyError, match="is no YAML in UTF-8"):
        read_study(tmp_path / "s.yml")


@pytest.mark.parametrize(
    "grid",
    [
        {"loss": ["mse"], "temperature": [0.1, 1.0]},
        {"loss": ["kl", "nll"], "temperature": [0.1, 1.0]},
        {"rollout_policy": ["student"], "teacher_eps": [0.0, 0.5]},
    ],
)
def test_cells_that_differ_in_what_has_no_effect_are_the_same(grid, tmp_path):
    with pytest.raises(StudyError, match="are the same cell twice"):
        read(tmp_path, settings=SETTINGS, grid={**grid, "seed": [0]})
