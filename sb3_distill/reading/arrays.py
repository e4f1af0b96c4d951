"""Reads NumPy's files: no objects, and no memory for more than a file has."""

import io
from pathlib import Path

import numpy as np

from sb3_distill.reading.files import open_zip, read_member
from sb3_distill.reading.limits import MAX_ARRAY_BYTES, MAX_DIMENSIONS, ReadError, check_size

# Numbers, truth values and text
_KINDS = "biufU"


def read_npz(path: Path, limit: int = MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    """
    :param path: what ``np.savez`` wrote
    :param limit: the most bytes that all arrays may have together
    :return: the arrays by name
    :raises OSError: it cannot be opened
    :raises ReadError: an array has objects, another size than it states, or more bytes than the limit
    :raises zipfile.BadZipFile: it is no zip, or damaged
    """
    arrays = {}
    with open_zip(path) as archive:
        for name in archive.namelist():
            content = read_member(archive, name, limit)
            limit -= len(content)
            arrays[name.removesuffix(".npy")] = _parse_npy(name, content)
    return arrays


def _parse_npy(name: str, content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
    except Exception as error:
        # The header is a literal of Python, which fails in many ways.
        raise ReadError(f"its member {name} is no array ({error})") from error
    check_dtype(f"its member {name}", dtype)
    check_size(f"the shape of {name}", len(shape), MAX_DIMENSIONS, "numbers")
    data = content[file.tell() :]
    count = 1
    for size in shape:
        count *= size
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(data):
        raise ReadError(f"its member {name} has {len(data):,} bytes, not those of the shape {shape} that it states")
    return np.frombuffer(data, dtype, count).reshape(shape, order="F" if is_fortran else "C")


def check_dtype(what: str, dtype: np.dtype) -> None:
    """
    :param what: what is of this type, for the message
    :param dtype: a type
    :raises ReadError: it is not of numbers, truth values or text
    """
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise ReadError(f"{what} is of the type {dtype}, not of numbers")


def map_npy(path: Path) -> np.ndarray:
    """
    :param path: what ``np.save`` wrote
    :return: the array, mapped from the disk
    :raises OSError: it cannot be opened
    :raises ReadError: it is no array of numbers, or smaller than it states
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:
        raise ReadError(f"{path.name} is no array of numbers ({error})") from error
    check_dtype(path.name, array.dtype)
    return array
