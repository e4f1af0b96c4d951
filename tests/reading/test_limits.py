"""Small files that ask for much: refused before they get it, with the number in the message."""

import io
import json
import zipfile

import numpy as np
import pytest

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import load_teacher
from sb3_distill.reading.arrays import map_npy, read_npz
from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.text import load_yaml, parse_json
from tests.agents.test_archive import change_data, rewrite

ALIASES = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "more than the 50,000 values"),
        ("a: &x [*x]", "an alias in it refers to the value that holds it"),
        ("a: 0x" + "F" * 5_000, "a whole number of 5,002 characters"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 levels"),
        ("a: " + "x" * 300_000, "more than the 262,144 that are read"),
    ],
)
def test_yaml(text, message, tmp_path):
    path = tmp_path / "args.yml"
    path.write_text(text)
    with pytest.raises(ReadError, match=message):
        load_yaml(path)
    with pytest.raises(AgentError, match=f"args.yml cannot be read safely .*{message}"):
        read_yaml(path)


def test_a_few_aliases_are_no_bomb(tmp_path):
    (tmp_path / "config.yml").write_text("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: *a}\n")
    assert load_yaml(tmp_path / "config.yml")["d"] == {"b": [1, 2], "e": {"b": [1, 2]}}


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 51 + "]" * 51, '{"a":' * 60 + "1" + "}" * 60])
def test_json(text):
    with pytest.raises(ValueError, match="nested more than 50 levels"):
        parse_json(text)


@pytest.mark.parametrize(
    ("method", "message"),
    [(zipfile.ZIP_DEFLATED, "more than 100 times as many"), (zipfile.ZIP_LZMA, "more than 100 times|neither stored")],
)
def test_bombs_in_a_zip(method, message, cartpole_teacher, tmp_path):
    with zipfile.ZipFile(cartpole_teacher) as archive, zipfile.ZipFile(tmp_path / "agent.zip", "w") as other:
        other.writestr("data", archive.read("data"))
        other.writestr("policy.pth", bytes(50 * 2**20), method)
    with pytest.raises(AgentError, match=message):
        read_archive(tmp_path / "agent.zip")


def test_members_that_state_too_much_or_stand_twice(cartpole_teacher, tmp_path):
    path = tmp_path / "agent.zip"
    path.write_bytes(cartpole_teacher.read_bytes())
    rewrite(path, data=b" " * (65 * 2**20))
    with pytest.raises(AgentError, match=r"member data has 68,157,440 bytes, more than the 67,108,864"):
        read_archive(path)
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning):
        archive.writestr("data", "{}")
        archive.writestr("data", "{}")
    with pytest.raises(AgentError, match="two members with the name 'data'"):
        read_archive(path)


@pytest.mark.parametrize(
    ("space", "content", "message"),
    [
        ("action_space", {"n": 30_000_000}, "30,000,000 elements, more than the 4,194,304"),
        ("action_space", {"n": 4_000_000}, r"stock architecture .*size mismatch for q_net.q_net.2.\w+: \(2,"),
        ("observation_space", {"_shape": [10**9, 10**9], "dtype": "float32"}, "more than the 4,194,304"),
        ("observation_space", {"dtype": "object"}, "'object', which is not one of numbers"),
        ("observation_space", {"low": "[" + "0 " * 40_000 + "]"}, "characters, more than the 65,536"),
    ],
)
def test_spaces(space, content, message, cartpole_teacher, tmp_path):
    path = tmp_path / "agent.zip"
    path.write_bytes(cartpole_teacher.read_bytes())
    change_data(path, **{space: {**read_archive(path).data[space], **content}})
    with pytest.raises(AgentError, match=message):
        load_teacher(path)


def test_layers(cartpole_teacher, tmp_path):
    import torch as th

    weights = dict(read_archive(cartpole_teacher).weights)
    weights |= {f"q_net.q_net.{2 * layer}.weight": th.zeros(1, 1) for layer in range(2_000)}
    buffer = io.BytesIO()
    th.save(weights, buffer)
    path = tmp_path / "agent.zip"
    path.write_bytes(cartpole_teacher.read_bytes())
    rewrite(path, **{"policy.pth": buffer.getvalue()})
    with pytest.raises(AgentError, match="2,000 layers, more than the 100"):
        load_teacher(path)


def npy(shape: tuple[int, ...], descr: str = "<f8", data: bytes = b"12345678") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((10**9,)), r"has 8 bytes, not those of the shape \(1000000000,\)"),
        (npy((1,), "|O"), "of the type object"),
        (b"\x80\x04N.", "is no array"),
    ],
)
def test_arrays(content, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("results.npy", content)
    with pytest.raises(ReadError, match=message):
        read_npz(tmp_path / "a.npz")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ReadError, match=r"a.npy is"):
        map_npy(tmp_path / "a.npy")


def test_arrays_are_those_that_were_saved(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.eye(3)),
        "t": np.array("text"),
        "e": np.zeros(0),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert json.dumps(str(found["t"])) == '"text"'
