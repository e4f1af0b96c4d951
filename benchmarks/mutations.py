"""Seeded damage of files: bits, members of zips, JSON, YAML, arrays and pickles that would run code."""

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import yaml

MODULE = "canary_module"


class Canary:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (self.marker, "w")


def odd_values(marker: str) -> list[Any]:
    """Values that stand where others are expected."""
    code = f"open({marker!r}, 'w')"
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    return [
        *(None, True, -1, 0, 2**31, 10**12, 3 * 10**7, 10**30, 1e308, float("nan"), float("inf"), "", [], {}, [[]]),
        *("text", "$\\foo$", "\\input{x}", "<script>x</script>", "|a|\n\n# b", "../../../etc", "/etc/passwd", "a\0b"),
        *("x" * 100_000, "..", code, f"dict(a={code})", f"__import__('{MODULE}')", f"{MODULE}:Env-v0", "\ud800"),
        *(
            f"{MODULE}.Wrapper",
            "subprocess.Popen",
            {f"{MODULE}.W": {}},
            {f"a:{code}": 1},
            {"env_ids": [f"{MODULE}:E-v0"]},
        ),
        *(
            [10**9, 10**9],
            [-1],
            [1.5],
            ["a"],
            {"a": {"b": deep}},
            deep,
            list(range(30_000)),
            "hub:nobody/dqn-Nothing-v0",
        ),
        *("(1000000000,)", "object", "O", "V1000000000", "<class 'os.system'>", "torch.nn.ReLU", "MultiTask-v0"),
    ]


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, repeat, overwrite or insert."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place, size = rng.randrange(len(data) + 1), rng.choice([1, 4, 8, 64, 1000])
        match rng.randrange(6):
            case 0 if data:
                data[place % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[place:]
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = data[place : place + size]
            case 4:
                data[place : place + size] = rng.randbytes(size)
            case 5:
                number = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 10**9])
                data[place : place + 8] = struct.pack("<Q", number)
    return bytes(data)


def mutate_value(value: Any, rng: random.Random, marker: str) -> Any:
    """Put an odd value somewhere into JSON or YAML, or take something out of it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        match rng.randrange(12):
            case 0:
                return {key: entry for key, entry in value.items() if key != name}
            case 1:
                return {**value, str(rng.choice(odd_values(marker)))[:500]: value[name]}
            case _:
                return {**value, name: mutate_value(value[name], rng, marker)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], mutate_value(value[place], rng, marker), *value[place + rng.choice([0, 1, 1, 1]) :]]
    return rng.choice(odd_values(marker))


def mutate_json(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage JSON as bytes or in its meaning."""
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    if rng.random() < 0.05:
        return b"[" * rng.choice([100, 100_000]) + b"]" * 100
    return json.dumps(mutate_value(json.loads(content), rng, marker)).encode()


def mutate_yaml(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage YAML as bytes or in its meaning, or add tags and aliases."""
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    texts = [
        f"!!python/object/apply:builtins.open [{marker!r}, w]",
        f"!!python/object/new:{MODULE}.X []",
        f"!!python/module:{MODULE}",
        f"!!python/name:{MODULE}.x",
        "&x [*x]",
        "!!binary aGVsbG8=",
        "!!set {a, b}",
        "2001-99-99",
        "!!timestamp 2001-01-01",
        "[" * rng.choice([60, 5000]),
        "{? [a]: b}",
        "!!int ''",
        ":".join(["1"] * 20_000),
    ]
    match rng.randrange(5):
        case 0:
            return mutate_bytes(content, rng)
        case 1:
            return f"a0: &a0 [x, x, x]\n{levels}".encode() + content
        case 2:
            lines = content.decode().split("\n")
            place = rng.randrange(len(lines))
            name = lines[place].partition(":")[0]
            lines[place] = f"{name}: {rng.choice(texts)}"
            return "\n".join(lines).encode()
        case _:
            value = mutate_value(yaml.safe_load(content), rng, marker)
            return yaml.dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def mutate_npy(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage an array: its header, its bytes, or objects in its place."""
    match rng.randrange(4):
        case 0:
            return mutate_bytes(content, rng)
        case 1:
            buffer = io.BytesIO()
            np.save(buffer, np.array([Canary(marker)], dtype=object))
            return buffer.getvalue()
        case 2:
            header = {
                "descr": rng.choice(["<f8", "|O", "|V8", "<U1000000", "<c16", "|b1", [("a", "<f8")], "<f4"]),
                "fortran_order": rng.choice([False, True]),
                "shape": rng.choice([(10**9,), (10**12, 10**12), (), (0,), (-1,), (2, 2), (1,) * 40]),
            }
            text = repr(header).encode() + b"\n"
            return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content[128:]
        case _:
            return pickle.dumps(Canary(marker))


def mutate_pickle(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage a pickle: its types, its sizes, or code in it."""
    match rng.randrange(8):
        case 0:
            return pickle.dumps(Canary(marker), protocol=rng.randrange(6))
        case 1:
            kind = rng.choice([b"O8", b"V8", b"S8", b"c8", b"M8", b"f4", b"x8"])
            return content.replace(b"f8", kind, rng.choice([1, -1]))
        case 2:
            # A memo that would take all memory, an opcode of a bomb, a string of 2^62 bytes
            bomb = rng.choice(
                [b"r\xff\xff\xff\x7f", b"0" * 9, b"\x8e" + struct.pack("<Q", 2**62), b"\x96" + b"\xff" * 8]
            )
            place = rng.randrange(2, len(content))
            return content[:place] + bomb + content[place:]
        case 3:
            return pickle.dumps({"obs_rms": Canary(marker), "norm_obs": True, "epsilon": 1e-8, "clip_obs": 10.0})
        case 4:
            # t = (t, t), as the key of a dictionary
            return b"\x80\x04)" + b"2\x86" * 200 + b"}" + b"K\x01K\x02s."
        case 5:
            return content[:-1] + rng.choice([b"cos\nsystem\n(V" + marker.encode() + b"\ntR.", b"}b.", b"Nb.", b"0."])
        case 6:
            state = pickle.loads(content)
            name = rng.choice(["epsilon", "clip_obs", "norm_obs", "norm_obs_keys"])
            # What VecNormalize leaves out when it is pickled
            vars(state).update(venv=None, class_attributes={}, returns=None)
            setattr(state, name, rng.choice([-1.0, 0.0, float("nan"), None, "x", [], 10**400]))
            return pickle.dumps(state)
        case _:
            return mutate_bytes(content, rng)


def bomb(rng: random.Random) -> bytes:
    """Zeros that compress a thousand times."""
    return bytes(rng.choice([20, 20, 200]) * 2**20)


def mutate_zip(content: bytes, rng: random.Random, members: dict[str, Callable[..., bytes]], marker: str) -> bytes:
    """
    :param content: a zip
    :param rng: the generator
    :param members: by the end of their names, how members are damaged
    :param marker: file that code would make
    :return: the zip, damaged as bytes or in a member
    """
    if rng.random() < 0.25:
        return mutate_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    chosen = [name for name in files if name.endswith(tuple(members))]
    name, other = rng.choice(chosen), rng.choice(list(files))
    mutate = next(mutate for end, mutate in members.items() if name.endswith(end))
    kind = zipfile.ZIP_STORED
    match rng.randrange(12):
        case 0:
            del files[name]
        case 1:
            files[name], files[other] = files[other], files[name]
        case 2:
            files[name] = bomb(rng)
            kind = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
        case _:
            files[name] = mutate(files[name], rng, marker)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, data in files.items():
            archive.writestr(entry, data, kind if entry == name else zipfile.ZIP_STORED)
        if rng.random() < 0.02:
            archive.writestr(name, b"twice")
    return buffer.getvalue()


def mutate_onnx(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage an ONNX file as bytes, or say something odd in its graph: sizes, types, names, operators, places."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    model = onnx.load_model_from_string(content)
    graph = model.graph
    node, weights = rng.choice(graph.node), rng.choice(graph.initializer)
    port = rng.choice([*graph.input, *graph.output])
    size = rng.choice([0, -1, 2**31, 10**12, 2**62])
    match rng.randrange(9):
        case 0:
            weights.dims[rng.randrange(len(weights.dims))] = size
        case 1:
            weights.data_type = rng.randrange(30)
        case 2:
            weights.ClearField("raw_data")
            weights.data_location = onnx.TensorProto.EXTERNAL
            places = ["../policy.onnx", "/etc/passwd", marker, "policy.onnx", "", "\0"]
            weights.external_data.add(key="location", value=rng.choice(places))
            weights.external_data.add(key="length", value=str(size))
        case 3:
            node.domain = rng.choice(["com.microsoft", "my.operators", "ai.onnx.ml", "ai.onnx.training"])
        case 4:
            node.op_type = rng.choice(["Anything", "If", "Loop", "LSTM", "Reshape", "Softmax", ""])
        case 5:
            node.input[rng.randrange(len(node.input))] = rng.choice([node.output[0], "nothing", "", "x" * 10_000])
        case 6:
            port.type.tensor_type.elem_type = rng.randrange(30)
        case 7:
            port.type.tensor_type.shape.dim.add().dim_value = size
        case _:
            model.opset_import[0].version = rng.choice([0, -1, 1, 10**9])
    return bytes(model.SerializeToString())
