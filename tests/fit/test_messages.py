"""What is said of logs that cannot be used, before anything is trained."""

import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO

from sb3_distill.cli import main
from sb3_distill.fit.fit import fit
from sb3_distill.fit.log import LogError, read_log

SPACE = spaces.Box(-np.inf, np.inf, (4,))


@pytest.mark.parametrize("name", ["log.npy", "log.csv", "empty.npz", "cut.npz"])
def test_files_that_are_no_npz(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "log.npy":
        np.save(path, np.zeros((5, 4)))
    else:
        np.savez(tmp_path / "log.npz", observations=np.zeros((5, 4)))
        whole = (tmp_path / "log.npz").read_bytes()
        path.write_bytes({"log.csv": b"x,y\n0,1\n", "empty.npz": b"", "cut.npz": whole[: len(whole) // 2]}[name])
    said = rf"{name} cannot be used: it is no \.npz, .* or a damaged one: write one with numpy\.savez\('log\.npz', obs"
    with pytest.raises(LogError, match=said):
        read_log(path, SPACE)


def test_a_dataset_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(LogError, match=r"no Minari dataset of this name on this machine: minari download D4RL/door-v2"):
        read_log("D4RL/door-v2", SPACE)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(LogError, match=r"no such file or folder\. If it is a Minari dataset: .* pip install 'sb3-dis"):
        read_log("D4RL/door-v2", SPACE)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_something_must_be_held_out(
    share: float, ppo_teacher: PPO, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.npz").touch()
    with pytest.raises(ValueError, match=rf"held_out \(--held-out\) must be above 0 and below 1, not {share}: the stu"):
        fit(tmp_path / "log.npz", ppo_teacher, held_out=share)
    # Before the teacher is read
    command = ["fit", str(tmp_path / "log.npz"), "--teacher", "none.zip", "-o", str(tmp_path / "student.zip")]
    assert main([*command, "--held-out", str(share)]) == 1
    assert "At least one is held out, so take a small share" in capsys.readouterr().err
