"""``sb3-distill push``, against a small hub of the test's own on 127.0.0.1."""

import base64
import hashlib
import json
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.cli import main
from sb3_distill.push.card import training_command
from tests.helpers import content_of, run_python

REPOSITORY = "me/pd-CartPole-v1-small"
COMMIT = "d" * 40


@pytest.fixture(scope="module")
def run(cartpole_teacher, tmp_path_factory) -> Path:
    """A run folder of the Zoo with one evaluation."""
    folder = tmp_path_factory.mktemp("logs") / "pd" / "CartPole-v1_1"
    (folder / "CartPole-v1").mkdir(parents=True)
    kwargs = {"learning_starts": 10, "buffer_size": 100, "n_teacher_episodes": 0, "seed": 0, "device": "cpu"}
    PolicyDistillation("MlpPolicy", "CartPole-v1", str(cartpole_teacher), **kwargs).learn(50).save(
        folder / "CartPole-v1.zip"
    )
    args = {"algo": "pd", "env": "CartPole-v1", "seed": 3, "n_timesteps": 50, "hyperparams": {"temperature": "auto"}}
    (folder / "CartPole-v1" / "args.yml").write_text(yaml.safe_dump(args))
    (folder / "CartPole-v1" / "config.yml").write_text("policy: MlpPolicy\n")
    (folder / "0.monitor.csv").write_text('#{"t_start": 0}\nr,l,t\n9.0,9,0.1\n')
    np.savez(folder / "evaluations.npz", timesteps=[25, 50], results=[[9.0], [10.0]], ep_lengths=[[9], [10]])
    return folder


class Hub(ThreadingHTTPServer):
    """A hub without a repository, and what it is told: the repositories to be made, and the files."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict] = []
        self.files: dict[str, bytes] = {}

    def commit(self, lines):
        for line in map(json.loads, lines):
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del self.files[line["value"]["path"]]
        address = f"{self.address}/{REPOSITORY}/commit/{COMMIT}"
        return {"success": True, "commitUrl": address, "commitOid": COMMIT}

    def create(self, lines):
        self.created += map(json.loads, lines)
        return {"url": f"{self.address}/{REPOSITORY}", "name": REPOSITORY}

    def preupload(self, lines):
        paths = [file["path"] for line in lines for file in json.loads(line)["files"]]
        return {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self):
        lines = self.rfile.read(int(self.headers.get("Content-Length") or 0)).splitlines()
        calls = {
            "/api/repos/create": self.server.create,
            "/api/validate-yaml": lambda lines: {"warnings": [], "errors": []},
            f"/api/models/{REPOSITORY}/preupload/main": self.server.preupload,
            f"/api/models/{REPOSITORY}/commit/main": self.server.commit,
        }
        if self.headers.get("Authorization") != "Bearer secret":
            return self.send(401, b"{}")
        self.send(200, json.dumps(calls[unquote(self.path).partition("?")[0]](lines)).encode())

    def do_GET(self):
        name, files = unquote(self.path).rpartition("/")[2], self.server.files
        if "/tree/" in self.path:
            tree = [{"type": "file", "path": path, "size": len(files[path]), "oid": "0" * 40} for path in files]
            self.send(200, json.dumps(tree).encode())
        elif "/resolve/" not in self.path:
            self.send(200, json.dumps({"sha": COMMIT, "id": REPOSITORY, "siblings": []}).encode())
        elif name in files:
            self.send(200, files[name], ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"')
        else:
            self.send(404, b"{}", **{"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def send(self, status, body, **headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def push(folder: Path, run: Path, *arguments: str, status: int = 0, **environment: str):
    words = ["-m", "sb3_distill", "push", run, "--repo", REPOSITORY, "-n", "2", *arguments]
    return run_python(folder, *words, status=status, HF_HUB_OFFLINE="0", HF_HOME=str(folder / "hf"), **environment)


@pytest.mark.ci
def test_an_agent_that_is_pushed_comes_back_from_the_hub(run, hub, tmp_path):
    # Of another agent, an earlier time
    hub.files |= {"vec_normalize.pkl": b"old", ".gitattributes": b""}
    printed = push(tmp_path, run, "--private", HF_ENDPOINT=hub.address, HF_TOKEN="secret").stdout
    assert f"{REPOSITORY}/commit/{COMMIT}" in printed
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("me", "pd-CartPole-v1-small")
    # The client says it in one way or another, by its version.
    assert created.get("private") or created["visibility"] == "private"
    del hub.files[".gitattributes"]
    assert hub.files == content_of(tmp_path / "hub" / REPOSITORY)
    ask = "from sb3_distill import load_teacher; import sys; print(load_teacher(sys.argv[1]).facts.sha256)"
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    found = run_python(tmp_path, "-c", ask, f"hub:{REPOSITORY}", **environment).stdout
    assert found.strip() == load_teacher(run).facts.sha256
    # A hub that refuses: the folder is there all the same.
    error = push(tmp_path, run, "-o", "kept", status=1, HF_ENDPOINT=hub.address, HF_TOKEN="wrong").stderr
    assert "was not pushed" in error and "hf auth login" in error and (tmp_path / "kept" / "README.md").is_file()


def test_a_dry_run_writes_what_the_zoo_reads(run, cartpole_teacher, tmp_path, capsys):
    argv = ["push", str(run), "--repo", REPOSITORY, "-n", "3", "--dry-run", "-o", str(tmp_path / "out")]
    assert main(argv) == 0
    first = content_of(tmp_path / "out")
    names = {"README.md", "results.json", "curve.png", "config.yml", "args.yml", "env_kwargs.yml"}
    assert first.keys() == names | {"pd-CartPole-v1.zip", "train_eval_metrics.zip"}
    with zipfile.ZipFile(tmp_path / "out" / "train_eval_metrics.zip") as archive:
        assert archive.namelist() == ["0.monitor.csv", "evaluations.npz"]
        assert archive.read("0.monitor.csv") == (run / "0.monitor.csv").read_bytes()
    _, metadata, text = first["README.md"].decode().split("---\n", 2)
    row = next(row for row in json.loads(first["results.json"])["agents"] if row["agent"] == REPOSITORY)
    (result,) = yaml.safe_load(metadata)["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == f"{row['mean']:.2f} +/- {row['std']:.2f}"
    assert load_teacher(cartpole_teacher).facts.sha256 in text and f'load_teacher("hub:{REPOSITORY}")' in text
    assert re.search(r"""-n 50 -params "teacher:'\S+/CartPole-v1.zip'" "temperature:'auto'\"""", text)
    assert "curve.png" in text
    # Folders of this machine are nobody's business.
    assert str(tmp_path.parent) not in text and str(run.parent) not in first["results.json"].decode()
    # Once more: the same bytes.
    assert main(argv) == 0
    assert content_of(tmp_path / "out") == first


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("pd-CartPole-v1", "expected OWNER/NAME, such as me/pd-CartPole-v1"),
        ("me/../pd-CartPole-v1", "expected OWNER/NAME"),
        ("me/ppo-CartPole-v1", "Begin its name with pd-CartPole-v1"),
        ("me/pd-CartPole-v12", "Begin its name with pd-CartPole-v1"),
    ],
)
def test_names_by_which_nobody_finds_the_agent(run, repository, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["push", str(run), "--repo", repository, "--dry-run"]) == 1
    assert message in capsys.readouterr().err and not any(tmp_path.iterdir())


@pytest.mark.parametrize("names", [["thesis.tex"], ["results.json", "cells/run.zip"]])
def test_other_files_are_not_overwritten(run, names, tmp_path, capsys):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("years")
    assert main(["push", str(run), "--repo", REPOSITORY, "--dry-run", "-o", str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err and set(content_of(tmp_path)) == set(names)


def test_the_agent_itself_is_not_overwritten(run, tmp_path, capsys):
    argv = ["--repo", REPOSITORY, "-n", "1", "--dry-run", "-o", str(tmp_path / "out")]
    assert main(["push", str(run), *argv]) == 0
    before = content_of(tmp_path / "out")
    assert main(["push", str(tmp_path / "out" / "pd-CartPole-v1.zip"), *argv]) == 1
    assert "holds the agent itself" in capsys.readouterr().err and content_of(tmp_path / "out") == before


def test_the_command_of_a_run():
    args = {"algo": "pd", "env": "E-v0", "seed": -1, "n_timesteps": -1, "env_kwargs": {"n": 2}, "hyperparams": None}
    assert training_command(args) == "python -m rl_zoo3.train --algo pd --env E-v0 --env-kwargs n:2"
    args = {"algo": "pd", "env": "E-v0", "hyperparams": {"teacher": "/home/me/logs/dqn/E-v0_1"}}
    assert training_command(args).endswith(""" -params "teacher:'dqn/E-v0_1'\"""")
    # A teacher that the run has found is one that others may not find.
    found = training_command({"algo": "pd", "env": "E-v0"}, "zoo:dqn/E-v0")
    assert found == """python -m rl_zoo3.train --algo pd --env E-v0 -params "teacher:'zoo:dqn/E-v0'\""""
    assert training_command(args, "zoo:dqn/E-v0").endswith(""" -params "teacher:'dqn/E-v0_1'\"""")
    assert training_command({}) == ""


def test_the_command_of_a_run_names_an_agent_of_the_zoo_as_others_find_it(tmp_path, monkeypatch):
    run = tmp_path / "dqn" / "CartPole-v1_1"
    run.mkdir(parents=True)
    args = {"algo": "pd", "env": "CartPole-v1"}
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    assert training_command(args, str(run)).endswith(""" -params "teacher:'dqn/CartPole-v1_1'\"""")
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(tmp_path))
    assert training_command(args, str(run)).endswith(""" -params "teacher:'zoo:dqn/CartPole-v1'\"""")
