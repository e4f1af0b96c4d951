"""Reads files and members of zips up to a limit, whatever size they state."""

import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sb3_distill.reading.limits import MAX_EXPANSION, MIB, ReadError, check_size


def read_file(path: Path, limit: int) -> bytes:
    """
    :param path: a file
    :param limit: the largest size that is read
    :return: its content
    :raises OSError: it cannot be opened
    :raises ReadError: it is larger
    """
    with path.open("rb") as file:
        check_size("it", os.fstat(file.fileno()).st_size, limit)
        content = file.read(limit + 1)
    # Devices and pipes state no size.
    check_size("it", len(content), limit)
    return content


def hash_file(file: BinaryIO, limit: int) -> tuple[str, int]:
    """
    :param file: an open file
    :param limit: the largest size that is read
    :return: its SHA-256 hash and its size
    :raises ReadError: it is larger
    """
    check_size("it", os.fstat(file.fileno()).st_size, limit)
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(MIB):
        size += len(chunk)
        check_size("it", size, limit)
        digest.update(chunk)
    return digest.hexdigest(), size


@contextmanager
def open_zip(file: BinaryIO | Path) -> Iterator[zipfile.ZipFile]:
    """
    :param file: a zip
    :return: the zip, in which no name stands twice
    :raises ReadError: a name does
    """
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ReadError(f"it has two members with the name {twice!r}")
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """
    :param archive: a zip
    :param name: a member
    :param limit: the largest size that is read
    :return: its content, whose checksum is right
    :raises ReadError: it states another size than it has, is larger than the limit, or is compressed in an unusual way
    """
    info = archive.getinfo(name)
    check_size(f"its member {name}", info.file_size, limit)
    if info.file_size > MIB * 16 and info.file_size > MAX_EXPANSION * info.compress_size:
        raise ReadError(
            f"its member {name} unpacks {info.compress_size:,} bytes to {info.file_size:,}, more than "
            f"{MAX_EXPANSION} times as many"
        )
    # bzip2 and LZMA unpack what they are given at once, so that no limit holds.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ReadError(
            f"its member {name} is compressed with method {info.compress_type}, neither stored nor deflated"
        )
    with archive.open(info) as member:
        content = member.read(info.file_size)
    if len(content) != info.file_size:
        raise ReadError(f"its member {name} has {len(content):,} bytes, not the {info.file_size:,} that it states")
    return content
