"""Reads SB3's zip of a trained agent without unpickling any of its content."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch as th

from sb3_distill.agents.files import AgentError

# Far above the size of any SB3 policy; a larger member is an attack or a mistake.
_MAX_MEMBER_BYTES = 4 * 2**30


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
    :raises AgentError: the file is damaged, is not an SB3 zip, or holds weights that are not finite
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            # If the end of the file is missing, zipfile can open the torch zip (policy.pth) inside it instead.
            missing = {"data", "policy.pth"} - set(names)
            if missing:
                raise AgentError(
                    f"{path} is not a complete SB3 zip: {' and '.join(sorted(missing))} missing, found {names[:8]}. "
                    "Download or save it again."
                )
            members = {}
            for name in ("data", "policy.pth"):
                if archive.getinfo(name).file_size > _MAX_MEMBER_BYTES:
                    raise AgentError(
                        f"{path}: its member {name} would be {archive.getinfo(name).file_size} bytes, more than the "
                        f"{_MAX_MEMBER_BYTES} that are read. Download or save it again."
                    )
                members[name] = archive.read(name)
        data = json.loads(members["data"])
        weights = th.load(io.BytesIO(members["policy.pth"]), map_location="cpu", weights_only=True)
        if not isinstance(data, dict) or not _is_state_dict(weights):
            raise AgentError(
                f"{path} is not an SB3 zip: policy.pth holds no state dict of tensors, or data is not a JSON object of "
                "attributes. Download or save it again."
            )
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise AgentError(f"{path}: the weights {name} hold NaN or infinite values; the agent cannot act.")
    except AgentError:
        raise
    except Exception as error:
        # zipfile, zlib, json and torch raise many different types of exceptions for a damaged file.
        reason = str(error).splitlines()[0] if str(error) else "no details"
        raise AgentError(
            f"{path} cannot be read as an SB3 zip ({type(error).__name__}: {reason}). It is damaged, was not written "
            "by model.save(), or holds more than weights; download or save it again."
        ) from error
    return Archive(data, dict(weights), hashlib.sha256(content).hexdigest(), len(content))


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, th.Tensor) for name, tensor in value.items()
    )
