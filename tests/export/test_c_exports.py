"""Agents as C from the command line, and what is measured of them."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO

from sb3_distill import load_teacher
from sb3_distill.compress.cli import main as compress
from sb3_distill.evaluation.observations import Observations
from sb3_distill.export.bench import bench_folder, measure_c, open_file, read_description
from sb3_distill.export.c.bench import open_c
from sb3_distill.export.c.build import BuildError, find_compiler
from sb3_distill.export.c.cortex import TARGETS, missing_tools
from sb3_distill.export.cli import main as export
from sb3_distill.export.export import (
    C_FILE,
    DESCRIPTION_FILE,
    INTEGER_FILE,
    WEB_FILE,
    ExportError,
    _Candidates,
    export_agent,
)
from sb3_distill.export.integer_policy import IntegerPolicy
from sb3_distill.quantization.layers import set_blend
from tests.export.integers import observations_of, vector_agent
from tests.helpers import REPOSITORY, run_python

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler (cc, gcc, clang)")
C_FILES = {"policy.h", C_FILE, "policy_test.c", "policy.npz", "integer_policy.py", "README.md"}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "seed": 1, "device": "cpu"}
    path = tmp_path_factory.mktemp("agents") / "CartPole-v1.zip"
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, **kwargs).save(path)
    return path


@pytest.fixture(scope="module")
def exported(agent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "out"
    options = ["--env", "CartPole-v1", "--n-observations", "200", "--max-disagreement", "0.1"]
    assert export([str(agent), "-o", str(folder), *options, "--format", "onnx", "c"]) == 0
    return folder


def test_both_formats_are_written_and_described(exported):
    names = {path.name for path in exported.iterdir()} - {".lock"}
    assert names == C_FILES | {"policy.onnx", INTEGER_FILE, "runner.py", DESCRIPTION_FILE}
    files = json.loads((exported / DESCRIPTION_FILE).read_text())["files"]
    assert list(files) == ["policy.onnx", INTEGER_FILE, C_FILE] and 0 < files[C_FILE]["bytes"] < 1_000
    # Observations of agents that are quantized after training have more levels than 8 bits.
    assert IntegerPolicy.load(exported / "policy.npz").inputs.high.tolist() == [2**11 - 1]
    assert f"{files[C_FILE]['bytes']:,} bytes in its arrays" in (exported / "README.md").read_text()


def test_c_needs_no_onnx(agent, tmp_path: Path, capsys, monkeypatch):
    options = ["--env", "CartPole-v1", "--n-observations", "40", "--max-disagreement", "1"]
    code = "import sys; sys.modules['onnx'] = sys.modules['onnxruntime'] = None; import sb3_distill.export.bench; "
    code += (
        f"from sb3_distill.cli import main; main({['export', str(agent), '-o', 'c', '--format', 'c', 'web', *options]})"
    )
    assert "c/policy.c: " in run_python(tmp_path, "-c", code, PYTHONPATH=str(REPOSITORY)).stdout
    monkeypatch.setattr("sb3_distill.export.bench.peak_memory", lambda *arguments: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if find_compiler() is not None:
        assert export(["bench", str(tmp_path / "c"), "--n-runs", "2", "--n-episodes", "1"]) == 0
        printed = capsys.readouterr()
        assert "policy in C" in printed.out and "play.html is for a browser, and is not measured" in printed.err
    assert export([str(agent), "-o", str(tmp_path), *options]) == 1
    message = "onnxruntime is not installed: pip install 'sb3-distill[export]'."
    assert f"sb3-distill export: {message} C (--format c) needs neither" in capsys.readouterr().err
    (tmp_path / "c" / "policy.onnx").write_bytes(b"")
    with pytest.raises(ExportError, match=r"policy.onnx cannot be run: onnxruntime is not installed"):
        open_file(tmp_path / "c" / "policy.onnx")
    assert compress(["agent.zip", "-o", str(tmp_path / "small")]) == 1
    assert f"sb3-distill compress: {message} --target c " in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_page_for_the_browser(agent, tmp_path: Path, capsys):
    options = [str(agent), "-o", str(tmp_path), "--n-observations=40", "--max-disagreement=1", "--format", "web"]
    assert export([*options, "--env", "CartPole-v1"]) == 0
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {WEB_FILE, DESCRIPTION_FILE}
    assert "play.html: " in capsys.readouterr().out and "ppo on CartPole-v1" in (tmp_path / WEB_FILE).read_text()
    assert export([*options, "--env", "MountainCar-v0"]) == 1
    assert "in the browser, not MountainCar-v0" in capsys.readouterr().err


def test_other_formats_of_an_earlier_export_are_removed(agent, tmp_path: Path, capsys):
    options = [str(agent), "-o", str(tmp_path), "--env", "CartPole-v1", "--n-observations=40", "--max-disagreement=1"]
    for formats, expected in ((["c"], C_FILES), (["onnx"], {"policy.onnx", INTEGER_FILE, "runner.py"})):
        assert export([*options, "--format", *formats]) == 0
        assert {path.name for path in tmp_path.iterdir()} - {".lock", DESCRIPTION_FILE} == expected
        assert ("policy.c: " in capsys.readouterr().out) == (formats == ["c"])
    with pytest.raises(SystemExit):
        export([*options, "--format", "sb3", "c"])
    assert "--format sb3 cannot be combined" in capsys.readouterr().err


def test_policies_that_disagree_are_refused_with_the_numbers(agent, tmp_path: Path):
    with pytest.raises(
        ExportError, match=r"policy.c would choose another action than .* at \d+\.\d% of 200 observ.*0\.0%"
    ):
        export_agent(agent, tmp_path, "CartPole-v1", 200, max_disagreement=0.0, bits=2, formats=["c"])
    assert not (tmp_path / C_FILE).exists()
    # Under torch this one does not round.
    quantized = vector_agent(weights=2, inputs=2)
    set_blend(quantized.policy, 0.0)
    observations = observations_of(quantized.observation_space, 300)
    own = vector_agent(weights=2, inputs=2)
    candidates = _Candidates(own, "a title", None, Observations(observations, 1), own.predict(observations)[0], 0.01)
    candidates.add_integers(quantized, "CartPole-v1", ["c"])
    (refused,) = candidates.refused
    assert refused.startswith(
        "policy.c would choose another action than its integers under torch (half of it is allowed)"
    )
    assert not candidates.written


@needs_compiler
def test_bench_shows_c_beside_the_others(exported, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("sb3_distill.export.bench.peak_memory", lambda *arguments: None)
    assert export(["bench", str(exported), "--n-runs", "3", "--n-episodes", "2", "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    table, footprints = printed.split("\n\n")
    with (tmp_path / "bench.csv").open() as file:
        rows = {row["policy"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"out/policy.onnx", f"out/{INTEGER_FILE}", "out/policy.c", "out under torch"}
    assert rows["out/policy.c"]["kind"] == "C" and rows["out/policy.c"]["memory"] == ""
    # A policy without training ends its episodes early, with all of its files alike.
    assert 8 < float(rows["out/policy.c"]["return"]) < 100 and float(rows["out/policy.c"]["p50"]) > 0
    with (tmp_path / "footprint.csv").open() as file:
        taken = {row["target"]: row for row in csv.DictReader(file)}
    assert set(taken) == {"this machine", *(() if missing_tools() else TARGETS)}
    assert int(taken["this machine"]["constants"]) >= int(rows["out/policy.c"]["bytes"])
    assert "out/policy.c" in table and footprints.startswith("policy in C  processor")


@needs_compiler
def test_bench_tells_folders_of_one_name_apart(exported, tmp_path: Path, capsys):
    folders = [tmp_path / name / "export" for name in ("small", "large")]
    for folder in folders:
        shutil.copytree(exported, folder)
        (folder / "policy.onnx").unlink()
    description = json.loads((exported / "policy.json").read_text())
    description["files"] = {name: file for name, file in description["files"].items() if name == "policy.c"}
    for folder in folders:
        (folder / "policy.json").write_text(json.dumps(description))
    assert export(["bench", *map(str, folders), "--n-runs", "3", "--n-episodes", "0"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}/export/policy.c" in printed and f"\n{name}/export " in printed for name in ("small", "large"))


@needs_compiler
def test_bench_plays_under_what_a_device_brings(exported, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("sb3_distill.export.bench.peak_memory", lambda *arguments: None)
    options = ["bench", str(exported), "--n-runs", "3", "-o", str(tmp_path), "--action-delay", "2", "--obs-bits", "6"]
    assert export([*options, "--n-episodes", "3"]) == 0
    assert "return: with actions 2 steps late, observations of 6 bits" in capsys.readouterr().out
    with (tmp_path / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["action_delay"], row["obs_bits"]) for row in rows} == {("2", "6")}
    # All of them met the same.
    assert len({row["return"] for row in rows}) < len(rows)
    assert export([*options, "--n-episodes", "0"]) == 1
    assert "With --n-episodes 0 nothing is played: leave out action_delay, obs_bits." in capsys.readouterr().err


@needs_compiler
def test_code_that_is_not_ours_is_not_run(exported, tmp_path: Path):
    for path in exported.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    code = (tmp_path / C_FILE).read_text()
    (tmp_path / C_FILE).write_text(code.replace("return best;", "return 1 - best;"))
    with pytest.raises(BuildError, match=r"policy.c is not what this version writes for policy.npz"):
        bench_folder(tmp_path, "out", 3, 0)
    (tmp_path / C_FILE).write_text(code)
    assert next(name for name, _ in measure_c(tmp_path, "own")) == "own"
    (tmp_path / "policy.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"policy.npz is no integer policy"):
        measure_c(tmp_path, "out")


@needs_compiler
def test_the_compiled_policy_plays_as_the_one_in_numpy(exported):
    description = read_description(exported)
    player, policy = open_c(exported, description), IntegerPolicy.load(exported / "policy.npz")
    observations = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    assert np.array_equal(player.predict(observations)[0], policy.predict(observations)[0])
    assert load_teacher(description.source, device="cpu").sha256 == description.sha256


def test_without_a_compiler(exported, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BuildError, match=r"There is no C compiler \(cc, gcc, clang, \$CC\): install one"):
        open_c(exported, read_description(exported))
    assert "arm-none-eabi-gcc" in missing_tools()
