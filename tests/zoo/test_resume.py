"""``sb3-distill resume``: what a folder can be resumed from, and the command line that it holds."""

import re

import pytest
import yaml
from rl_zoo3.utils import StoreDict
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.cli import main
from sb3_distill.zoo.resume import command_line
from tests.helpers import REPOSITORY, run_python

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
    (settings / "config.yml").write_text(yaml.safe_dump({"policy": "MlpPolicy"}))
    return settings.parent


def test_the_command_line_is_that_of_the_run():
    words = command_line(ARGUMENTS)
    assert {"--algo=pd", "--env=CartPole-v1", "--n-timesteps=1000", "--eval-freq=-1", "--save-replay-buffer"} <= {
        *words
    }
    start = words.index("--gym-packages")
    assert words[start : start + 3] == ["--gym-packages", "one", "two"]
    # The hyperparameters are those of config.yml, and the folder is the run's.
    assert not [word for word in words if word.startswith(("--hyperparams", "--uuid", "--progress", "--trained-agent"))]
    # The Zoo reads the values back as they were.
    start = words.index("--env-kwargs")
    values = type("Namespace", (), {})()
    StoreDict(["--env-kwargs"], "env_kwargs")(None, values, words[start + 1 : start + 3], None)
    assert values.env_kwargs == ARGUMENTS["env_kwargs"]


def test_it_says_what_a_folder_can_be_resumed_from(run_folder, tmp_path, capsys):
    assert main(["resume", str(run_folder), "--dry-run"]) == 0
    assert "no checkpoint was saved: the run begins anew, at step 0" in capsys.readouterr().out
    assert main(["resume", str(tmp_path), "--dry-run"]) == 2
    assert "is no run folder of the Zoo's train" in capsys.readouterr().err
    (run_folder / "run_state.zip").write_bytes(b"damaged")
    assert main(["resume", str(run_folder), "--dry-run"]) == 2
    assert "run_state.zip cannot be read as a state file" in capsys.readouterr().err
    (run_folder / "CartPole-v1" / "args.yml").write_text(yaml.safe_dump({**ARGUMENTS, "algo": "ppo"}))
    assert main(["resume", str(run_folder), "--dry-run"]) == 2
    assert "only runs of pd, rtpd, qpd, mtpd, mtdqn can be resumed" in " ".join(capsys.readouterr().err.split())


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
    params = ("normalize:True", "n_teacher_episodes:0", "learning_starts:100", "teacher:'teacher.zip'")
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
