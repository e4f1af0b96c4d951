"""What a user says of an ONNX file beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any

import numpy as np

from sb3_distill.agents.files import AgentError
from sb3_distill.common.utils import unknown_choice

ANSWERS = ("q_values", "logits", "mean", "action")
# Names that the options could have, for messages
_NAMED = {"answers": "logits", "observation": "obs", "output": "actions", "log_std": "log_std", "value": "value"}


@dataclass(frozen=True)
class OnnxOptions:
    """
    What an ONNX file does not say of itself: the ``teacher_kwargs`` of such a teacher.

    :param answers: "q_values", "logits", "mean" (of a Gaussian) or "action"; None: as an output is named
    :param observation: name of the input with the observations; None: by its name or shape
    :param memory: by input, the output that follows it: the parts of a memory; None: by their names or shapes
    :param output: name of the output with the answers; None: the one that is named so, or the only one that can be
    :param log_std: output with the logarithm of the standard deviation of a Gaussian
    :param value: output with the value of the observation
    :param low: the lowest action that the file gives, one number or one for each dimension; None: the environment's
    :param high: the highest one
    :param scale: by which pixels are divided, where the file takes floats and the environment gives bytes
    """

    answers: str | None = None
    observation: str | None = None
    memory: Mapping[str, str] | None = None
    output: str | None = None
    log_std: str | None = None
    value: str | None = None
    low: Any = None
    high: Any = None
    scale: float | None = None

    @classmethod
    def read(cls, teacher_kwargs: Mapping[str, Any]) -> "OnnxOptions":
        """
        :param teacher_kwargs: the options by name
        :return: the options; ``low`` and ``high`` as arrays
        :raises AgentError: there is no such option, or it has no such value
        """
        known = [field.name for field in fields(cls)]
        for name in teacher_kwargs:
            if name not in known:
                raise AgentError("teacher_kwargs: " + unknown_choice("option", name, known))
        options = cls(**teacher_kwargs)
        for name in ("answers", "observation", "output", "log_std", "value"):
            named = getattr(options, name)
            if named is not None and not isinstance(named, str):
                raise AgentError(f"teacher_kwargs: {name} must be a name, such as {_NAMED[name]!r}, not {named!r}.")
        if options.answers is not None and options.answers not in ANSWERS:
            raise AgentError("teacher_kwargs: " + unknown_choice("answers", options.answers, ANSWERS))
        memory, scale = options.memory, options.scale
        is_map = isinstance(memory, Mapping) and all(isinstance(name, str) for pair in memory.items() for name in pair)
        if memory is not None and not is_map:
            raise AgentError(
                f"teacher_kwargs: memory must map inputs to outputs, such as dict(h0='hn'), not {memory!r}."
            )
        if scale is not None and (
            isinstance(scale, bool) or not isinstance(scale, Real) or not 0 < float(scale) < math.inf
        ):
            raise AgentError(f"teacher_kwargs: scale must be a number above 0, such as 255, not {scale!r}.")
        if (options.low is None) != (options.high is None):
            raise AgentError("teacher_kwargs: low and high go together: pass both bounds of the actions.")
        if options.low is None:
            return options
        low, high = (_numbers(name, getattr(options, name)) for name in ("low", "high"))
        if low.size > 1 and high.size > 1 and low.shape != high.shape:
            raise AgentError(
                f"teacher_kwargs: low has the shape {low.shape}, and high {high.shape}: each is one number, or one for "
                "each dimension of the actions."
            )
        if not (low < high).all():
            raise AgentError(f"teacher_kwargs: low must be below high, not {low.tolist()} and {high.tolist()}.")
        return replace(options, low=low, high=high)


def _numbers(name: str, value: Any) -> np.ndarray:
    """A bound of actions, in their type."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        # Lists of different lengths
        array = np.empty(0)
    with np.errstate(over="ignore"):
        found = array.astype(np.float32) if array.dtype.kind in "iuf" else np.empty(0)
    if found.size == 0 or not np.isfinite(found).all():
        raise AgentError(
            f"teacher_kwargs: {name} must be a finite number, such as -1.0, or one for each dimension of the actions, "
            f"not {value!r:.200}."
        )
    return found
