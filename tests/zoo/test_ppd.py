"""The Zoo's commands with ``ppd``, and what our own commands make of its student."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO

from sb3_distill import ProximalPolicyDistillation, load_teacher
from sb3_distill.cli import main
from sb3_distill.state.file import read_state

STUDENT = Path("logs/ppd/CartPole-v1_1/CartPole-v1.zip")


@pytest.fixture
def train(zoo: Callable[..., str], tmp_path: Path, ppo_teacher: PPO) -> Callable[..., str]:
    ppo_teacher.save(tmp_path / "teacher.zip")
    settings = ["teacher:'teacher.zip'", "n_teacher_episodes:0", "distill_coef:'lin_2.0'", "n_epochs:1"]
    command = ["--algo", "ppd", "--env", "CartPole-v1", "--eval-freq", -1, "--seed", 1]
    return lambda *arguments: zoo(tmp_path, "train", *command, *arguments, "-params", *settings)


def test_train_and_all_that_follows(
    train: Callable[..., str], zoo: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # More than SB3 counts as whole: rollouts have 256 steps.
    output = train("-n", 512, "--save-freq", 256)
    assert "hyperparams/ppd.yml" in output and "('distill_coef', 'lin_2.0')" in output
    student = ProximalPolicyDistillation.load(tmp_path / STUDENT)
    assert student.num_timesteps == 512 and student._distill_schedule(0.5) == pytest.approx(1.0)
    assert len(list((tmp_path / STUDENT).parent.glob("rl_model_*_steps.zip"))) == 2

    zoo(tmp_path, "enjoy", "--algo", "ppd", "--env", "CartPole-v1", "-f", "logs", "--no-render", "-n", 50)
    train("-n", 256, "-i", STUDENT)
    resumed = ProximalPolicyDistillation.load(tmp_path / "logs/ppd/CartPole-v1_2/CartPole-v1.zip")
    assert resumed._n_updates == student._n_updates + 1

    capsys.readouterr()
    assert main(["evaluate", str(STUDENT.parent), "--teacher", "teacher.zip", "-n", "2"]) == 0
    assert "logs/ppd/CartPole-v1_1" in capsys.readouterr().out
    assert main(["export", str(STUDENT.parent), "--format", "sb3", "-o", "stock"]) == 0
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    stock = PPO.load(tmp_path / "stock" / "CartPole-v1", device="cpu")
    assert np.array_equal(stock.predict(obs, deterministic=True)[0], student.predict(obs, deterministic=True)[0])


def test_a_stopped_run_goes_on(train: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(folder: Path) -> dict:
        return load_teacher(folder / "CartPole-v1.zip", device="cpu").policy.state_dict()

    folder = tmp_path / STUDENT.parent
    train("-n", 1024, "--save-freq", 256)
    update = ProximalPolicyDistillation.train

    def stop(self: ProximalPolicyDistillation) -> None:
        if self.num_timesteps == 768:
            raise SystemError("stopped")
        update(self)

    monkeypatch.setattr(ProximalPolicyDistillation, "train", stop)
    with pytest.raises(SystemError):
        train("-n", 1024, "--save-freq", 256)
    monkeypatch.setattr(ProximalPolicyDistillation, "train", update)
    stopped = folder.with_name("CartPole-v1_2")
    assert read_state(stopped / "run_state.zip")["attributes"]["num_timesteps"] == 512
    assert main(["resume", str(stopped)]) == 0
    assert {k: v.tolist() for k, v in weights(stopped).items()} == {k: v.tolist() for k, v in weights(folder).items()}


def test_hyperparameters_are_searched(train: Callable[..., str]) -> None:
    search = ["-optimize", "--n-trials", 1, "--n-evaluations", 1, "--eval-episodes", 1, "--no-optim-plots"]
    output = train("-n", 256, *search)
    assert "Number of finished trials:  1" in output and "distill_coef: " in output
