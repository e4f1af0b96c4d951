"""``sb3-distill resume``: what a folder can be resumed from, and the command line that it holds."""

import re

import numpy as np
import pytest
import yaml
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.agents.archive import FORMAT
from sb3_distill.cli import main
from sb3_distill.resume.resume import command_line
from sb3_distill.state.file import write_state
from tests.helpers import REPOSITORY, content_of, run_python

ARGUMENTS = {
    "algo": "pd",
    "env": "CartPole-v1",
    "n_timesteps": 1_000,
    "seed": 3,
    "eval_freq": -1,
    "progress": False,
    "save_replay_buffer": True,
    "gym_packages": ["one", "two"],
    "env_kwargs": {"render_mode": None, "sizes": [1, 2]},
    "hyperparams": {"temperature": 0.1},
    "conf_file": None,
    "uuid": True,
    "trained_agent": "",
}


@pytest.fixture
def run_folder(tmp_path):
    settings = tmp_path / "pd" / "CartPole-v1_1" / "CartPole-v1"
    settings.mkdir(parents=True)
    (settings / "args.yml").write_text(yaml.safe_dump(ARGUMENTS))
    (settings / "config.yml").write_text(yaml.safe_dump({"policy": "MlpPolicy", "n_timesteps": 5}))
    return settings.parent


def test_the_command_line_is_that_of_the_run():
    words = command_line(ARGUMENTS)
    assert {"--algo=pd", "--env=CartPole-v1", "--n-timesteps=1000", "--eval-freq=-1", "--save-replay-buffer"} <= {
        *words
    }
    start = words.index("--gym-packages")
    assert words[start : start + 3] == ["--gym-packages", "one", "two"]
    # The hyperparameters are those of config.yml, the folder is the run's, and what the Zoo would evaluate is no text.
    left_out = ("--hyperparams", "--uuid", "--progress", "--trained-agent", "--env-kwargs")
    assert not [word for word in words if word.startswith(left_out)]


def test_it_says_what_a_folder_can_be_resumed_from(run_folder, tmp_path, capsys):
    assert main(["resume", str(run_folder), "--dry-run"]) == 0
    assert "stopped before the first one was written: the run begins anew, at step 0" in capsys.readouterr().out
    assert main(["resume", str(tmp_path), "--dry-run"]) == 1
    assert "is no run folder of the Zoo's train" in capsys.readouterr().err
    (run_folder / "run_state.zip").write_bytes(b"damaged")
    assert main(["resume", str(run_folder), "--dry-run"]) == 1
    assert "run_state.zip cannot be read as a state file" in capsys.readouterr().err
    (run_folder / "CartPole-v1" / "args.yml").write_text(yaml.safe_dump({**ARGUMENTS, "algo": "ppo"}))
    assert main(["resume", str(run_folder), "--dry-run"]) == 1
    assert "only runs of pd, rtpd, qpd, ppd, mtpd, mtdqn can be resumed" in " ".join(capsys.readouterr().err.split())


STATE = {"attributes": {"num_timesteps": 5}, "total_timesteps": 10}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "is not the state of a run: it says step None of None"),
        ({**STATE, "attributes": {}}, "says step None of 10"),
        ({**STATE, "total_timesteps": "many"}, "of 'many'"),
        ({**STATE, "monitor_files": [1]}, "monitor_files must be a mapping"),
        ({**STATE, "monitor_files": {"../x.monitor.csv": 0}}, "It must be the name of a monitor.csv in this folder"),
        ({**STATE, "monitor_files": {"CartPole-v1/args.yml": 0}}, "It must be the name of a monitor.csv"),
        ({**STATE, "monitor_files": {"link.monitor.csv": 0}}, "It must be the name of a monitor.csv"),
        ({**STATE, "monitor_files": {"0.monitor.csv": -1}}, "It must be the name of a monitor.csv"),
    ],
)
def test_states_that_are_none_of_a_run(state, message, run_folder, capsys):
    (run_folder / "link.monitor.csv").symlink_to(run_folder / "CartPole-v1" / "args.yml")
    write_state(run_folder / "run_state.zip", state)
    before = content_of(run_folder)
    assert main(["resume", str(run_folder)]) == 1
    assert message in capsys.readouterr().err
    assert content_of(run_folder) == before


def test_a_state_without_monitor_files_is_one(run_folder, capsys):
    # As ``save_run_state`` writes it after ``learn``. Of the rest, which can be large, nothing is read.
    write_state(run_folder / "run_state.zip", {**STATE, "replay_buffer": np.zeros(100)})
    path = run_folder / "run_state.zip"
    path.write_bytes(path.read_bytes().replace(bytes(800), bytes([1]) * 800))
    assert main(["resume", str(run_folder), "--dry-run"]) == 0
    assert "goes on at step 5 of 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nothing", "does not exist. Name the folder of one run"),
        ("pd/CartPole-v1_1/CartPole-v1/args.yml", "is a file. Name the folder"),
        ("empty", "not 0. Name the folder of one run, such as logs/pd/CartPole-v1_1"),
        ("pd", "not 0. Name one of the runs in it: "),
        (".", "not 0. Name one of the runs in it: "),
        ("study", "is the folder of a study: run its `sb3-distill study` command again"),
    ],
)
def test_what_is_no_run_folder(place, message, run_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "study" / "cells").mkdir(parents=True)
    before = content_of(tmp_path)
    for argument in ([], ["--dry-run"]):
        assert main(["resume", str(tmp_path / place), *argument]) == 1
        error = capsys.readouterr().err
        assert message in error
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("name", ["rl_model_900_steps.zip", "CartPole-v1.zip"])
def test_saved_models_without_a_state_are_not_thrown_away(name, run_folder, capsys):
    model = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, buffer_size=1)
    model._total_timesteps = 1000
    model.save(run_folder / name)
    model.save(run_folder / "rl_model_10_steps.zip")
    assert main(["resume", str(run_folder)]) == 1
    error = capsys.readouterr().err
    assert "an older version has trained here" in error
    assert f"`-i {run_folder / name}`" in error.replace("/private", "")


def test_a_run_that_was_stopped_before_its_first_state_begins_anew(run_folder, capsys):
    model = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, buffer_size=1)
    model.save(run_folder / "rl_model_10_steps.zip")
    assert main(["resume", str(run_folder), "--dry-run"]) == 1
    model.sb3_distill_format = FORMAT
    model.save(run_folder / "rl_model_10_steps.zip")
    assert main(["resume", str(run_folder), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "begins anew" in said and "rl_model_10_steps.zip will come again" in said


@pytest.mark.parametrize(("save_freq", "status"), [(-1, 1), (1_000, 0)])
def test_a_best_model_is_kept_where_no_state_would_come(save_freq, status, run_folder, capsys):
    """With checkpoints, beginning anew finds the same best model again."""
    (run_folder / "CartPole-v1" / "args.yml").write_text(yaml.safe_dump({**ARGUMENTS, "save_freq": save_freq}))
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, buffer_size=1).save(run_folder / "best_model.zip")
    assert main(["resume", str(run_folder), "--dry-run"]) == status
    assert ("best_model.zip" in capsys.readouterr().err) == bool(status)


def test_a_last_model_that_says_no_steps_is_no_complete_run(run_folder, capsys):
    model = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, buffer_size=1)
    model.num_timesteps = model._total_timesteps = None
    model.save(run_folder / "CartPole-v1.zip")
    assert main(["resume", str(run_folder), "--dry-run"]) == 1
    assert "has saved models, but no run_state.zip" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("policy_kwargs:\n  activation_fn: !!python/name:my.Act ''", "line 2, .*activation_fn: .*my.Act is not known"),
        ("learning_rate: !!python/object/apply:my.Schedule [1]", "line 1, .*learning_rate: .* which is not read"),
        ("policy: MlpPolicy", "has no n_timesteps"),
    ],
)
def test_settings_that_are_not_read(config, message, run_folder, capsys):
    (run_folder / "CartPole-v1" / "config.yml").write_text(config)
    assert main(["resume", str(run_folder)]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert ("load_run_state" in error) == ("python" in config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "x"}, "holds no command line of the Zoo's train: argument --seed: invalid int value: 'x'"),
        ({"trained_agent": "gone.zip"}, "The run was started from gone.zip, which is no longer there"),
        ({"env": "Nowhere-v3"}, "Nowhere-v3 not found in gym registry"),
        ({"gym_packages": ["no_such_package"]}, "No module named 'no_such_package'"),
        ({"n_timesteps": 100}, "gone/teacher.zip"),
    ],
)
def test_what_the_command_refuses_is_one_sentence(change, message, run_folder, capsys):
    arguments = {"algo": "pd", "env": "CartPole-v1", "n_timesteps": 100, "seed": 1, "eval_freq": -1, **change}
    (run_folder / "CartPole-v1" / "args.yml").write_text(yaml.safe_dump(arguments))
    config = {"policy": "MlpPolicy", "n_timesteps": 100, "teacher": "gone/teacher.zip"}
    (run_folder / "CartPole-v1" / "config.yml").write_text(yaml.safe_dump(config))
    assert main(["resume", str(run_folder)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("sb3-distill resume: ") and error.count("\n") == 1


@pytest.mark.ci
def test_ten_kills(tmp_path):
    """In a process of its own, because it forks."""
    result = run_python(
        REPOSITORY, "-m", "benchmarks.crash", "--kills", "10", "--per-run", "5", "--jobs", "pd", "save loop"
    )
    assert re.search(r"^kills +10 \(", result.stdout, re.MULTILINE)
    for line in ("broken files", "lost checkpoints", "processes left behind"):
        assert re.search(rf"^{line} +0 *$", result.stdout, re.MULTILINE)
    assert re.search(r"^complete, with the same rows (\d+) of \1 *$", result.stdout, re.MULTILINE)


def test_the_state_stays_until_the_zoo_has_saved_everything(zoo, tmp_path, monkeypatch):
    """The statistics are the last file that the Zoo writes."""
    command = ("--algo", "pd", "--env", "CartPole-v1", "-n", 200, "--save-freq", 50, "--eval-freq", -1, "-f", "logs")
    params = ("n_envs:1", "normalize:True", "n_teacher_episodes:0", "learning_starts:100", "teacher:'teacher.zip'")
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, seed=0).save(tmp_path / "teacher")
    with monkeypatch.context() as context:
        context.setattr(VecNormalize, "save", full)
        with pytest.raises(OSError, match="full"):
            zoo(tmp_path, "train", *command, "-params", *params)
    folder = tmp_path / "logs" / "pd" / "CartPole-v1_1"
    assert (folder / "CartPole-v1.zip").exists() and not (folder / "CartPole-v1" / "vecnormalize.pkl").exists()
    assert main(["resume", str(folder)]) == 0
    assert (folder / "CartPole-v1" / "vecnormalize.pkl").exists() and not (folder / "run_state.zip").exists()


def full(self, path):
    raise OSError("full")
