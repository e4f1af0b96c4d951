"""The agents that count as 100% where runs have no teacher, and teachers that the study itself trains."""

import re
from pathlib import Path

import pytest
import yaml

from sb3_distill.agents.files import AgentNotFoundError
from sb3_distill.agents.load import load_teacher
from sb3_distill.evaluation.scoring import score_agent
from sb3_distill.study import rows
from sb3_distill.study.cell import StudyError
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import manifest_of
from sb3_distill.study.plan.replaced import find_replaced
from sb3_distill.study.rows import load_references
from sb3_distill.study.run import collect, describe_missing, ready_cells, run_study
from tests.study.studies import run_here

ALONE = {"algo": "rtpd", "students": None, "learning_starts": 50, "policy_kwargs": {"net_arch": [8]}}
TASKS = {"env": "MultiTask-v0", "env_kwargs": {"env_ids": ["CartPole-v1", "MountainCar-v0"], "pad": True}}


def read(path: Path, runs, evaluation=None, **settings):
    settings = {"env": "CartPole-v1", "n_timesteps": 200, **settings}
    content = {"settings": settings, "grid": {"run": runs, "seed": [0]}, "evaluation": evaluation or {"n_episodes": 3}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(path)


def references(study, name="teacher"):
    return {cell.labels["run"]: cell.evaluation.get(name) for cell in study.cells}


def test_runs_without_a_teacher_are_compared_with_that_of_the_others(tmp_path):
    path, pd = tmp_path / "s.yml", {"algo": "pd"}
    taught = {"small": {**pd, "teacher": "a.zip"}, "nll": {**pd, "loss": "nll", "teacher": "a.zip"}}
    assert references(read(path, {**taught, "alone": ALONE})) == {"small": None, "nll": None, "alone": "a.zip"}
    # Where pd finds the Zoo's agent, this one counts.
    assert references(read(path, {"pd": pd, "alone": ALONE}))["alone"] == "zoo"
    # What the file says counts first.
    assert set(references(read(path, {"pd": pd, "alone": ALONE}, {"teacher": "b.zip"})).values()) == {"b.zip"}
    # Of several teachers none is that of all, and another game has other scores.
    assert references(read(path, {"pd": pd, **taught, "alone": ALONE}))["alone"] is None
    short = {**taught["small"], "env_kwargs": {"max_episode_steps": 5}}
    assert references(read(path, {"small": short, "alone": ALONE}))["alone"] is None
    assert references(read(path, {"qpd": {"algo": "qpd", "learning_starts": 50}, "alone": ALONE}))["alone"] is None


def test_networks_alone_are_compared_with_the_dqn_beside_the_students(tmp_path):
    beside = {
        **ALONE,
        "students": {"net1": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [4]}}},
        "n_eval_episodes": 2,
        "eval_freq": 20,
    }
    path = tmp_path / "s.yml"
    # The run alone stands first, and waits for the agent that counts as 100%.
    study = read(path, {"alone": {**ALONE, "gamma": 0.9}, "beside": beside})
    alone, distilled = study.cells
    assert references(study) == {"alone": f"cell:{distilled.key}", "beside": None}
    assert ready_cells(study.cells, tmp_path) == [distilled] and not describe_missing(study.cells)
    folder = tmp_path / "out"
    assert not run_study(study, folder, run_here)
    manifest = manifest_of(folder, alone)
    (row,), (agent,) = manifest.rows, manifest.agents
    dqn = folder / "cells" / distilled.key / "rtpd" / "CartPole-v1_1" / "CartPole-v1.zip"
    assert (agent.setting, Path(agent.source)) == ("evaluation.teacher", dqn)
    score = score_agent(load_teacher(dqn), "CartPole-v1", 3)
    assert row.teacher_mean == score.mean and row.percent_of_teacher == pytest.approx(100 * row.mean / score.mean)
    # Another seed has another one, and is a run of the same kind.
    assert row.teacher_sha256 is None and not find_replaced(folder, [manifest], study.cells)
    # Of several none is that of all.
    assert references(read(path, {"alone": ALONE, "beside": beside, "more": {**beside, "gamma": 0.9}}))["alone"] is None


def test_a_joint_dqn_is_compared_with_the_teachers_of_the_students(tmp_path):
    teachers = {"CartPole-v1": "a.zip", "MountainCar-v0": "b.zip"}
    runs = {"mtpd": {"algo": "mtpd", "teachers": teachers}, "mtdqn": {"algo": "mtdqn"}}
    study = read(tmp_path / "s.yml", runs, **TASKS)
    assert references(study, "teachers") == {"mtpd": None, "mtdqn": teachers}
    other = {**runs, "more": {"algo": "mtpd", "teachers": {**teachers, "MountainCar-v0": "c.zip"}}}
    assert references(read(tmp_path / "s.yml", other, **TASKS), "teachers")["mtdqn"] is None


def test_missing_teachers_of_tasks_are_named(tmp_path, monkeypatch, cartpole_teacher):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    study = read(tmp_path / "s.yml", {"mtpd": {"algo": "mtpd"}, "mtdqn": {"algo": "mtdqn"}}, **TASKS)
    missing = describe_missing(study.cells)
    assert [text.split()[0] for text in missing] == ["zoo:dqn/CartPole-v1", "zoo:dqn/MountainCar-v0"]
    assert all("cells that need it: 2" in text and "rl_zoo3.train --algo dqn" in text for text in missing)
    # Who counts as 100% is named, but not who teaches.
    named = {"n_episodes": 2, "teachers": dict.fromkeys(TASKS["env_kwargs"]["env_ids"], str(cartpole_teacher))}
    mtpd, mtdqn = read(tmp_path / "s.yml", {"mtpd": {"algo": "mtpd"}, "mtdqn": {"algo": "mtdqn"}}, named, **TASKS).cells
    assert len(describe_missing([mtpd])) == 2 and not describe_missing([mtdqn])
    pd, alone = read(tmp_path / "s.yml", {"pd": {"algo": "pd"}, "alone": ALONE}).cells
    assert describe_missing([pd]) == describe_missing([alone]) and "zoo:dqn/CartPole-v1" in describe_missing([alone])[0]


@pytest.mark.parametrize(
    ("algo", "env", "own", "expected"),
    [
        ("qpd", "CartPole-v1", {"learning_starts": 50}, ["ppo", "a2c", "trpo"]),
        ("qpd", "Pendulum-v1", {"learning_starts": 50}, ["sac", "tqc"]),
        ("ppd", "CartPole-v1", {}, ["ppo"]),
        ("pd", "CartPole-v1", {}, ["dqn", "qrdqn"]),
        ("rtpd", "CartPole-v1", {"students": None}, ["dqn"]),
    ],
)
def test_teachers_are_those_that_the_algorithm_searches(
    algo, env, own, expected, tmp_path, monkeypatch, cartpole_teacher
):
    """A dry run names the one that is preferred, and no other agent stands for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    evaluation = {"n_episodes": 2, "teacher": "zoo"}
    (cell,) = read(tmp_path / "s.yml", {"run": {"algo": algo, **own}}, evaluation, env=env).cells
    searched = rows.teacher_algorithms(cell)
    assert list(searched[: len(expected)]) == expected
    assert [text.split()[0] for text in describe_missing([cell])] == [f"zoo:{expected[0]}/{env}"]
    others = {"sac", "ars", "dqn", "td3"} - set(searched)
    for other in others:
        run = tmp_path / "rl-trained-agents" / other / f"{env}_1"
        run.mkdir(parents=True)
        (run / f"{env}.zip").write_bytes(cartpole_teacher.read_bytes())
    assert describe_missing([cell])
    # The agent that counts as 100% is searched among the same.
    with pytest.raises(AgentNotFoundError, match=re.escape(f"(algorithms {', '.join(searched)})")):
        load_references(cell, tmp_path)


def test_the_agent_of_a_cell_teaches_another(tmp_path):
    own = {"algo": "pd", "teacher": {"run": "first"}, "rollout_policy": "teacher", "policy_kwargs": {"net_arch": [4]}}
    # The student stands first, and waits.
    study = read(tmp_path / "s.yml", {"then": own, "first": ALONE})
    then, first = study.cells
    assert then.teacher_cell == first.key and references(study) == {"then": None, "first": None}
    assert not describe_missing(study.cells)
    folder = tmp_path / "out"
    assert not run_study(study, folder, run_here)
    manifest = manifest_of(folder, then)
    (agent,) = manifest.agents
    teacher = folder / "cells" / first.key / "rtpd" / "CartPole-v1_1" / "CartPole-v1.zip"
    assert Path(agent.source) == teacher and agent.sha256 == load_teacher(teacher).sha256
    found = {row.labels["run"]: row for row in collect(study, folder)}
    assert found["then"].teacher_mean == found["first"].mean and found["then"].percent_of_teacher is not None
    # Another seed has another teacher, and is a run of the same kind.
    assert found["then"].teacher_sha256 is None
    assert not find_replaced(folder, [manifest], study.cells)
    # Where the first fails, the second does, and says why.
    broken = read(tmp_path / "s.yml", {"then": own, "first": {**ALONE, "gamma": 5}})
    failures = run_study(broken, tmp_path / "broken", lambda jobs, _: ((key, "no") for key, _ in jobs))
    assert failures == {
        broken.cells[1].key: "no",
        broken.cells[0].key: f"there is no teacher, because its cell {broken.cells[1].key} failed",
    }


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"run": "firs"}, "names no other run of the grid.*run, seed"),
        ({"phase": "first"}, "names no other run"),
        ({"run": "then"}, "names no other run"),
        ({"run": "beside"}, "leaves several agents"),
        ({"run": "chain"}, "whose own teacher is a run of the grid"),
    ],
)
def test_cells_that_cannot_teach(teacher, message, tmp_path):
    runs = {
        "first": ALONE,
        "beside": {"algo": "rtpd", "eval_freq": 100},
        "chain": {"algo": "pd", "loss": "nll", "teacher": {"run": "first"}},
        "then": {"algo": "pd", "teacher": teacher},
    }
    with pytest.raises(StudyError, match=message):
        read(tmp_path / "s.yml", runs)


def test_the_zoos_agent_of_the_game_counts(tmp_path, monkeypatch, cartpole_teacher):
    run = tmp_path / "rl-trained-agents" / "dqn" / "CartPole-v1_1"
    run.mkdir(parents=True)
    (run / "CartPole-v1.zip").write_bytes(cartpole_teacher.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    pd = {"algo": "pd", "rollout_policy": "teacher", "policy_kwargs": {"net_arch": [4]}}
    study = read(tmp_path / "s.yml", {"pd": pd, "alone": ALONE})
    assert not run_study(study, tmp_path / "out", run_here)
    distilled, alone = collect(study, tmp_path / "out")
    assert alone.teacher_mean == distilled.teacher_mean and alone.percent_of_teacher is not None
    assert alone.teacher_sha256 == distilled.teacher_sha256
    assert [agent.setting for agent in manifest_of(tmp_path / "out", study.cells[1]).agents] == ["evaluation.teacher"]
    run.rename(run.with_name("gone"))
    with pytest.raises(ValueError, match=r"evaluation: \{teacher: PATH\}"):
        load_references(study.cells[1], tmp_path)
