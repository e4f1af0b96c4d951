"""Runs of the Zoo that are stopped and go on, from end to end, in this process."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from filelock import FileLock, Timeout
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import load_results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_distill.cli import main
from sb3_distill.pd import PolicyDistillation
from tests.helpers import same

RUN = Path("logs/pd/CartPole-v1_1")


class Interrupted(BaseCallback):
    """A Ctrl-C at a step; looks whether the folder is locked when all is over."""

    at: ClassVar[int] = 0
    folder: ClassVar[Path | None] = None
    is_locked: ClassVar[bool] = False

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            raise KeyboardInterrupt
        return True

    def _on_training_end(self) -> None:
        if self.folder is not None:
            try:
                FileLock(self.folder / ".lock").acquire(timeout=0).__exit__(None, None, None)
                Interrupted.is_locked = False
            except Timeout:
                Interrupted.is_locked = True


@pytest.fixture
def train(zoo: Callable[..., str], cartpole_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(folder: Path, *extra: str, stop: int = 0, params: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(Interrupted, "at", stop)
        folder.mkdir(exist_ok=True)
        arguments = ["--algo", "pd", "--env", "CartPole-v1", "--seed", "1", "-n", "400", "--eval-freq", "-1"]
        settings = ["n_envs:1", f"teacher:'{cartpole_teacher}'", "n_teacher_episodes:0", "learning_starts:50"]
        callback = f"callback:'{__name__}.Interrupted'"
        zoo(folder, "train", *arguments, "--save-freq", "150", *extra, "-params", *settings, callback, *params)
        monkeypatch.setattr(Interrupted, "at", 0)

    return run


def student(folder: Path) -> PolicyDistillation:
    return PolicyDistillation.load(folder / RUN / "CartPole-v1.zip", device="cpu")


def test_tracked_runs_tuples_and_classes(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun = []
    config = SimpleNamespace(setdefaults=lambda _: None)
    wandb = SimpleNamespace(init=lambda **kwargs: begun.append(kwargs) or SimpleNamespace(config=config))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    kwargs = "policy_kwargs:dict(net_arch=[8], activation_fn=nn.Tanh, optimizer_class=th.optim.AdamW)"
    for name, stop in (("whole", 0), ("stopped", 200)):
        train(tmp_path / name, "--track", stop=stop, params=("train_freq:(4, 'step')", kwargs))
    monkeypatch.setattr(Interrupted, "folder", tmp_path / "stopped" / RUN)
    assert main(["resume", str(tmp_path / "stopped" / RUN)]) == 0
    assert Interrupted.is_locked
    whole, resumed = student(tmp_path / "whole"), student(tmp_path / "stopped")
    assert same(whole.policy, resumed.policy) and whole.num_timesteps == resumed.num_timesteps
    assert len(begun) == 3 and begun[0]["config"]["seed"] == begun[2]["config"]["seed"] == 1
    # The name has the time in it.
    assert len(list(tmp_path.glob("stopped/runs/*/CartPole-v1/*"))) == 1
    columns = ["r", "l"]
    assert load_results(str(tmp_path / "whole" / RUN))[columns].equals(
        load_results(str(tmp_path / "stopped" / RUN))[columns]
    )


def test_files_that_were_changed_since_the_stop(train, tmp_path: Path, capsys):
    train(tmp_path / "a", "-tb", "tb", "--log-interval", "1", stop=370)
    folder = tmp_path / "a" / RUN
    states = {"kept": folder, "shorter": tmp_path / "b" / RUN, "gone": tmp_path / "c" / RUN}
    for copy in list(states.values())[1:]:
        shutil.copytree(folder, copy)
    # Another run, in a newer folder of TensorBoard
    train(tmp_path / "a", "-tb", "tb", stop=30)
    newer = tmp_path / "a/tb/CartPole-v1/PD_2"
    before = sorted(path.name for path in newer.iterdir())

    assert main(["resume", str(folder)]) == 0
    assert sorted(path.name for path in newer.iterdir()) == before
    events = EventAccumulator(str(tmp_path / "a/tb/CartPole-v1/PD_1")).Reload().Scalars("rollout/ep_len_mean")
    steps = [event.step for event in events]
    assert steps == sorted(set(steps)) and steps[0] < 300 < steps[-1]

    rows = load_results(str(folder))
    lines = (folder / "0.monitor.csv").read_bytes().splitlines(keepends=True)
    monitor = states["shorter"] / "0.monitor.csv"
    monitor.write_bytes(b"".join(lines[:4]) + lines[4][:3])
    with pytest.warns(UserWarning, match="shorter than at the checkpoint: rows of it are lost"):
        assert main(["resume", str(states["shorter"])]) == 0
    assert monitor.read_bytes().startswith(b"".join(lines[:4])) and bytes(1) not in monitor.read_bytes()
    after = load_results(str(monitor.parent))
    assert 2 < len(after) < len(rows) and list(after["l"])[2:] == list(rows["l"])[-(len(after) - 2) :]

    (states["gone"] / "0.monitor.csv").unlink()
    with pytest.warns(UserWarning, match="shorter than at the checkpoint"):
        assert main(["resume", str(states["gone"])]) == 0
    assert list(load_results(str(states["gone"]))["l"]) == list(after["l"])[2:]


def test_bugs_keep_their_traceback(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tmp_path / "a", stop=200)

    def fails(self: Interrupted) -> bool:
        raise ValueError("a fault")

    monkeypatch.setattr(Interrupted, "_on_step", fails)
    with pytest.raises(ValueError, match="a fault"):
        main(["resume", str(tmp_path / "a" / RUN)])


def test_a_run_in_use_is_left_alone(train, tmp_path: Path, capsys):
    train(tmp_path / "a", stop=200)
    folder = tmp_path / "a" / RUN
    monitor = (folder / "0.monitor.csv").read_bytes()
    with FileLock(folder / ".lock"):
        assert main(["resume", str(folder)]) == 1
    assert "is in use" in capsys.readouterr().err and (folder / "0.monitor.csv").read_bytes() == monitor


@pytest.mark.parametrize("logs", [".", "logs", "some/logs"])
def test_relative_paths_are_those_of_the_start(logs: str, train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tmp_path / "a", "-f", logs, stop=200)
    monkeypatch.chdir(tmp_path)
    assert main(["resume", f"a/{logs}/pd/CartPole-v1_1"]) == 0
    assert Path.cwd() == tmp_path / "a"
