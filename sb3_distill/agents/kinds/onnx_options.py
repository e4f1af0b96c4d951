"""What a user says of an ONNX file beside it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sb3_distill.agents.files import AgentError
from sb3_distill.common.utils import to_number, unknown_choice

ANSWERS = ("q_values", "logits", "mean", "action")


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
        :return: the options
        :raises AgentError: there is no such option, or it has no such value
        """
        known = [field.name for field in fields(cls)]
        for name in teacher_kwargs:
            if name not in known:
                raise AgentError("teacher_kwargs: " + unknown_choice("option", name, known))
        options = cls(**teacher_kwargs)
        if options.answers is not None and options.answers not in ANSWERS:
            raise AgentError("teacher_kwargs: " + unknown_choice("answers", options.answers, ANSWERS))
        if options.memory is not None and not isinstance(options.memory, Mapping):
            raise AgentError(
                f"teacher_kwargs: memory must map inputs to outputs, such as dict(h0='hn'), not {options.memory!r}."
            )
        if (options.low is None) != (options.high is None):
            raise AgentError("teacher_kwargs: low and high go together: pass both bounds of the actions.")
        if options.scale is not None and (
            isinstance(options.scale, bool) or not 0 < to_number(options.scale) < math.inf
        ):
            raise AgentError(f"teacher_kwargs: scale must be a number above 0, such as 255, not {options.scale!r}.")
        return options
