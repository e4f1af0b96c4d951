"""Every file appears under its name whole or not at all."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import PolicyDistillation
from sb3_distill.base.callbacks import save_statistics
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.buffers.recordings import RecordingSettings
from sb3_distill.common.files import (
    check_writable,
    check_writable_folder,
    dead_partials,
    partial_path,
    whole_file,
    write_together,
    write_whole,
)
from sb3_distill.evaluation.cli import Results, write_output
from sb3_distill.evaluation.starts import HeldOutStarts
from sb3_distill.results.curves import write_csv
from sb3_distill.results.figures import save_figure
from sb3_distill.state.file import write_state
from sb3_distill.visualize.maps import write_pictures
from tests.buffers.images import images
from tests.buffers.records import step_record
from tests.helpers import content_of, full_disk

PICTURES = [np.full((32, 32, 3), 20 * number, np.uint8) for number in range(4)]
RESULTS = Results([], 1, 0.0, False, 0, None, [], {})


def figure() -> Figure:
    own = Figure()
    own.add_subplot().plot([0, 1])
    return own


WRITERS = {
    "evaluate.json": lambda path: write_output(path, RESULTS, 5.0),
    "evaluate.csv": lambda path: write_output(path, RESULTS, 5.0),
    "evaluate.md": lambda path: write_output(path, RESULTS, 5.0),
    "starts.npz": HeldOutStarts("Pong", (b"state",), (0,), "random").save,
    "curves.csv": lambda path: write_csv([{"player": "net3", "mean_reward": 1.0}], path),
    "figure.png": lambda path: save_figure(figure(), path),
    "figure.svg": lambda path: save_figure(figure(), path),
    "figure.pdf": lambda path: save_figure(figure(), path),
    "maps.png": lambda path: write_pictures(PICTURES, path),
    "maps.gif": lambda path: write_pictures(PICTURES, path),
    "maps.mp4": lambda path: write_pictures(PICTURES, path),
    "statistics.pkl": lambda path: save_statistics(VecNormalize(make_vec_env("CartPole-v1")), path),
    "state.zip": lambda path: write_state(path, {"array": np.arange(4)}),
    "any.txt": lambda path: write_whole(path, "text"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file(name, tmp_path: Path):
    path = tmp_path / "folder" / name
    WRITERS[name](path)
    # What was there is replaced and not written over: who reads it meanwhile reads it whole.
    with path.open("rb") as reader:
        WRITERS[name](path)
        assert os.fstat(reader.fileno()).st_nlink == 0
    before = content_of(tmp_path)
    assert list(before) == [f"folder/{name}"]
    with full_disk(), pytest.raises(OSError, match="cannot be written") as error:
        WRITERS[name](path)
    assert str(path) in str(error.value)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("kind", ["model.zip", "memory.pkl"])
def test_models_on_a_full_disk(kind, cartpole_teacher: Path, tmp_path: Path):
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", str(cartpole_teacher), buffer_size=100, device="cpu")
    save = model.save if kind == "model.zip" else model.save_replay_buffer
    save(tmp_path / kind)
    before = content_of(tmp_path)
    with full_disk(), pytest.raises(OSError, match=kind):
        save(tmp_path / kind)
    assert content_of(tmp_path) == before


def test_recordings_on_a_full_disk(tmp_path: Path):
    told = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0", env_id=None, observation_space="images", teacher_eps=0.0
    )
    writer = RecordingWriter(tmp_path / "play", told, images(), 1)
    for number in range(5):
        writer.add(step_record(np.full((1, *images().shape), number, np.uint8)))
    with full_disk(), pytest.raises(OSError, match=str(tmp_path / "play")):
        writer.close()
    writer.abort()
    assert not content_of(tmp_path)


def read_only_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_text("old")
    folder.chmod(0o500)


def read_only_file(folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_text("old")
    (folder / "file").chmod(0o400)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path):
    (tmp_path / "notes").touch()
    for folder in (tmp_path / "notes", tmp_path / "notes" / "deeper"):
        for check in (lambda place: check_writable(place / "file"), check_writable_folder):
            with pytest.raises(OSError, match=f"{tmp_path / 'notes'} is a file, not a folder"):
                check(folder)
    check_writable_folder(tmp_path / "new" / "deeper")
    check_writable(tmp_path / "new" / "deeper" / "file")
    assert not (tmp_path / "new").exists()


PLACES = {"read-only folder": read_only_folder, "read-only file": read_only_file, "no folder": Path.touch}


@pytest.mark.parametrize("kind", PLACES)
def test_places_that_cannot_be_written(kind, tmp_path: Path):
    if kind != "no folder" and os.geteuid() == 0:
        pytest.skip("run as root, who may write everywhere")
    folder = tmp_path / "folder"
    PLACES[kind](folder)
    before = content_of(tmp_path)
    for write in (check_writable, lambda path: write_whole(path, "new")):
        with pytest.raises(OSError, match=f"{folder / 'file'} cannot be written"):
            write(folder / "file")
        assert content_of(tmp_path) == before


def test_links_and_devices_stay_what_they_are(tmp_path: Path):
    write_whole(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    (tmp_path / "null").symlink_to("/dev/null")
    write_whole(tmp_path / "null", "nothing")
    check_writable(tmp_path / "null")
    assert Path("/dev/null").is_char_device()


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    pid = os.fork()
    if pid == 0:
        with whole_file(tmp_path / "file"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (left,) = content_of(tmp_path)
    assert left != partial_path(tmp_path / "file").name
    write_whole(tmp_path / "other", "whole")
    assert list(content_of(tmp_path)) == ["other"]


def test_names_are_no_patterns(tmp_path: Path):
    """Those of users can hold brackets and stars."""
    for name in ("run[1]", "run1", "*"):
        (tmp_path / partial_path(tmp_path / name).name.replace(f"-{os.getpid()}", "-99999999")).mkdir()
    assert [path.name[:7] for path in dead_partials(tmp_path, "run[1]")] == [".run[1]"]
    assert [path.name[:3] for path in dead_partials(tmp_path, "*")] == [".*."]
    assert len(dead_partials(tmp_path)) == 3


def test_files_that_belong_together_are_replaced_together(tmp_path: Path):
    first, second, description = (tmp_path / name for name in ("first", "second", "description"))
    write_together({first: "1", second: "1", description: "1"})
    before = content_of(tmp_path)
    with full_disk(), pytest.raises(OSError, match=str(second)):
        # The first one needs no room.
        write_together({first: "", second: "2", description: "2"})
    assert content_of(tmp_path) == before
    write_together({first: "3", description: "3"}, gone=[second])
    assert content_of(tmp_path) == {"first": b"3", "description": b"3"}
    # A name that is taken is found before anything is replaced.
    before = content_of(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_together({first: "4", tmp_path / "folder": "4", description: "4"})
    assert content_of(tmp_path) == before
