"""What one cell trains, and how it is scored."""

import json
from dataclasses import replace

import pytest
from stable_baselines3 import DQN

from sb3_distill import load_teacher
from sb3_distill.agents.agent import ValueTeacher
from sb3_distill.agents.files import AgentError
from sb3_distill.envs.recipe import EnvRecipe, NamedWrapper
from sb3_distill.evaluation.players import RandomPlayer
from sb3_distill.evaluation.starts import HeldOutStarts, record_starts
from sb3_distill.study.cell import Cell, StudyError
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from sb3_distill.study.rows import load_references, score_path, score_teacher, starts_of, starts_path
from sb3_distill.study.run import collect, run_study
from tests.evaluation.walk import Walk
from tests.helpers import REPOSITORY
from tests.study.studies import CARTPOLE, run_here, write


def test_best_models_and_environments_with_arguments(cartpole_teacher, tmp_path):
    settings = {**CARTPOLE["settings"], "teacher": str(cartpole_teacher), "env_kwargs": {"max_episode_steps": 5}}
    evaluation = {"n_episodes": 2, "select": "best", "eval_freq": 200, "eval_episodes": 1}
    path = write(tmp_path / "s.yml", settings=settings, evaluation=evaluation, grid={"loss": ["kl"]}, record=False)
    study = read_study(path)
    assert not run_study(study, tmp_path / "out", run_here)
    (row,) = collect(study, tmp_path / "out")
    assert row.returns == [5, 5] and row.teacher_mean == 5 and row.percent_of_teacher == 100
    # Teachers are scored anew where the environment is another one.
    (cell,) = study.cells
    folder = tmp_path / "out" / "teachers"
    protocol = {"n_episodes": 2, "epsilon": 0.0, "seed": 0}
    teacher = load_teacher(cartpole_teacher, device="cpu")
    assert score_teacher(replace(cell, env_kwargs={}), teacher, folder, protocol).mean > 5
    assert len(list(folder.iterdir())) == 2


@pytest.mark.ci
def test_environments_and_wrappers_of_a_package_of_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    wrapper = {"tests.evaluation.walk.Mirror": {"factor": 0}}
    DQN("MlpPolicy", Walk(), device="cpu").save(tmp_path / "teacher")
    own = {"env": "Walk-v0", "teacher": str(tmp_path / "teacher"), "env_wrapper": [wrapper]}
    changes = {"evaluation": {"n_episodes": 2}, "grid": {"loss": ["kl"]}, "record": False, "published": None}
    path = write(tmp_path / "s.yml", settings={**CARTPOLE["settings"], **own}, **changes)
    (cell,), (same,) = (read_study(path, packages).cells for packages in ([], ["tests.evaluation.walk"]))
    assert cell.key == same.key
    assert main([str(path), "-o", str(tmp_path / "out"), "--gym-packages", "tests.evaluation.walk"]) == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["agents"]
    # The student's wrapper, and not its teacher's, counts every reward 0 times.
    assert row["returns"] == [0, 0] and row["teacher_mean"] != 0


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


def test_wrong_names_of_the_evaluation_cost_no_training(cartpole_teacher, tmp_path):
    cell = Cell("pd", "CartPole-v1", 0, evaluation={"teacher": str(cartpole_teacher), "starts_from": "random"})
    load_references(cell, tmp_path)
    with pytest.raises(AgentError, match="no agent at nothing"):
        load_references(replace(cell, evaluation={"starts_from": "nothing"}), tmp_path)
    tasks = {"CartPole-v1": str(cartpole_teacher), "MountainCar-v0": "nothing"}
    env_kwargs = {"env_ids": list(tasks), "pad": True}
    with pytest.raises(AgentError, match="no agent at nothing"):
        load_references(
            Cell("mtdqn", "MultiTask-v0", 0, evaluation={"teachers": tasks}, env_kwargs=env_kwargs), tmp_path
        )


def test_scores_of_a_teacher_are_for_its_own_environment_and_starts(cartpole_teacher, tmp_path):
    """Their names are those of what they depend on, so that none is read for another."""
    cell = Cell("pd", "CartPole-v1", 0)
    teacher = load_teacher(cartpole_teacher, device="cpu")
    first, second = (HeldOutStarts("CartPole-v1", (state,), (0,), "random") for state in (b"1", b"2"))
    cases = [(cell, teacher), (replace(cell, env_kwargs={"max_episode_steps": 5}), teacher)]
    for facts in (
        {"sha256": "0" * 64},
        {"recipe": EnvRecipe(wrappers=[NamedWrapper("gymnasium.wrappers.ClipReward")])},
    ):
        cases.append((cell, ValueTeacher(teacher.policy, replace(teacher.facts, **facts))))
    names = {score_path(*case, tmp_path, starts) for case in cases for starts in (None, first, second)}
    assert len(names) == 12
