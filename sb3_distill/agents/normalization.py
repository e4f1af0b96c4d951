"""Reads the VecNormalize statistics of an agent without running any code from their pickle."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_distill.agents.files import AgentError
from sb3_distill.envs.views import Keys
from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import MAX_DATA_BYTES, ReadError
from sb3_distill.reading.pickles import Name, Record, read_array, read_pickle


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

    def of_keys(self, keys: Keys) -> "Normalization | None":
        """
        :param keys: what an agent sees of Dict observations, see ``part_of``
        :return: the statistics of this part; None if there are none
        """
        if keys is None or not isinstance(self.mean, dict) or not isinstance(self.var, dict):
            return self
        if isinstance(keys, str):
            return replace(self, mean=self.mean[keys], var=self.var[keys]) if keys in self.mean else None
        mean, var = ({key: part[key] for key in keys if key in part} for part in (self.mean, self.var))
        return replace(self, mean=mean, var=var) if mean else None

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


# What the pickle of a VecNormalize refers to: these modules, and those of SB3, Gym and NumPy
_MODULES = ("numpy", "collections", "builtins", "__builtin__", "copyreg", "copy_reg", "_codecs")
_LIBRARIES = ("stable_baselines3.", "gym.", "gymnasium.", "numpy.random.", "numpy.core.", "numpy._core.")


def _belongs(name: Name) -> bool:
    return name.module in _MODULES or name.module.startswith(_LIBRARIES)


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
    :raises AgentError: the file is damaged, holds anything but statistics, or numbers that mean nothing
    """
    try:
        record = read_pickle(read_file(path, MAX_DATA_BYTES), _belongs, "VecNormalize statistics")
        state = record.attributes if isinstance(record, Record) else {}
        if "norm_obs" in state and not _number(state["norm_obs"]):
            return None
        statistics, keys = state["obs_rms"], state.get("norm_obs_keys")
        if isinstance(statistics, Record) and statistics.items:
            statistics = statistics.items
        if isinstance(statistics, dict):
            if keys is not None and not isinstance(keys, list):
                raise ReadError("norm_obs_keys is no list")
            statistics = {key: _statistics(statistics[key]) for key in (statistics if keys is None else keys)}
        else:
            statistics = _statistics(statistics)
        normalization = normalization_of(statistics, None, _number(state["epsilon"]), _number(state["clip_obs"]))
    except OSError:
        raise
    except Exception as error:
        # A damaged or unrelated file can hold anything in the place of the statistics.
        raise AgentError(
            f"{path} cannot be used as VecNormalize statistics ({type(error).__name__}: {error}). Save it again with "
            "VecNormalize.save()."
        ) from error
    problem = _find_problem(normalization)
    if problem is not None:
        raise AgentError(f"{path}: {problem}. Save it again with VecNormalize.save().")
    return normalization


def _statistics(record: Any) -> SimpleNamespace:
    """Mean and variance of a RunningMeanStd."""
    if not isinstance(record, Record):
        raise ReadError("its obs_rms is no running mean and variance")
    return SimpleNamespace(**{name: read_array(record.attributes[name]) for name in ("mean", "var")})


def _number(value: Any) -> float:
    return float(read_array(value).reshape(()))


def _find_problem(normalization: Normalization) -> str | None:
    """Why the statistics mean nothing; None if they do."""
    for mean, var in normalization.parts.values():
        if not np.isfinite(mean).all() or not np.isfinite(var).all() or mean.shape != var.shape:
            return "the mean and the variance hold NaN or infinite values, or differ in shape"
        if (var < 0).any():
            return f"a variance is {var.min():g}, which is below 0"
    if not 0 < normalization.epsilon < np.inf:
        return f"epsilon is {normalization.epsilon:g}, not a number above 0"
    if not normalization.clip_obs > 0:
        return f"clip_obs is {normalization.clip_obs:g}, not a number above 0"
    return None
