"""Agents of strangers: what their files name is neither imported nor downloaded."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.cli import main
from sb3_distill.evaluation.environments import find_env_id
from sb3_distill.evaluation.starts import HeldOutStarts


def test_a_teacher_that_a_file_names_is_no_reason_to_ask_the_hub(cartpole_teacher, tmp_path, monkeypatch, capsys):
    def ask(*args, local_files_only=False, **kwargs):
        assert local_files_only
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", ask)
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", teacher=str(cartpole_teacher), buffer_size=10, device="cpu")
    model.taught_by = "hub:nobody/dqn-CartPole-v1"
    model.save(tmp_path / "student.zip")
    assert main(["evaluate", str(tmp_path / "student.zip"), "--env", "CartPole-v1", "-n", "1"]) == 1
    said = capsys.readouterr().err
    assert "names the teacher hub:nobody/dqn-CartPole-v1" in said and "--teacher" in said and "was not asked" in said
    with pytest.raises(AgentError, match="was not asked"):
        load_teacher("hub:nobody/dqn-CartPole-v1", local_only=True)


def test_arguments_of_an_environment_import_nothing(cartpole_teacher, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "dqn" / "MultiTask-v0_1"
    (run / "MultiTask-v0").mkdir(parents=True)
    shutil.copy(cartpole_teacher, run / "MultiTask-v0.zip")
    args = {"algo": "dqn", "env": "MultiTask-v0", "env_kwargs": {"env_ids": ["CartPole-v1", "stranger:Env-v0"]}}
    (run / "MultiTask-v0" / "args.yml").write_text(json.dumps(args))
    agent = load_teacher(run, device="cpu")
    with pytest.raises(ValueError, match=r"env_kwargs names the environment stranger:Env-v0. Importing stranger runs"):
        find_env_id(agent)


def test_damaged_starts_are_named(tmp_path):
    path = tmp_path / "starts.npz"
    starts = HeldOutStarts("PongNoFrameskip-v4", (b"abc", b"de"), (0, 1), "random")
    starts.save(path)
    assert HeldOutStarts.load(path) == starts
    with np.load(path) as data:
        arrays = dict(data)
    for name, value in (("sizes", np.array([10**9, 2])), ("sizes", np.array(["a"])), ("games", np.array([0.5, "x"]))):
        np.savez(path, **{**arrays, name: value})
        with pytest.raises(ValueError, match=r"starts.npz cannot be used as start states"):
            HeldOutStarts.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("states.npy", bytes(50 * 2**20))
    with pytest.raises(ValueError, match=r"cannot be used as start states: its member states.npy unpacks"):
        HeldOutStarts.load(path)
