"""Study files: what they may say, and the cells that they stand for."""

from pathlib import Path

import pytest

from sb3_distill.study.cell import StudyError
from sb3_distill.study.cli import find_study, main
from sb3_distill.study.file import read_study
from sb3_distill.study.grid import merge
from sb3_distill.study.job import train_arguments
from tests.helpers import REPOSITORY
from tests.study.studies import CARTPOLE, write

STUDIES = REPOSITORY / "studies"


def test_studies_that_we_ship_are_found_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pd_table1_small", "--dry-run"]) == 0
    assert "CartPole-v1" in capsys.readouterr().out
    assert main(["pd_tabel1_small", "--dry-run"]) == 1
    assert "Did you mean 'pd_table1_small'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, problem", [("mine.yml", "does not exist"), ("runs/mine", "does not exist"), ("runs", "is a folder")]
)
def test_paths_that_are_no_study_are_named(name, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert main([name, "--dry-run"]) == 1
    assert f"sb3-distill study: {name} {problem}: name a study file" in capsys.readouterr().err


def test_a_folder_of_results_does_not_hide_the_study_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pd_table1_small").mkdir()
    assert find_study(Path("pd_table1_small")).name == "pd_table1_small.yml"


def test_grid_settings_and_labels(tmp_path):
    path = write(
        tmp_path / "s.yml",
        settings={"algo": "pd", "policy_kwargs": {"net_arch": [8]}, "n_timesteps": "1e4"},
        per_env={"CartPole-v1": {"temperature": 0.5}},
        grid={
            "env": ["CartPole-v1", "Acrobot-v1"],
            "student": {"small": {"policy_kwargs": {"activation_fn": "nn.ReLU"}}, "nll": {"loss": "nll"}},
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
    assert cells[0].hyperparams == {"policy_kwargs": {"net_arch": [8], "activation_fn": "nn.ReLU"}, "temperature": 0.5}
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
        ({"algo": "rtpd"}, {"n_episodes": 3}, "Its cells read select. Settings say how rtpd evaluates students"),
        ({"algo": "rtpd", "students": None}, {"teachers": {}}, "Its cells read .*teacher"),
        ({"algo": "mtdqn"}, {"teacher": "x"}, "Its cells read epsilon, n_episodes, seed, select, teachers"),
        ({"algo": "mtpd"}, {"eval_freq": 5}, "Its cells read epsilon, n_episodes, seed, select, teachers"),
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
    for cell in study.cells:
        assert set(cell.labels) == set(study.cells[0].labels)


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
        (
            {"published": [{"loss": "kl", "percent": 1}]},
            "of published does not say env: a paper's number stands beside its own game and network alone",
        ),
        (
            {"published": [{"env": "PongNoFrameskip-v4", "loss": "kl", "percent": 1}]},
            "Unknown env of published 'PongNoFrameskip-v4': choose one of CartPole-v1",
        ),
        ({"published": [{"env": "CartPole-v1", "percent": 1}]}, "does not say loss"),
        (
            {
                "settings": {"algo": "rtpd", "env": "CartPole-v1"},
                "grid": {"seed": [0]},
                "published": [{"env": "CartPole-v1", "percent": 1}],
                "evaluation": {},
            },
            "does not say player",
        ),
        (
            {
                "settings": {"algo": "rtpd", "env": "CartPole-v1", "students": {"net1 FKL": "MlpPolicy"}},
                "evaluation": {},
            },
            "'net1 FKL' cannot be the name of a student: use letters, digits and _",
        ),
        (
            {"settings": {"algo": "rtpd", "env": "CartPole-v1", "students": {"net1": {"lss": "kl"}}}, "evaluation": {}},
            "Unknown entry 'lss'.*Did you mean 'loss'",
        ),
        ({"setting": "papers"}, "setting must be paper .* or be left out, not 'papers'"),
        ({"setting": "paper"}, "for Atari games, and CartPole-v1 is none: leave it out"),
        ({"record": 1}, "record must be true .one recording for each seed., shared .* or false, not 1"),
        ({"published": [{"los": "kl", "percent": 1}]}, "Unknown field of published 'los'.*Did you mean 'loss'"),
        ({"grid": {"loss": "kl"}}, "grid.loss must be a list"),
        ({"grid": {"loss": []}}, "grid.loss must be a list"),
        ({"grid": {"loss": {"x": 3}}}, "grid.loss.x must be a mapping of names to values, not 3"),
        ({"settings": {"env": "CartPole-v1"}}, "algo and env must be named"),
        ({"settings": {"algo": "pd", "env": "CartPole-v1"}}, "add rollout_policy: teacher to settings"),
        ({"settings": {"algo": "pd", "env": "CartPol-v1"}, "record": False}, "no environment 'CartPol-v1'.*CartPole"),
        ({"settings": {**CARTPOLE["settings"], "policy": "MlpPolice"}}, "Unknown policy of pd 'MlpPolice'.*MlpPolicy"),
        ({"settings": {**CARTPOLE["settings"], "n_timesteps": "many"}}, "n_timesteps must be a whole number"),
        ({"settings": {**CARTPOLE["settings"], "n_timesteps": -5}}, "n_timesteps must be .* at least 1, not -5"),
        (
            {"settings": {**CARTPOLE["settings"], "env_kwargs": 3}},
            "env_kwargs must be a mapping of names to values, not 3",
        ),
        ({"grid": {"loss": ["kl"], "seed": ["abc"]}}, "seed must be a whole number of at least 0, not 'abc'"),
        ({"grid": {}}, "has no grid"),
        ({"record": "yes please"}, "record must be true .* or false, not 'yes please'"),
        ({"evaluation": {"n_episodes": 0}}, "evaluation.n_episodes must be a whole number of at least 1, not 0"),
        ({"evaluation": {"n_episodes": True}}, "evaluation.n_episodes must be a whole number"),
        ({"evaluation": {"epsilon": 3}}, "evaluation.epsilon must be a number between 0 and 1, not 3"),
        ({"evaluation": {"eval_freq": "often"}}, "evaluation.eval_freq must be .* at least 1, not 'often'"),
        ({"evaluation": {"starts_from": "random"}}, "states of Atari games .* not for pd on CartPole-v1"),
        ({"published": [{"loss": "kl"}]}, "row {'loss': 'kl'} of published needs percent"),
        ({"grid": {"student": {}}}, "grid.student must be a list of values or a mapping"),
        ({"grid": {"mean": {"x": {}}}}, "grid.mean has the name of a field of the results"),
        (
            {"published": [{"env": "CartPole-v1", "loss": "kll", "percent": 1}]},
            "Unknown loss of published 'kll'.*Did you mean 'kl'",
        ),
        (
            {"published": [{"env": "CartPole-v1", "loss": "kl", "percent": 1, "score": 3}]},
            "Unknown field of published 'score'",
        ),
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


def test_evaluations_that_find_the_best_model(tmp_path):
    """Those of the Zoo; a callback's where there are several games; and the run's own of students beside a teacher."""
    changes = {"grid": {"seed": [0]}, "record": False, "published": None}
    best = {"select": "best", "eval_freq": 100}

    def read(evaluation, **settings):
        settings = {"algo": "rtpd", "env": "CartPole-v1", **settings}
        path = write(tmp_path / "s.yml", settings=settings, evaluation=evaluation, **changes)
        return train_arguments(read_study(path).cells[0], tmp_path, None)

    alone = read(best, students=None)
    assert alone[alone.index("--eval-freq") + 1] == "100"
    beside = read({"select": "best"}, students={"small": "MlpPolicy"}, eval_freq=200)
    assert beside[beside.index("--eval-freq") + 1] == "-1" and "eval_freq:200" in beside
    with pytest.raises(StudyError, match=r"reads evaluation\.eval_freq: .* Settings say how rtpd evaluates students"):
        read(best, students={"small": "MlpPolicy"})
    own = {"stable_baselines3.common.callbacks.StopTrainingOnMaxEpisodes": {"max_episodes": 9}}
    several = read(best, algo="mtdqn", callback=own)
    assert several[several.index("--eval-freq") + 1] == "-1"
    first, keeps = next(eval(text.removeprefix("callback:")) for text in several if text.startswith("callback:"))
    assert first == own and next(iter(keeps.values()))["eval_freq"] == 100
    for evaluation in ({"select": "best"}, {"eval_episodes": 3, "select": "best"}):
        with pytest.raises(StudyError, match=r"needs evaluation\.eval_freq"):
            read(evaluation, algo="mtpd")


@pytest.mark.parametrize(
    "text, message", [("[1", "is no YAML"), ("3", "must be a mapping"), ("title: x", "has no grid")]
)
def test_files_that_are_no_studies(tmp_path, text, message, capsys):
    (tmp_path / "s.yml").write_text(text)
    assert main([str(tmp_path / "s.yml"), "--dry-run"]) == 1
    assert message in capsys.readouterr().err
    for content in (b"a: !!python/object:os.system {}", b"title: \xff\xfe"):
        (tmp_path / "s.yml").write_bytes(content)
        with pytest.raises(StudyError, match="is no YAML"):
            read_study(tmp_path / "s.yml")


def test_environments_of_modules(tmp_path, capsys):
    changes = {"settings": {"algo": "pd", "env": "nowhere:Game-v0"}, "grid": {"seed": [0]}, "record": False}
    path = write(tmp_path / "s.yml", **changes, published=None, evaluation={"starts_from": "random"})
    assert main([str(path), "--dry-run"]) == 1
    assert "names an environment that is not registered: " in capsys.readouterr().err


def test_environments_of_the_zoo_are_known(tmp_path):
    path = write(
        tmp_path / "s.yml",
        settings={"algo": "qpd", "env": "CartPoleNoVel-v1"},
        published=None,
        grid={"seed": [0]},
        record=False,
    )
    assert read_study(path).cells[0].env == "CartPoleNoVel-v1"
