"""Teachers without a run of their own, in studies: they play where their students play, and see what they saw there."""

from pathlib import Path
from typing import Any

import pytest

from sb3_distill.envs import imports
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import manifests_of
from sb3_distill.study.plan.replaced import find_replaced
from sb3_distill.study.run import collect, run_study
from tests.agents.onnx_files import UINT8, right_where_it_sees
from tests.envs.pictures import always_right, make_watcher
from tests.study.studies import run_here, write

PACKAGE = "tests.envs.pictures"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imports, "_NAMED", {"tests"})


def study_of(tmp_path: Path, function: str, evaluation: dict[str, Any], **settings: Any) -> Any:
    wrapper = {"sb3_distill.OwnPicture": {"function": f"{PACKAGE}:{function}"}}
    own = {"algo": "pd", "env": "Dot-v0", "n_timesteps": 60, "learning_starts": 20, "env_wrapper": wrapper}
    own |= {"teacher_keys": "picture", "student_keys": "state", **settings}
    changes = {"evaluation": {"n_episodes": 2, **evaluation}, "grid": {"seed": [0]}, "record": False, "published": None}
    return read_study(write(tmp_path / "s.yml", settings=own, **changes), [PACKAGE])


@pytest.mark.parametrize("evaluation", [{}, {"teacher": "right.onnx"}])
def test_files_see_pictures_of_the_students_run(evaluation: dict[str, Any], tmp_path: Path) -> None:
    """Also those that the evaluation names, which are looked at before the training."""
    # It takes bytes, which the environment does not give without the wrapper.
    right_where_it_sees(tmp_path / "right.onnx", UINT8)
    study = study_of(tmp_path, "bytes_of_dot", evaluation, teacher="right.onnx")
    assert not run_study(study, tmp_path / "out", run_here)
    (row,) = collect(study, tmp_path / "out")
    assert row.teacher_mean == (always_right(0) + always_right(1)) / 2 and row.percent_of_teacher is not None


def test_objects_see_pictures_of_the_students_run(tmp_path: Path) -> None:
    study = study_of(tmp_path, "row_of_dot", {}, teacher=f"{PACKAGE}:make_watcher")
    assert not run_study(study, tmp_path / "out", run_here)
    (row,) = collect(study, tmp_path / "out")
    assert row.teacher_mean is not None and row.percent_of_teacher is not None


def test_a_file_with_options_is_told_by_both(tmp_path: Path) -> None:
    path = right_where_it_sees(tmp_path / "right.onnx", UINT8)
    study = study_of(tmp_path, "bytes_of_dot", {}, teacher="right.onnx", teacher_kwargs={"output": "logits"})
    assert not run_study(study, tmp_path / "out", run_here)
    manifests = manifests_of(tmp_path / "out", study.cells)
    assert not find_replaced(tmp_path / "out", manifests, study.cells)
    # Whoever reads results alone makes no environment for it.
    assert not find_replaced(tmp_path / "out", manifests)
    right_where_it_sees(path, UINT8, width="width")
    (replaced,) = find_replaced(tmp_path / "out", manifests, study.cells)
    assert replaced.source == "right.onnx" and not find_replaced(tmp_path / "out", manifests)


def test_a_function_that_makes_another_teacher_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{PACKAGE}:make_watcher"
    study = study_of(tmp_path, "row_of_dot", {}, teacher=name)
    assert not run_study(study, tmp_path / "out", run_here)
    manifests = manifests_of(tmp_path / "out", study.cells)
    assert [(agent.setting, agent.source) for agent in manifests[0].agents] == [("teacher", name)]
    assert not find_replaced(tmp_path / "out", manifests, study.cells)
    watcher = make_watcher()
    watcher.head.weight.data *= 2.0
    monkeypatch.setattr(f"{PACKAGE}.make_watcher", lambda: watcher)
    (replaced,) = find_replaced(tmp_path / "out", manifests, study.cells)
    assert replaced.source == name
