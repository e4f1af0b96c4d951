"""Files of trained agents, read without running what is in them.

An SB3 zip holds pickles, a run folder holds YAML that names Python objects, and ``vecnormalize.pkl`` is a pickle. Here
weights come through torch's ``weights_only`` reader, hyperparameters through plain JSON, a safe YAML loader and
``ast``, and normalisation statistics through an unpickler that knows arrays alone.
"""

import ast
import hashlib
import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml

# Far above any SB3 policy; a zip that claims more is an attack or a mistake.
_MAX_MEMBER_BYTES = 4 * 2**30


class TeacherError(ValueError):
    """An agent's files cannot be used as a teacher; the message says why and what to do."""


class TeacherNotFoundError(TeacherError, FileNotFoundError):
    """There are no such files."""


@dataclass(frozen=True)
class Archive:
    """
    What is read of an SB3 zip.

    :param data: the plain-JSON parts of the algorithm's attributes; pickled parts stay unread strings
    :param weights: the policy's state dict
    :param sha256: of the zip file
    :param n_bytes: size of the zip file
    """

    data: dict[str, Any]
    weights: dict[str, th.Tensor]
    sha256: str
    n_bytes: int


def read_archive(path: Path) -> Archive:
    """
    Read an SB3 zip.

    :param path: the zip, as the user gave it
    :return: what is in it
    :raises TeacherError: the file is damaged, is no SB3 zip, or holds weights that are not finite
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            # A zip that was cut at its very end can open as the torch zip inside it.
            missing = {"data", "policy.pth"} - set(names)
            if missing:
                raise TeacherError(
                    f"{path} is not a complete SB3 zip: {' and '.join(sorted(missing))} missing, found {names[:8]}. "
                    "Download or save it again."
                )
            members = {}
            for name in ("data", "policy.pth"):
                if archive.getinfo(name).file_size > _MAX_MEMBER_BYTES:
                    raise TeacherError(f"{path}: the member {name} claims {archive.getinfo(name).file_size} bytes.")
                members[name] = archive.read(name)
        data = json.loads(members["data"])
        weights = th.load(io.BytesIO(members["policy.pth"]), map_location="cpu", weights_only=True)
        if not isinstance(data, dict) or not _is_state_dict(weights):
            raise TeacherError(f"{path}: policy.pth holds no state dict of tensors, or data no attributes.")
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise TeacherError(f"{path}: the weights {name} hold NaN or infinite values; the agent cannot act.")
    except TeacherError:
        raise
    except Exception as error:
        # zipfile, zlib, json and torch report damage with exceptions of every kind.
        reason = str(error).splitlines()[0] if str(error) else "no details"
        raise TeacherError(
            f"{path} cannot be read as an SB3 zip ({type(error).__name__}: {reason}). It is damaged, was not written "
            "by model.save(), or holds more than weights; download or save it again."
        ) from error
    return Archive(data, dict(weights), hashlib.sha256(content).hexdigest(), len(content))


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, th.Tensor) for name, tensor in value.items()
    )


class _ZooLoader(yaml.SafeLoader):
    """SafeLoader that also reads the two Python tags which the Zoo's files are written with."""


def _ordered_dict(loader: yaml.SafeLoader, node: yaml.Node) -> OrderedDict[Any, Any]:
    assert isinstance(node, yaml.SequenceNode)
    return OrderedDict(*loader.construct_sequence(node, deep=True))


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> tuple[Any, ...]:
    assert isinstance(node, yaml.SequenceNode)
    return tuple(loader.construct_sequence(node, deep=True))


_ZooLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)
_ZooLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_yaml(path: Path | None) -> dict[str, Any]:
    """
    Read a run folder's ``config.yml``, ``args.yml`` or ``results.yml``.

    :param path: the file; None or a file that is not there gives an empty dictionary
    :return: its content
    :raises TeacherError: the file is no mapping, or wants Python objects to be made
    """
    if path is None or not path.is_file():
        return {}
    try:
        # A SafeLoader with two more constructors for plain containers
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_ZooLoader)
    except Exception as error:
        # PyYAML's constructors let through whatever int(), a dictionary or the stack's depth raise.
        raise TeacherError(f"{path} cannot be read safely: {error}") from error
    if not isinstance(content, dict):
        raise TeacherError(f"{path} holds no mapping of names to values, but {type(content).__name__}.")
    return content


def read_keywords(text: Any) -> dict[str, Any]:
    """
    The keywords of a hyperparameter such as ``"dict(net_arch=[256, 256], activation_fn=nn.ReLU)"``.

    :param text: what stands in ``config.yml``: text, or a mapping already
    :return: literals as they are, dotted names as text; whatever would have to be computed is left out
    """
    if isinstance(text, dict):
        return dict(text)
    try:
        expression = ast.parse(str(text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    pairs: Sequence[tuple[Any, ast.expr]] = ()
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name) and expression.func.id == "dict":
        pairs = [(keyword.arg, keyword.value) for keyword in expression.keywords if keyword.arg is not None]
    elif isinstance(expression, ast.Dict):
        pairs = [
            (key.value, value)
            for key, value in zip(expression.keys, expression.values, strict=True)
            if isinstance(key, ast.Constant)
        ]
    keywords: dict[str, Any] = {}
    for name, value in pairs:
        if isinstance(value, (ast.Name, ast.Attribute)):
            keywords[name] = ast.unparse(value)
        else:
            try:
                keywords[name] = ast.literal_eval(value)
            except (ValueError, TypeError, RecursionError):
                nested = read_keywords(ast.unparse(value))
                if nested:
                    keywords[name] = nested
    return keywords


@dataclass(frozen=True)
class Normalization:
    """
    VecNormalize's statistics of observations.

    :param mean: running mean
    :param var: running variance
    :param epsilon: added to the variance
    :param clip_obs: largest magnitude of a normalised observation
    """

    mean: np.ndarray
    var: np.ndarray
    epsilon: float
    clip_obs: float


class _Record:
    """Stands for an object of a library's class: keeps its state and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


_ARRAY_PARTS = {
    ("multiarray", "_reconstruct"): np.array(0).__reduce__()[0],
    ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
}
_PLAIN_CLASSES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "object"): object,
    ("__builtin__", "object"): object,
}
_RECORDED_LIBRARIES = ("stable_baselines3.", "gym.", "gymnasium.", "numpy.random.")


class _StatisticsUnpickler(pickle.Unpickler):
    """Rebuilds arrays; objects of SB3 and Gym become records; nothing else is looked up, let alone imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN_CLASSES:
            return _PLAIN_CLASSES[module, name]
        if (module, name) in (("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")):
            return lambda cls, base, state: _Record()
        # NumPy 2 moved numpy.core to numpy._core.
        if module.startswith(("numpy.core.", "numpy._core.")):
            if name == "_frombuffer":
                # How pickle protocol 5, Python 3.14's default, has arrays. NumPy's own function could be written to.
                return lambda buffer, dtype, shape, order: np.frombuffer(buffer, dtype).reshape(shape, order=order)
            part = _ARRAY_PARTS.get((module.rsplit(".", 1)[1], name))
            if part is not None:
                return part
        if module.startswith(_RECORDED_LIBRARIES):
            return _Record
        raise TeacherError(f"it asks for {module}.{name}, which statistics have no use for")


def read_normalization(path: Path) -> Normalization | None:
    """
    Read the statistics that a VecNormalize environment saved.

    :param path: ``vecnormalize.pkl``
    :return: the statistics of the observations; None where these were not normalised
    :raises TeacherError: the file is damaged, holds anything but statistics, or those of Dict observations
    """
    try:
        state = vars(_StatisticsUnpickler(io.BytesIO(path.read_bytes())).load())
        if not state.get("norm_obs", True):
            return None
        statistics = state["obs_rms"]
        if isinstance(statistics, dict):
            raise TeacherError(f"the observations were Dict, with the keys {sorted(statistics)}")
        mean, var = (np.asarray(getattr(statistics, name), dtype=np.float64) for name in ("mean", "var"))
        normalization = Normalization(mean, var, float(state["epsilon"]), float(state["clip_obs"]))
    except Exception as error:
        # A pickle that is damaged, or that is something else, can fail in any way.
        raise TeacherError(
            f"{path} cannot be used as VecNormalize statistics ({type(error).__name__}: {error}). Save it again with "
            "VecNormalize.save(), for an environment with Box observations."
        ) from error
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and mean.shape == var.shape):
        raise TeacherError(f"{path}: the statistics hold NaN or infinite values, or shapes that differ.")
    return normalization
