"""VecNormalize's statistics of an agent, read without running what is in their pickle."""

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
        raise AgentError(f"it asks for {module}.{name}, which statistics have no use for")


def read_normalization(path: Path) -> Normalization | None:
    """
    Read the statistics that a VecNormalize environment saved.

    :param path: ``vecnormalize.pkl``
    :return: the statistics of the observations; None where these were not normalised
    :raises AgentError: the file is damaged, holds anything but statistics, or those of Dict observations
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
        # A pickle that is damaged, or that is something else, can fail in any way.
        raise AgentError(
            f"{path} cannot be used as VecNormalize statistics ({type(error).__name__}: {error}). Save it again with "
            "VecNormalize.save(), for an environment with Box observations."
        ) from error
    if not (np.isfinite(mean).all() and np.isfinite(var).all() and mean.shape == var.shape):
        raise AgentError(f"{path}: the statistics hold NaN or infinite values, or shapes that differ.")
    return normalization
