"""What the run of a cell would refuse when it begins is said before anything runs, in the run's words."""

import sys
from pathlib import Path

import pytest
from stable_baselines3 import PPO

from sb3_distill.study.cell import Cell, StudyError
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from sb3_distill.study.job import train_arguments
from tests.helpers import status_of
from tests.study.studies import write

SHARES = {"algo": "pd", "n_envs": 1, "rollout_policy": "linear", "students": {"a": "MlpPolicy"}}
NORMALIZED = {"algo": "pd", "rollout_policy": "teacher", "normalize": True}
LATE = {"algo": "qpd", "n_envs": 1, "learning_starts": 600}
TWO = {"n_envs": 2, "students": {"a": {"weight_bits": 4}}}


@pytest.mark.parametrize(
    ("settings", "record", "message"),
    [
        (SHARES, False, "there are 2 students and n_envs=1: make at least 2 environments"),
        ({"algo": "pd", "n_envs": 2, "train_freq": [1, "episode"]}, False, "train_freq counts episodes"),
        ({"algo": "pd", "train_freq": 0}, False, "train_freq must be at least one step or episode"),
        (NORMALIZED, True, "recording= is the teacher's own play"),
        (LATE, False, "learning_starts=600 leaves no update in 600 timesteps"),
        # Of the first student, or of another one
        ({**LATE, **TWO, "weight_bits": None, "activation_bits": None}, False, "learning_starts=600 leaves no update"),
        (
            {"algo": "ppd", "n_envs": 1, "n_steps": 600, "weight_bits": 4},
            False,
            "total_timesteps=600 makes 1 rollout of",
        ),
        ({"algo": "qpd", "full_precision_fraction": 0.9}, False, "The schedule never reaches the final precision"),
        ({"algo": "qpd", "weight_bits": 99}, False, "weight_bits"),
        ({"algo": "qpd", "n_envs": 2, "students": {"a": {"weight_bits": 99}}}, False, "students['a']: weight_bits"),
    ],
)
def test_the_study_says_what_the_run_would(
    settings: dict, record: bool, message: str, tmp_path: Path, ppo_teacher: PPO, monkeypatch, capsys
) -> None:
    teacher = tmp_path / "CartPole-v1.zip"
    ppo_teacher.save(teacher)
    settings = {**settings, "env": "CartPole-v1", "n_timesteps": 600, "teacher": str(teacher)}
    path = write(tmp_path / "s.yml", settings=settings, grid={"seed": [0]}, record=record, published=None)
    assert main([str(path), "-o", str(tmp_path / "out"), "--dry-run"]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"sb3-distill study: {path}: seed=0: ") and message in said
    assert main([str(path), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.strip() == said and not (tmp_path / "out").exists()

    names = ("algo", "env", "n_timesteps")
    hyperparams = {name: value for name, value in settings.items() if name not in names}
    cell = Cell(settings["algo"], "CartPole-v1", 0, 600, hyperparams)
    # The command sets it.
    monkeypatch.setattr(sys, "argv", sys.argv)
    recording = tmp_path / "recording" if record else None
    assert status_of(["zoo", "train", *train_arguments(cell, tmp_path / "logs", recording)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {said.partition('seed=0: ')[2]}")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_envs", "many", "n_envs must be a whole number of at least 1, not 'many'."),
        ("train_freq", "daily", "train_freq must be a whole number of at least 1, not 'daily'."),
        ("batch_size", None, "batch_size must be a whole number of at least 1, not None."),
        ("learning_starts", -1, "learning_starts must be a whole number of at least 0, not -1."),
        ("train_freq", [1], r"train_freq must be a number of steps, or such as \[1, episode\], not \[1\]."),
    ],
)
def test_numbers_that_are_none(name: str, value, message: str, tmp_path: Path) -> None:
    settings = {"algo": "pd", "env": "CartPole-v1", name: value}
    path = write(tmp_path / "s.yml", settings=settings, grid={"seed": [0]}, record=False, published=None)
    with pytest.raises(StudyError, match=f"seed=0: {message}"):
        read_study(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_freq": 500}, r"n_timesteps=600 makes 126 updates, with eval_freq=500 updates"),
        ({"eval_freq": -1}, "eval_freq=-1 updates"),
        ({"eval_freq": 50, "n_eval_episodes": 0}, "n_eval_episodes=0"),
    ],
)
def test_students_in_real_time_need_an_evaluation(settings: dict, message: str, tmp_path: Path) -> None:
    """Their rows are those of evaluations; without students, the agent is scored as any other."""
    common = {
        "algo": "rtpd",
        "env": "CartPole-v1",
        "n_timesteps": 600,
        "learning_starts": 100,
        "students": ["MlpPolicy"],
    }
    common |= {"train_freq": 4, "gradient_steps": 1, "n_envs": 1}
    study = {"grid": {"seed": [0]}, "record": False, "published": None, "evaluation": None}
    path = write(tmp_path / "s.yml", settings={**common, **settings}, **study)
    with pytest.raises(StudyError, match=rf"seed=0: The run has no evaluation to score its students by: .*{message}"):
        read_study(path)
    for known in ({"eval_freq": 125}, {**settings, "students": None}):
        read_study(write(tmp_path / "s.yml", settings={**common, **known}, **study))


def test_students_that_share_play_are_counted(tmp_path: Path) -> None:
    settings = {"algo": "pd", "env": "CartPole-v1", "rollout_policy": "linear", "n_envs": 1}
    losses = {"grid": {"loss": ["kl", "nll"], "seed": [0]}, "share_play": "loss", "record": False, "published": None}
    path = write(tmp_path / "s.yml", settings=settings, **losses)
    with pytest.raises(StudyError, match=r"loss=kl\+nll seed=0: .* there are 2 students and n_envs=1"):
        read_study(path)
    # One environment is enough where the teacher plays.
    path = write(tmp_path / "s.yml", settings={**settings, "rollout_policy": "teacher"}, **losses)
    assert len(read_study(path).cells) == 1
