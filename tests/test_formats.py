"""Files that earlier versions wrote are read by every later one; those of later versions are refused in words."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch as th

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.agents.archive import FORMAT as ZIP_FORMAT
from sb3_distill.agents.archive import FORMAT_NAME, read_archive
from sb3_distill.agents.files import AgentError
from sb3_distill.buffers.recording_meta import FORMAT as RECORDING_FORMAT
from sb3_distill.buffers.recordings import Recording
from sb3_distill.export.bench import read_description
from sb3_distill.export.description import FORMAT as EXPORT_FORMAT
from sb3_distill.results.row import FORMAT as RESULTS_FORMAT
from sb3_distill.results.row import parse_rows
from sb3_distill.state.file import FORMAT as STATE_FORMAT
from sb3_distill.state.file import read_state
from sb3_distill.study.reporting.results import load_results
from tests.fixtures.make import N_STEPS, OBSERVATIONS, make_student

FIXTURES = Path(__file__).parent / "fixtures"
FORMATS = sorted(FIXTURES.glob("format_*"))
every_format = pytest.mark.parametrize("files", FORMATS, ids=lambda folder: folder.name)


@every_format
def test_students(files: Path):
    actions = json.loads((files / "actions.json").read_text())
    assert load_teacher(files / "CartPole-v1.zip", device="cpu").predict(OBSERVATIONS)[0].tolist() == actions
    model = PolicyDistillation.load(files / "CartPole-v1.zip", device="cpu")
    assert model.predict(OBSERVATIONS, deterministic=True)[0].tolist() == actions
    assert model.num_timesteps == N_STEPS


@every_format
def test_states_of_runs(files: Path):
    model = make_student()
    model.load_run_state(files / "run_state.zip")
    assert model.num_timesteps == N_STEPS
    assert model.learn(16).num_timesteps == N_STEPS + 16


@every_format
def test_recordings(files: Path):
    recording = Recording(files / "recording")
    assert recording.n_rows == N_STEPS and recording.observations(0).shape == (1, 4)
    assert sum(1 for _ in recording.finished_episodes()) == len(recording.episodes) > 0


@every_format
def test_exports_and_results(files: Path):
    assert read_description(files).env_id == "CartPole-v1"
    (row,) = parse_rows((files / "results.json").read_text())
    assert row.algo == "pd" and row.mean is not None
    for rows in (parse_rows((files / "study" / "results.json").read_text()), load_results(files / "study").rows):
        assert [row.labels["loss"] for row in rows] == ["kl"]


def in_json(path: Path, name: str, value: int) -> None:
    content = json.loads(path.read_text())
    assert name in content
    path.write_text(json.dumps({**content, name: value}))


def in_zip(path: Path, member: str, name: str, value: int) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    content = json.loads(members[member])
    assert name in content
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in {**members, member: json.dumps({**content, name: value})}.items():
            archive.writestr(each, data)


NEWER = {
    "zip": (
        ZIP_FORMAT,
        lambda files, newer: in_zip(files / "CartPole-v1.zip", "data", FORMAT_NAME, newer),
        lambda files: read_archive(files / "CartPole-v1.zip"),
    ),
    "zip, loaded by SB3": (
        ZIP_FORMAT,
        lambda files, newer: in_zip(files / "CartPole-v1.zip", "data", FORMAT_NAME, newer),
        lambda files: PolicyDistillation.load(files / "CartPole-v1.zip", device="cpu"),
    ),
    "state": (
        STATE_FORMAT,
        lambda files, newer: in_zip(files / "run_state.zip", "state.json", "format", newer),
        lambda files: read_state(files / "run_state.zip"),
    ),
    "recording": (
        RECORDING_FORMAT,
        lambda files, newer: in_json(files / "recording" / "recording.json", "format", newer),
        lambda files: Recording(files / "recording"),
    ),
    "export": (
        EXPORT_FORMAT,
        lambda files, newer: in_json(files / "policy.json", "format", newer),
        read_description,
    ),
    "results": (
        RESULTS_FORMAT,
        lambda files, newer: in_json(files / "results.json", "format", newer),
        lambda files: parse_rows((files / "results.json").read_text()),
    ),
    "study": (
        RESULTS_FORMAT,
        lambda files, newer: in_json(files / "study" / "results.json", "format", newer),
        lambda files: load_results(files / "study"),
    ),
}


@pytest.mark.parametrize("kind", NEWER)
def test_later_formats_are_refused_by_name(kind, tmp_path: Path):
    known, change, read = NEWER[kind]
    files = shutil.copytree(FORMATS[-1], tmp_path / "files")
    read(files)
    change(files, known + 1)
    with pytest.raises(ValueError, match=rf"format {known + 1}, .* format {known} at most: install") as error:
        read(files)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.0, "1", None, [1]])
@pytest.mark.parametrize("kind", [kind for kind in NEWER if "SB3" not in kind])
def test_what_is_no_format_is_refused(kind, wrong, tmp_path: Path):
    _, change, read = NEWER[kind]
    files = shutil.copytree(FORMATS[-1], tmp_path / "files")
    change(files, wrong)
    with pytest.raises(ValueError, match="none that ever was: formats are numbered from 1"):
        read(files)


def test_quantized_vectors_of_format_1_are_refused(tmp_path: Path, ppo_teacher):
    student = QPD("MlpPolicy", "CartPole-v1", ppo_teacher, weight_bits=4, activation_bits=4, device="cpu", seed=0)
    mark = "mlp_extractor.policy_net.0.rounds_contributions"
    student.save(tmp_path / "new.zip")
    with zipfile.ZipFile(tmp_path / "new.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = student.policy.state_dict()
    del weights[mark]
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for name, data in members.items():
            with archive.open(name, "w") as file:
                th.save(weights, file) if name == "policy.pth" else file.write(data)
    assert load_teacher(tmp_path / "new.zip", device="cpu").algo == "qpd"
    sentence = "is of format 1, which rounded .* otherwise than format 2: train the student again"
    with pytest.raises(AgentError, match=sentence):
        load_teacher(tmp_path / "old.zip", device="cpu")
    with pytest.raises(RuntimeError, match=sentence):
        QPD.load(tmp_path / "old.zip", device="cpu")
