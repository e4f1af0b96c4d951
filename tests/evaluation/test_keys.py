"""Students that see other keys than their teacher, after the training: the Zoo's commands, scores, exports, studies."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sb3_distill import load_teacher
from sb3_distill.buffers.recordings import Recording
from sb3_distill.cli import main
from sb3_distill.export.bench import mean_return, open_file, read_description
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import manifest_of
from sb3_distill.study.run import run_study
from tests.study.studies import CARTPOLE, run_here, write

WRAPPERS = {
    "positions": {"sb3_distill.StackedEntries": {"entries": [0, 2]}},
    "pixels": {"sb3_distill.RenderedFrames": {"size": 36, "n_stack": 2}},
}


@pytest.fixture
def run(zoo: Callable[..., str], tmp_path: Path, cartpole_teacher: Path) -> Callable[..., Path]:
    """Trains a student with the Zoo's command, and returns its run folder."""

    def train(key: str, *params: str) -> Path:
        student = [f"env_wrapper:{WRAPPERS[key]}", "teacher_keys:'state'", f"student_keys:'{key}'", *params]
        quick = ["n_envs:2", f"teacher:'{cartpole_teacher}'", "n_teacher_episodes:1", "learning_starts:50"]
        options = ["-n", "120", "--eval-freq", "60", "--eval-episodes", "1", "--save-freq", "40", "--seed", "1"]
        zoo(tmp_path, "train", "--algo", "pd", "--env", "CartPole-v1", *options, "-params", *student, *quick)
        return tmp_path / "logs/pd/CartPole-v1_1"

    return train


def test_a_student_of_positions(
    run: Callable[..., Path], zoo: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("positions")
    zoo(tmp_path, "enjoy", "--algo", "pd", "--env", "CartPole-v1", "-f", "logs", "-n", 20, "--no-render")
    assert main(["evaluate", str(folder), "-n", "2", "--json"]) == 0
    teacher, student = json.loads(capsys.readouterr().out)["agents"]
    assert student["teacher_sha256"] == teacher["agent_sha256"] and student["percent_of_teacher"] is not None
    assert main(["export", str(folder), "-o", str(tmp_path / "out"), "--n-observations", "50"]) == 0
    exported = read_description(tmp_path / "out")
    assert exported.observation.shape == [8]
    assert mean_return(open_file(tmp_path / "out/policy.onnx"), exported, 2) == student["mean"]
    # The student goes on from its newest zip.
    last = folder / "CartPole-v1.zip"
    quick = ["student_keys:'positions'", "teacher_keys:'state'", f"env_wrapper:{WRAPPERS['positions']}"]
    quick += ["n_envs:2", "n_teacher_episodes:0"]
    options = ["-n", "60", "--eval-freq", "-1", "-i", last]
    zoo(tmp_path, "train", "--algo", "pd", "--env", "CartPole-v1", *options, "-params", *quick)
    assert load_teacher(tmp_path / "logs/pd/CartPole-v1_2", device="cpu").observation_space.shape == (8,)


def test_a_student_of_pictures(run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("pixels", "policy:'CnnPolicy'", "policy_kwargs:{'features_extractor_kwargs': {'features_dim': 8}}")
    assert load_teacher(folder, device="cpu").observation_space.shape == (2, 36, 36)
    assert main(["evaluate", str(folder), "-n", "1"]) == 0
    assert "pd/CartPole-v1_1" in capsys.readouterr().out


def test_an_agent_without_its_environment_is_told_so(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("positions")
    (folder / "CartPole-v1/config.yml").write_text("policy: MlpPolicy\n")
    assert main(["evaluate", str(folder), "-n", "1"]) == 1
    said = capsys.readouterr().err
    assert "cannot play CartPole-v1: student_keys names keys of Dict observations" in said
    assert "name the folder, or an environment that is registered with its wrappers (--env" in said


def test_a_zip_that_says_nonsense(cartpole_teacher: Path, run: Callable[..., Path], tmp_path: Path) -> None:
    source, damaged = run("positions") / "CartPole-v1.zip", tmp_path / "damaged.zip"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                content = json.dumps({**json.loads(content), "student_keys": {"a": 1}}).encode()
            new.writestr(name, content)
    with pytest.raises(ValueError, match="student_keys must be a key of the observations or a list of keys"):
        load_teacher(damaged, device="cpu")


def test_a_study_compares_what_students_see(cartpole_teacher: Path, tmp_path: Path) -> None:
    """Cells with other keys have recordings of their own."""
    both = {"student_keys": ["positions", "state"], "policy": "MultiInputPolicy"}
    sees = {"positions": {"student_keys": "positions"}, "state": {"student_keys": "state"}, "both": both}
    grid = {"sees": sees, "seed": [0]}
    settings = {
        **CARTPOLE["settings"],  # type: ignore[dict-item]
        "teacher": str(cartpole_teacher),
        "teacher_keys": "state",
        "env_wrapper": WRAPPERS["positions"],
        "n_timesteps": 120,
        "learning_starts": 50,
    }
    changes = {"settings": settings, "grid": grid, "evaluation": {"n_episodes": 2}, "published": []}
    study = read_study(write(tmp_path / "keys.yml", **changes))
    assert not run_study(study, tmp_path / "keys", run_here)
    recorded = [Recording(path).observation_space for path in (tmp_path / "keys/recordings").iterdir()]
    assert len(recorded) == 3
    assert {space.shape for space in recorded} == {(8,), (4,), None}
    rows = [row for cell in study.cells for row in manifest_of(tmp_path / "keys", cell).rows]  # type: ignore[union-attr]
    assert len(rows) == 3 and all(row.percent_of_teacher is not None for row in rows)


def test_an_agent_of_another_algorithm_sees_a_part(zoo: Callable[..., str], tmp_path: Path) -> None:
    view = "vec_env_wrapper:{'sb3_distill.envs.views.ObservationView': {'student_keys': 'positions'}}"
    params = [f"env_wrapper:{WRAPPERS['positions']}", view, "n_envs:1"]
    options = ["-n", "40", "--eval-freq", "-1", "-params", *params]
    zoo(tmp_path, "train", "--algo", "a2c", "--env", "CartPole-v1", *options)
    assert main(["evaluate", str(tmp_path / "logs/a2c/CartPole-v1_1"), "-n", "1"]) == 0
