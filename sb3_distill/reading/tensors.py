"""Reads a state dict that PyTorch saved, without PyTorch's own unpickler: it trusts the sizes that a file states."""

import io
import math
import sys
import zipfile
from typing import Any

import torch as th

from sb3_distill.reading.files import open_zip, read_member
from sb3_distill.reading.limits import (
    MAX_DATA_BYTES,
    MAX_DIMENSIONS,
    MAX_TENSORS,
    MAX_WEIGHTS_BYTES,
    ReadError,
    check_size,
)
from sb3_distill.reading.pickles import Name, Record, read_pickle

_DTYPES = {
    "DoubleStorage": th.float64,
    "FloatStorage": th.float32,
    "HalfStorage": th.float16,
    "BFloat16Storage": th.bfloat16,
    "LongStorage": th.int64,
    "IntStorage": th.int32,
    "ShortStorage": th.int16,
    "CharStorage": th.int8,
    "ByteStorage": th.uint8,
    "BoolStorage": th.bool,
}
# Kinds of tensors, by a part of the name of what PyTorch calls to make them
_REFUSED = {
    "qtensor": "quantized",
    "sparse": "sparse",
    "meta": "without content (meta)",
    "nested": "nested",
    "wrapper_subclass": "of a class of its own",
    "device_tensor": "of a device that is not here",
}
_MODULES = ("torch", "torch._utils", "torch._tensor", "torch.serialization", "torch.storage", "collections")
NO_STATE_DICT = "policy.pth holds no state dict of tensors"


def read_state_dict(content: bytes) -> dict[str, th.Tensor]:
    """
    :param content: what ``torch.save`` wrote of a state dict
    :return: the tensors by name; those that were saved with common memory have it again
    :raises ReadError: it is damaged, holds anything else, or tensors that are quantized, sparse, complex or of the
        meta device; or a tensor asks for more numbers than are there
    :raises zipfile.BadZipFile: it is no zip, as PyTorch before 1.6 wrote
    """
    if not content.startswith(b"PK"):
        raise ReadError("policy.pth is no zip: PyTorch before 1.6 wrote it, or it is damaged")
    with open_zip(io.BytesIO(content)) as archive:
        found = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            raise ReadError("policy.pth has no data.pkl, so PyTorch did not write it")
        reader = _TensorReader(archive, found[0].removesuffix("data.pkl"))
        pickled = read_member(archive, found[0], MAX_DATA_BYTES)
        state = read_pickle(pickled, lambda name: name.module in _MODULES, "weights")
        if isinstance(state, Record) and state.maker == Name("collections", "OrderedDict"):
            state = state.items
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise ReadError(NO_STATE_DICT)
        check_size("policy.pth", len(state), MAX_TENSORS, "tensors")
        return {name: reader.tensor(name, record) for name, record in state.items()}


class _TensorReader:
    """
    Makes tensors of the records of a zip.

    :param archive: the zip
    :param folder: the folder of all its members
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.archive, self.folder = archive, folder
        self.storages: dict[tuple[str, str], th.Tensor] = {}
        self.n_bytes = self.n_numbers = 0
        order = f"{folder}byteorder"
        if order in archive.namelist() and read_member(archive, order, 16).decode() != sys.byteorder:
            raise ReadError("policy.pth was written by a machine with another byte order")

    def tensor(self, name: str, record: Any) -> th.Tensor:
        """The tensor of this name."""
        maker = record.maker if isinstance(record, Record) else None
        if maker == Name("torch._utils", "_rebuild_parameter"):
            return self.tensor(name, record.arguments[0])
        if maker != Name("torch._utils", "_rebuild_tensor_v2"):
            kind = next((kind for part, kind in _REFUSED.items() if part in str(maker)), None)
            raise ReadError(NO_STATE_DICT if kind is None else f"the weights {name} are {kind}, not plain numbers")
        try:
            storage, offset, size, stride = record.arguments[:4]
            numbers = self.storage(name, storage)
            sizes, strides = tuple(map(int, size)), tuple(map(int, stride))
            if min((offset, *sizes, *strides)) < 0 or len(sizes) != len(strides) or len(sizes) > MAX_DIMENSIONS:
                raise ReadError(f"the weights {name} have an impossible shape")
            count = math.prod(sizes)
            last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
            # Views that show a number several times may have any size.
            if count > numbers.numel() or (count and last >= numbers.numel()) or (not count and max(sizes) > 2**31):
                raise ReadError(f"the weights {name} have the shape {sizes}, but only {numbers.numel():,} numbers")
            self.n_numbers += count
            check_size("policy.pth", self.n_numbers, MAX_WEIGHTS_BYTES, "numbers")
            return numbers.as_strided(sizes, strides, offset)
        except ReadError:
            raise
        except Exception as error:
            raise ReadError(f"the weights {name} are damaged ({type(error).__name__}: {error})") from error

    def storage(self, name: str, reference: Any) -> th.Tensor:
        """The numbers behind a tensor, in one row."""
        kind, storage, key, *_ = reference.arguments
        dtype = _DTYPES.get(storage.name) if kind == "storage" and storage.module == "torch" else None
        if dtype is None:
            what = storage.name.removesuffix("Storage").lower()
            raise ReadError(f"the weights {name} are of the type {what}, not plain numbers")
        if (key, storage.name) not in self.storages:
            content = read_member(self.archive, f"{self.folder}data/{key}", MAX_WEIGHTS_BYTES - self.n_bytes)
            self.n_bytes += len(content)
            count = len(content) // dtype.itemsize
            self.storages[key, storage.name] = (
                th.frombuffer(bytearray(content), dtype=dtype, count=count) if count else th.empty(0, dtype=dtype)
            )
        return self.storages[key, storage.name]
