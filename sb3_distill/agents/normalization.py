"""Reads the VecNormalize statistics of an agent without running any code from their pickle."""

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_distill.agents.files import AgentError


@dataclass(frozen=True)
class Normalization:
    """
    The statistics by which VecNormalize normalizes observations.

    :param mean: running mean
    :param var: running variance
    :param epsilon: added to the variance before the square root
    :param clip_obs: normalized observations are clipped to [-clip_obs, clip_obs]
    """

    mean: np.ndarray
    var: np.ndarray
    epsilon: float
    clip_obs: float


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


def read_normalization(path: Path) -> Normalization | None:
    """
    Read the statistics that a VecNormalize environment saved.

    :param path: ``vecnormalize.pkl``
    :return: the statistics of the observations; None if the observations were not normalized
    :raises AgentError: the file is damaged, holds anything but statistics, or has statistics of Dict observations
    """
    try:
        state = vars(_StatisticsUnpickler(io.BytesIO(path.read_bytes())).load())
        if not state.get("norm_obs", True):
            return None
        statistics = state["obs_rms"]
        if isinstance(statistics, dict):
            raise AgentError(f"the observations were Dict, with the keys {sorted(statistics)}")
        mean, var = (np.asarray(getattr(statistics, name), dtype=np.float64) for name in ("mean", "var"))
        normalization = Normalization(mean, var, float(state["epsilon"]), float(state["clip_obs"]))
    except Exception as error:
        # Unpickling a damaged or unrelated file can raise any type of exception.
        raise AgentError(
            f"{path} cannot be used as VecNormalize statistics ({type(error).__name__}: {error}). Save it again with "
            "VecNormalize.save(), for an environment with Box observations."
        ) from error
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and mean.shape == var.shape):
        raise AgentError(
            f"{path}: the mean and the variance hold NaN or infinite values, or differ in shape. Save it again with "
            "VecNormalize.save()."
        )
    return normalization
