"""Damaged and hostile files of every kind: the bounded form of ``benchmarks.hostile``, and its own check."""

import os
import pickle
import signal
import sys

import pytest

from benchmarks import hostile, mutations


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    hostile.make_files(folder / "files")
    hostile.read_whole(folder)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_damaged_files_run_nothing_and_end_in_a_sentence(folder):
    endings = {
        (name, number): problem
        for name, number, problem in hostile.trials(folder, 60, seed=0)
        if not problem.startswith(("read", "refused"))
    }
    assert not endings


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_what_runs_hangs_or_takes_memory_is_seen(folder, monkeypatch):
    def unpickle(path):
        pickle.loads((path / "policy.json").read_bytes())

    readers = {
        "executed": unpickle,
        "memory": lambda path: bytes(3 * 2**30),
        "crashed": lambda path: os.kill(os.getpid(), signal.SIGTERM),
        "no sentence": lambda path: {}["name"],
        "read": lambda path: None,
    }
    kinds = {
        name: hostile.Kind(
            "export/policy.json", lambda content, rng, marker: pickle.dumps(mutations.Canary(marker)), read
        )
        for name, read in readers.items()
    }
    monkeypatch.setattr(hostile, "KINDS", kinds)
    (folder / "modules").rename(folder / "modules of the others")
    found = {name: problem.partition(":")[0] for name, _, problem in hostile.trials(folder, len(kinds), seed=0)}
    assert found == {name: name for name in readers}
