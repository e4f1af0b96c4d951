import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO

from sb3_distill.cli import main
from sb3_distill.envs import imports
from tests.helpers import REPOSITORY

# The hub's client reads it once. Without it, every test that looks for a teacher waits for a network first.
os.environ["HF_HUB_OFFLINE"] = "1"
# Networks this small lose time to a second thread, and much of it where others use the machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def trusted_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test trusts, no other test does."""
    for name in ("_NAMED", "_TRUSTED"):
        monkeypatch.setattr(imports, name, set(getattr(imports, name)))


@pytest.fixture(scope="session")
def cartpole_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DQN agent that has seen little of CartPole: enough where only its answers matter, not how good they are."""
    path = tmp_path_factory.mktemp("teacher") / "CartPole-v1.zip"
    DQN("MlpPolicy", "CartPole-v1", learning_starts=100, policy_kwargs={"net_arch": [32]}, seed=0).learn(500).save(path)
    return path


@pytest.fixture(scope="session")
def ppo_teacher() -> PPO:
    """An agent that has learned nothing: actor and critic for CartPole."""
    return PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=1, device="cpu")


@pytest.fixture(scope="session")
def gaussian_teacher() -> A2C:
    """An agent that has learned nothing: a Gaussian and a critic for Pendulum."""
    model = A2C("MlpPolicy", "Pendulum-v1", seed=1, device="cpu")
    with torch.no_grad():
        model.policy.log_std.fill_(-0.7)
    return model


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git has or would take: no build folder can fill a gap."""
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout")
    folder = tmp_path_factory.mktemp("checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split("\0"):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as for an upload: the source distribution first, the wheel from that."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(checkout)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command of the Zoo in a folder, but in this process, and returns what it prints."""
    # The command sets it.
    monkeypatch.setattr(sys, "argv", sys.argv)

    def run(folder: Path, command: str, *arguments: object) -> str:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        assert main(["zoo", command, *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run
