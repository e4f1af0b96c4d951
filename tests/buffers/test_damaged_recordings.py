"""A recording that is not what it says is refused by a sentence, when it is opened or when the damage is reached."""

import json
import re
import zlib

import numpy as np
import pytest
from gymnasium import spaces

from sb3_distill.buffers.record import StepRecord
from sb3_distill.buffers.recording_meta import RecordingError, RecordingSettings
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.answers import Answers


@pytest.fixture
def folder(tmp_path):
    """Ten steps of two environments with images of two planes; an episode ends at step 4."""
    space = spaces.Box(0, 255, (2, 36, 36), np.uint8, seed=0)
    settings = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0" * 64, env_id="A-v0", observation_space="x", teacher_eps=0.0
    )
    writer = RecordingWriter(tmp_path / "recording", settings, space, 2)
    for step in range(10):
        infos = [{"terminal_observation": space.sample()} if step == 4 else {}, {}]
        obs, ones = np.stack([space.sample(), space.sample()]), np.ones(2, np.float32)
        answers = Answers(q_values=np.ones((2, 3), np.float32))
        dones = np.array([step == 4, False])
        writer.add(StepRecord(obs, dones, answers, np.zeros(2, np.int64), ones, dones, infos))
    writer.close()
    return tmp_path / "recording"


def read(folder):
    recording = Recording(folder)
    for row in range(recording.n_rows):
        recording.observations(row)
    return list(recording.finished_episodes())


def change_meta(**changes):
    def change(folder):
        path = folder / "recording.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


PART = {"shape": [2, 36, 36], "dtype": "uint8", "images": True}


def change_part(**changes):
    return change_meta(parts={"": {**PART, **changes}})


def change_array(name, change):
    return lambda folder: np.save(folder / name, change(np.load(folder / name)))


def replace_block(folder):
    # Two blocks of zeros, which unpack to more than a block
    data = zlib.compress(bytes(10**6))
    (folder / "frames.zlib").write_bytes(data)
    np.save(folder / "offsets.npy", np.array([0, len(data)]))


DAMAGES = {
    "meta is a list": (lambda folder: (folder / "recording.json").write_text("[1]"), "format .None., which is none"),
    "meta is nested": (lambda folder: (folder / "recording.json").write_text("[" * 10**5), "nested more than"),
    "no episodes": (change_meta(episodes=[]), "episodes are not those that its steps end|terminals"),
    "an episode elsewhere": (change_meta(episodes=[{"row": 10**9, "env": 0, "r": 1, "l": 1}]), "ends outside of it"),
    "another number of rows": (change_meta(n_rows=11), r"has \w+ of the shape"),
    "a shape without end": (change_part(shape=[2, 10**6, 10**6]), "more than the 4,194,304"),
    "a type of objects": (change_part(dtype="object"), "of the type object"),
    "no observations": (change_meta(parts={}), "a shape or a number in it is impossible"),
    "observations that are not there": (change_meta(parts={"a": PART, "b": PART}), "No such file|observations_0"),
    "a score of text": (change_meta(teacher_score="abc"), "teacher_score must be"),
    "settings of another kind": (change_meta(settings={"algorithm": "x"}), "settings has no teacher"),
    "actions of another shape": (change_array("actions.npy", lambda actions: actions[:5]), "actions has int64"),
    "actions of text": (change_array("actions.npy", lambda actions: actions.astype("U1")), "actions has <U1"),
    "a zip for an array": (lambda folder: np.savez((folder / "dones.npy").open("wb"), a=1), "dones.npy is no array"),
    "planes that are not there": (change_array("observations.npy", lambda planes: planes + 10**6), "there is no such"),
    "planes behind the last": (change_array("observations.npy", lambda planes: planes % 60 + 20), "has no plane"),
    "offsets that run back": (change_array("offsets.npy", lambda offsets: offsets[::-1].copy()), "offsets.npy"),
    "a block that unpacks to more": (replace_block, "block 0 is damaged .it has another size"),
    "frames that are none": (lambda folder: (folder / "frames.zlib").write_bytes(b"x" * 10**6), "block 0 is damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(name, folder):
    damage, message = DAMAGES[name]
    assert len(read(folder)) == 1
    damage(folder)
    with pytest.raises(RecordingError, match=rf"(?s){re.escape(str(folder))}.*({message})"):
        read(folder)
