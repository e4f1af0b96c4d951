"""Reads the VecNormalize statistics of an agent without running any code from their pickle."""

import hashlib
import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_distill.agents.files import AgentError


@dataclass(frozen=True)
class Normalization:
    """
    The statistics by which VecNormalize normalizes observations.

    :param mean: running mean; for Dict observations, that of each normalized key
    :param var: running variance, likewise
    :param epsilon: added to the variance before the square root
    :param clip_obs: normalized observations are clipped to [-clip_obs, clip_obs]
    """

    mean: np.ndarray | dict[str, np.ndarray]
    var: np.ndarray | dict[str, np.ndarray]
    epsilon: float
    clip_obs: float

    @property
    def parts(self) -> dict[str | None, tuple[np.ndarray, np.ndarray]]:
        """Mean and variance of each normalized key; under None where observations are no Dict."""
        if isinstance(self.mean, dict):
            assert isinstance(self.var, dict)
            return {key: (mean, self.var[key]) for key, mean in self.mean.items()}
        assert not isinstance(self.var, dict)
        return {None: (self.mean, self.var)}

    @property
    def sha256(self) -> str:
        """Hash of the numbers that act on observations, which is the same for every file that holds them."""
        digest = hashlib.sha256(np.array([self.epsilon, self.clip_obs]).tobytes())
        for key, (mean, var) in sorted(self.parts.items(), key=lambda part: str(part[0])):
            digest.update(f"{key} {mean.shape}".encode() + mean.tobytes() + var.tobytes())
        return digest.hexdigest()

    def raw_space(self, space: spaces.Space) -> spaces.Space:
        """
        :param space: the observations of an agent, which fit the statistics
        :return: those before VecNormalize; the statistics say nothing of their bounds
        """
        if isinstance(space, spaces.Dict):
            return spaces.Dict(
                {key: _unbounded(part) if key in self.parts else part for key, part in space.spaces.items()}
            )
        return _unbounded(space)

    def find_misfit(self, space: spaces.Space) -> str | None:
        """
        :param space: the observations of an agent
        :return: how they differ from the statistics in shape; None if they do not
        """
        for key, (mean, _) in self.parts.items():
            part: Any = space
            if key is not None:
                part = space.spaces.get(key) if isinstance(space, spaces.Dict) else None
            if isinstance(part, spaces.Box) and part.shape == mean.shape:
                continue
            of_key = "" if key is None else f" for the key {key!r}"
            found = f"of shape {part.shape}" if isinstance(part, spaces.Box) else str(space)
            return f"of shape {mean.shape}{of_key}, its observations{of_key and ' there'} {found}"
        return None


def _unbounded(space: spaces.Space) -> spaces.Space:
    assert isinstance(space, spaces.Box)
    return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)


class _Record:
    """Takes the place of an object of SB3, Gym or NumPy: keeps the object's attributes, but has none of its methods."""

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
    """Rebuilds arrays, and turns objects of SB3, Gym and numpy.random into records. It imports nothing, and refuses
    every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN_CLASSES:
            return _PLAIN_CLASSES[module, name]
        if (module, name) in (("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")):
            return lambda cls, base, state: _Record()
        # NumPy 2 moved numpy.core to numpy._core.
        if module.startswith(("numpy.core.", "numpy._core.")):
            if name == "_frombuffer":
                # Pickle protocol 5 (the default of Python 3.14) stores arrays in this way. Use a function of our own
                # instead of NumPy's: the pickle could set attributes on the latter.
                return lambda buffer, dtype, shape, order: np.frombuffer(buffer, dtype).reshape(shape, order=order)
            part = _ARRAY_PARTS.get((module.rsplit(".", 1)[1], name))
            if part is not None:
                return part
        if module.startswith(_RECORDED_LIBRARIES):
            return _Record
        raise AgentError(f"it refers to {module}.{name}, which does not belong in VecNormalize statistics")


def normalization_of(statistics: Any, keys: list[str] | None, epsilon: float, clip_obs: float) -> Normalization:
    """
    Copy the statistics of a VecNormalize environment.

    :param statistics: its ``obs_rms``; for Dict observations a dictionary
    :param keys: its ``norm_obs_keys``; None: all for which there are statistics
    :param epsilon: its ``epsilon``
    :param clip_obs: its ``clip_obs``
    :return: the copy
    """

    def copy(name: str) -> np.ndarray | dict[str, np.ndarray]:
        if isinstance(statistics, dict):
            normalized = statistics if keys is None else keys
            return {key: np.array(getattr(statistics[key], name), dtype=np.float64) for key in normalized}
        return np.array(getattr(statistics, name), dtype=np.float64)

    return Normalization(copy("mean"), copy("var"), epsilon, clip_obs)


def read_normalization(path: Path) -> Normalization | None:
    """
    Read the statistics that a VecNormalize environment saved.

    :param path: ``vecnormalize.pkl``
    :return: the statistics of the observations; None if the observations were not normalized
    :raises AgentError: the file is damaged, or holds anything but statistics
    """
    try:
        state = vars(_StatisticsUnpickler(io.BytesIO(path.read_bytes())).load())
        if not state.get("norm_obs", True):
            return None
        statistics = state["obs_rms"]
        normalization = normalization_of(
            statistics, state.get("norm_obs_keys"), float(state["epsilon"]), float(state["clip_obs"])
        )
    except Exception as error:
        # Unpickling a damaged or unrelated file can raise any type of exception.
        raise AgentError(
            f"{path} cannot be used as VecNormalize statistics ({type(error).__name__}: {error}). Save it again with "
            "VecNormalize.save()."
        ) from error
    if not all(
        np.isfinite(mean).all() and np.isfinite(var).all() and mean.shape == var.shape
        for mean, var in normalization.parts.values()
    ):
        raise AgentError(
            f"{path}: the mean and the variance hold NaN or infinite values, or differ in shape. Save it again with "
            "VecNormalize.save()."
        )
    return normalization
