import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO

# Networks this small lose time to a second thread, and much of it where others use the machine.
torch.set_num_threads(1)


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


def run_python(
    folder: Path, *arguments: str | Path, python: str | Path = sys.executable, status: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python of its own in a folder, offline, and without what this one was told by its environment."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SB3_DISTILL"))}
    # One thread: students this small lose time to a second one
    ours = {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "SDL_VIDEODRIVER": "dummy",
        "MPLBACKEND": "agg",
        "COLUMNS": "200",
    }
    result = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env={**inherited, **ours, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == status, f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result
