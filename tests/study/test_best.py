"""The best of a run's evaluations, of students that the Zoo's evaluations do not reach."""

from pathlib import Path

import pytest
import torch as th
import yaml
from stable_baselines3 import DQN

from sb3_distill import MultiTaskDistillation, MultiTaskDQN, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.archive import read_archive
from sb3_distill.common.files import model_zip, run_folder
from sb3_distill.envs.multitask import tasks_of
from sb3_distill.evaluation.scoring import score_agent
from sb3_distill.evaluation.tasks import score_tasks
from sb3_distill.mtpd.callbacks import BestOfTasksCallback
from sb3_distill.results.curves import CURVES_FILE, curve_of, read_csv
from sb3_distill.results.row import parse_rows
from sb3_distill.results.statistics import GEOMETRIC_MEAN, geometric_mean
from sb3_distill.study.file import read_study
from sb3_distill.study.report import describe_study
from sb3_distill.study.run import collect, run_study
from tests.envs.tasks import make_env
from tests.mtpd.students import KWARGS
from tests.study.studies import run_here

IDS = ["CartPole-v1", "CartPole-v0"]
BUFFERS = {"learning_starts": 50, "buffer_size": 500, "learning_rate": 0.01}
SMALL = {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [4]}}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, str]:
    """They push the cart to where the pole leans, which is a little better than a random player."""
    model = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": []}, buffer_size=1, seed=0, device="cpu")
    model.q_net.q_net[0].weight.data = th.tensor([[0, 0, -1, -0.1], [0, 0, 1, 0.1]])
    model.q_net.q_net[0].bias.data.zero_()
    path = tmp_path_factory.mktemp("teachers") / "teacher.zip"
    model.save(path)
    return {name: str(path) for name in IDS}


def evaluations_of(callback: BestOfTasksCallback) -> dict[int, float]:
    """By steps, the geometric mean over the tasks."""
    percents: dict[int, list[float]] = {}
    for entry in callback.evaluations:
        percents.setdefault(entry["n_timesteps"], []).append(entry["percent"])
    return {steps: geometric_mean(own) for steps, own in percents.items()}


@pytest.mark.parametrize("cls", [MultiTaskDistillation, MultiTaskDQN])
def test_the_best_model_of_several_tasks(cls, teachers, tmp_path: Path):
    policy_kwargs = KWARGS["policy_kwargs"] if cls is MultiTaskDistillation else {}
    own = {"teachers": teachers, "n_eval_episodes": 0} if cls is MultiTaskDistillation else {}
    model = cls(
        "MultiTaskMlpPolicy", make_env(env_ids=IDS), policy_kwargs=policy_kwargs, **BUFFERS, **own, seed=0, device="cpu"
    )
    callback = BestOfTasksCallback(tmp_path / "run", 100, 3, teachers=teachers)
    model.learn(432, callback=callback)
    means = evaluations_of(callback)
    assert list(means) == [100, 200, 300, 400, 432] and len(set(means.values())) > 1
    best = cls.load(tmp_path / "run" / "best_model", device="cpu")
    assert best.num_timesteps == max(means, key=means.__getitem__)


def test_rows_of_all_students_are_of_their_best_models(teachers, tmp_path: Path):
    several = {
        "env": "MultiTask-v0",
        "env_kwargs": {"env_ids": IDS},
        **BUFFERS,
        "policy_kwargs": KWARGS["policy_kwargs"],
    }
    beside = {"env": "CartPole-v1", "students": {"small": SMALL, "other": {**SMALL, "loss": "nll"}}, **BUFFERS}
    runs = {
        "mtdqn": {"algo": "mtdqn", **several},
        "rtpd": {"algo": "rtpd", "eval_freq": 20, "n_eval_episodes": 2, "train_freq": 4, "gradient_steps": 1, **beside},
    }
    evaluation = {"n_episodes": 3, "select": "best", "eval_freq": 100, "eval_episodes": 2, "teachers": teachers}
    content = {"settings": {"n_timesteps": 400}, "grid": {"run": runs, "seed": [0]}, "evaluation": evaluation}
    (tmp_path / "s.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    study = read_study(tmp_path / "s.yml")
    assert not run_study(study, tmp_path / "out", run_here)
    rows = collect(study, tmp_path / "out")
    folders = {
        cell.algo: run_folder(tmp_path / "out" / "cells" / cell.key, cell.algo, cell.env) for cell in study.cells
    }
    scored = {row.task: row for row in rows if row.algo == "mtdqn"}
    assert list(scored) == [*IDS, GEOMETRIC_MEAN]
    best = MultiTaskDQN.load(folders["mtdqn"] / "best_model", device="cpu")
    assert (
        scored["CartPole-v1"].mean == score_tasks(tasks_of(make_env(env_ids=IDS)), best.policy, 3)["CartPole-v1"].mean
    )
    # Students and teacher, each at its best evaluation
    evaluations = read_csv(folders["rtpd"] / CURVES_FILE)
    steps = [entry["n_timesteps"] for entry in evaluations if entry["player"] == "teacher"]
    own = {row.player: row for row in rows if row.algo == "rtpd"}
    assert list(own) == ["small", "other"]
    zips = {name: folders["rtpd"] / f"students/{name}/pd/CartPole-v1_1/best_model.zip" for name in own}
    for name, path in {"teacher": folders["rtpd"] / "best_model.zip", **zips}.items():
        curve = list(curve_of(evaluations, name))
        assert len(steps) > 2 and read_archive(path).data["num_timesteps"] == steps[curve.index(max(curve))]
    for name, row in own.items():
        score, teacher = (
            score_agent(load_teacher(path, device="cpu"), "CartPole-v1", 3)
            for path in (zips[name], folders["rtpd"] / "best_model.zip")
        )
        assert row.returns == score.returns and row.teacher_mean == teacher.mean and row.percent_of_teacher is not None
    read = parse_rows((tmp_path / "out" / "results.json").read_text())
    assert all(row.conditions["select"] == "best" for row in read)
    assert "the best model of its evaluations" in describe_study(tmp_path / "out").legend


def test_an_evaluation_of_the_zoo_keeps_the_teacher_itself(tmp_path: Path, zoo):
    """Its best model is that of its own evaluations, which are others than the run's."""
    zoo(
        tmp_path, "train", "--algo", "rtpd", "--env", "CartPole-v1", "-n", "200", "--eval-freq", "150", "-f", "logs",
        "-params", f"students:{ {'small': SMALL} }", "eval_freq:20", "n_eval_episodes:1", "learning_starts:50",
        "train_freq:4", "gradient_steps:1",
    )  # fmt: skip
    run = run_folder(tmp_path / "logs", "rtpd", "CartPole-v1")
    assert RealTimeDistillDQN.load(run / "best_model").num_timesteps == 150
    assert (run / "students/small/pd/CartPole-v1_1/best_model.zip").is_file() and model_zip(
        run, "CartPole-v1"
    ).is_file()
