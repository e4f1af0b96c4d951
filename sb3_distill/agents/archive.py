"""Reads SB3's zip of a trained agent without unpickling any of its content."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch as th

from sb3_distill.agents.files import AgentError
from sb3_distill.common.formats import format_problem
from sb3_distill.reading.files import hash_file, open_zip, read_member
from sb3_distill.reading.limits import MAX_DATA_BYTES, MAX_WEIGHTS_BYTES, MAX_ZIP_BYTES
from sb3_distill.reading.tensors import read_state_dict
from sb3_distill.reading.text import parse_json

# Version of what our algorithms add to SB3's zip, and its name there; SB3's own zips and our first ones do not have it
FORMAT, FORMAT_NAME = 2, "sb3_distill_format"


@dataclass(frozen=True)
class Archive:
    """
    The parts of an SB3 zip that are read.

    :param data: the algorithm's attributes that are plain JSON; pickled attributes stay strings and are not unpickled
    :param weights: the policy's state dict
    :param sha256: SHA-256 hash of the zip file
    :param zip_bytes: size of the zip file
    """

    data: dict[str, Any]
    weights: dict[str, th.Tensor]
    sha256: str
    zip_bytes: int


def read_archive(path: Path) -> Archive:
    """
    Read an SB3 zip.

    :param path: path of the zip, as the user gave it
    :return: the content of the zip
    :raises AgentError: the file is damaged, is not an SB3 zip, is larger than is read, is of a later version, or holds
        weights that are not plain finite numbers
    """
    try:
        with path.open("rb") as file:
            sha256, zip_bytes = hash_file(file, MAX_ZIP_BYTES)
            with open_zip(file) as archive:
                names = archive.namelist()
                # If the end of the file is missing, zipfile can open the torch zip (policy.pth) inside it instead.
                missing = {"data", "policy.pth"} - set(names)
                if missing:
                    raise AgentError(
                        f"{path} is not a complete SB3 zip: {' and '.join(sorted(missing))} missing, found "
                        f"{names[:8]}. Download or save it again."
                    )
                data = parse_json(read_member(archive, "data", MAX_DATA_BYTES))
                weights = read_state_dict(read_member(archive, "policy.pth", MAX_WEIGHTS_BYTES))
        if not isinstance(data, dict):
            raise AgentError(
                f"{path} is not an SB3 zip: its data is no JSON object of attributes. Download or save it again."
            )
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise AgentError(f"{path}: the weights {name} hold NaN or infinite values; the agent cannot act.")
    except AgentError:
        raise
    except Exception as error:
        # zipfile, zlib and json raise many different types of exceptions for a damaged file.
        reason = str(error).splitlines()[0] if str(error) else "no details"
        raise AgentError(
            f"{path} cannot be read as an SB3 zip ({type(error).__name__}: {reason}). It is damaged, was not written "
            "by model.save(), or holds more than weights; download or save it again."
        ) from error
    problem = format_problem(path, data.get(FORMAT_NAME, 1), FORMAT)
    if problem is not None:
        raise AgentError(problem)
    return Archive(data, weights, sha256, zip_bytes)
