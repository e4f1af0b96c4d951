"""Files of plain values and arrays, such as the state of a run: a zip of JSON and raw arrays that needs no pickle."""

import json
import math
import zipfile
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_distill.common.files import whole_file
from sb3_distill.common.formats import format_problem
from sb3_distill.reading.files import open_zip
from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.text import parse_json

FORMAT = 1
_CONTENT = "state.json"
# Bytes that are written or read at a time
_CHUNK = 2**24


class StateFileError(ValueError):
    """A state file cannot be read; the message says why and what to do."""


@dataclass
class Blocks:
    """
    Many pieces of bytes of one length, which are written one after the other without a copy of them all.

    :param items: the pieces
    """

    items: list[bytes]


class NotPlainError(TypeError):
    """A value holds something that a state file cannot hold, such as an object of a class."""


@dataclass
class _Encoder:
    """Turns values into JSON, and puts arrays aside."""

    members: list[np.ndarray | Blocks] = field(default_factory=list)

    def encode(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.generic):
            return {"scalar": self.encode(np.asarray(value))}
        if isinstance(value, th.Tensor):
            # NumPy has no bfloat16.
            raw = value.detach().cpu().contiguous()
            stored = raw.view(th.int16) if raw.dtype == th.bfloat16 else raw
            return {
                "tensor": self.encode(stored.numpy()),
                "dtype": str(raw.dtype).removeprefix("torch."),
                # Such as channels_last, on which the order of operations depends, and so the last bit of an update
                "stride": list(value.stride()),
            }
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self.members.append(value)
            return {"array": len(self.members) - 1, "dtype": value.dtype.str, "shape": list(value.shape)}
        if isinstance(value, Blocks):
            self.members.append(value)
            size = len(value.items[0]) if value.items else 0
            return {"blocks": len(self.members) - 1, "size": size, "count": len(value.items)}
        if isinstance(value, (list, deque)):
            return [self.encode(item) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [self.encode(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": [[self.encode(key), self.encode(item)] for key, item in value.items()]}
        raise NotPlainError(f"{type(value).__name__} is no plain value")


def check_plain(value: Any) -> None:
    """
    :param value: a value
    :raises NotPlainError: a state file cannot hold it
    """
    _Encoder().encode(value)


def write_state(path: Path, content: dict[str, Any]) -> None:
    """
    Write a state file, whole or not at all.

    :param path: the file
    :param content: numbers, text, arrays, tensors and ``Blocks``, in lists, tuples and dictionaries
    :raises NotPlainError: the content holds something else
    :raises OSError: the file cannot be written
    """
    encoder = _Encoder()
    encoded = encoder.encode(content)
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_CONTENT, json.dumps({"format": FORMAT, "content": encoded}))
        for index, member in enumerate(encoder.members):
            with archive.open(str(index), "w", force_zip64=True) as stream:
                for chunk in _chunks(member):
                    stream.write(chunk)


def _chunks(member: np.ndarray | Blocks) -> Iterable[bytes | memoryview]:
    if isinstance(member, Blocks):
        step = max(_CHUNK // max(len(member.items[0]), 1), 1) if member.items else 1
        for start in range(0, len(member.items), step):
            yield b"".join(member.items[start : start + step])
    elif member.size:
        data = np.ascontiguousarray(member).reshape(-1).view(np.uint8)
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK].data


def read_state(path: Path, only: Collection[str] | None = None) -> dict[str, Any]:
    """
    Read a state file. Nothing in it is unpickled.

    :param path: the file
    :param only: names of the entries that are read, without the arrays of others; None: all
    :return: its content; deques come back as lists
    :raises StateFileError: the file is damaged, or of another version
    :raises FileNotFoundError: there is no such file
    """
    try:
        with open_zip(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ReadError("a member of it is compressed")
            stored = parse_json(archive.read(_CONTENT))
            problem = format_problem(path, stored["format"], FORMAT)
            if problem is not None:
                raise StateFileError(problem)
            content = stored["content"]
            if only is not None:
                content = {"dict": [(name, value) for name, value in content["dict"] if name in only]}
            content = _decode(content, archive)
    except (StateFileError, FileNotFoundError):
        raise
    except Exception as error:
        # zipfile, json and numpy raise many different types of exceptions for a damaged file.
        raise StateFileError(
            f"{path} cannot be read as a state file ({type(error).__name__}: {error}): it is damaged. Go on from an "
            "older one, or start anew."
        ) from error
    if not isinstance(content, dict):
        raise StateFileError(f"{path} is no state file: it holds the type {type(content).__name__}.")
    return content


def _decode(value: Any, archive: zipfile.ZipFile) -> Any:
    def decode(part: Any) -> Any:
        return _decode(part, archive)

    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(decode(item) for item in value["tuple"])
    if "dict" in value:
        return {decode(key): decode(item) for key, item in value["dict"]}
    if "scalar" in value:
        return decode(value["scalar"])[()]
    if "tensor" in value:
        return _tensor(decode(value["tensor"]), value["dtype"], value["stride"])
    if "blocks" in value:
        return Blocks(_read_blocks(archive, str(value["blocks"]), value["size"], value["count"]))
    dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
    if dtype.hasobject or archive.getinfo(str(value["array"])).file_size != math.prod(shape) * dtype.itemsize:
        raise ReadError(f"an array of type {dtype} and shape {shape} has another size")
    # A bytearray, because arrays must be writable.
    return np.frombuffer(bytearray(archive.read(str(value["array"]))), dtype).reshape(shape)


def _tensor(array: np.ndarray, dtype: str, stride: list[int]) -> th.Tensor:
    tensor, kind = th.from_numpy(array), getattr(th, dtype)
    # Dense, in whatever order of dimensions
    room = 1 + sum((length - 1) * step for length, step in zip(array.shape, stride, strict=True))
    if tensor.numel() > 0 and (room != tensor.numel() or min(stride, default=0) < 0):
        raise ReadError(f"a tensor of shape {array.shape} has the strides {stride}")
    return th.empty_strided(tensor.shape, stride, dtype=kind).copy_(tensor.view(kind))


def _read_blocks(archive: zipfile.ZipFile, name: str, size: int, count: int) -> list[bytes]:
    if archive.getinfo(name).file_size != size * count or (size == 0 and count > 0):
        raise ReadError(f"{count} pieces of {size} bytes have another size")
    with archive.open(name) as stream:
        return [stream.read(size) for _ in range(count)]
