"""What is said of an ONNX file beside it: by a user, and by our own export."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.metadata import MAX_FRAMES
from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.recipe import EnvRecipe, read_wrappers
from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import MAX_DATA_BYTES
from sb3_distill.reading.text import parse_json

ANSWERS = ("q_values", "logits", "mean", "action")
# What our own export writes beside the file
_DESCRIPTION = "policy.json"
# Algorithms whose outputs are Q-values
_VALUE_BASED = ("dqn", "qrdqn")
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


def is_own_export(path: str | Path) -> bool:
    """
    :param path: an ONNX file
    :return: whether our own export wrote it and says everything of it beside it
    :raises AgentError: what is beside it is damaged
    """
    return bool(read_description(Path(path)))


def read_description(path: Path) -> dict[str, Any]:
    """
    :param path: an ONNX file
    :return: what our own export says beside it: environment, algorithm, actions, and what its output "logits" holds
        (``outputs``; None: an earlier version did not say it); nothing of other files
    :raises AgentError: what is beside it is damaged
    """
    beside = path.parent / _DESCRIPTION
    if not beside.is_file() or not path.name.startswith("policy"):
        return {}
    try:
        content = parse_json(read_file(beside, MAX_DATA_BYTES))
        if not isinstance(content, dict) or not {"action", "observation", "algo", "env_id"} <= content.keys():
            # Another program's
            return {}
        action, observation = content["action"], content["observation"]
        found = {
            "env_id": str(content["env_id"]),
            "algo": str(content["algo"]),
            "dtype": np.dtype(str(observation["dtype"])),
            "parts": {str(key): int(size) for key, size in (observation.get("parts") or {}).items()},
            "needs_masks": content.get("needs_masks") is True,
            "recipe": _recipe_in(content, str(beside)),
        }
        if "n" in action:
            known = "q_values" if found["algo"] in _VALUE_BASED else None
            outputs = content["outputs"] if content.get("outputs") in ANSWERS[:2] else known
            return {**found, "n": int(action["n"]), "outputs": outputs}
        shape = tuple(int(size) for size in action["shape"])
        bounds = {name: np.array(action[name], np.float32).reshape(shape) for name in ("low", "high")}
        return {**found, "shape": shape, **bounds, "outputs": "mean"}
    except Exception as error:
        # A stranger's file can hold anything.
        raise AgentError(f"{beside} does not describe {path.name} ({type(error).__name__}: {error}).") from error


def _recipe_in(content: Mapping[str, Any], where: str) -> EnvRecipe:
    """How the environment was made that checked our own export."""
    frame_stack = content.get("frame_stack")
    return EnvRecipe(
        env_kwargs=dict(content.get("env_kwargs") or {}),
        wrappers=read_wrappers(content.get("env_wrapper"), f"{where}, env_wrapper"),
        vec_wrappers=read_wrappers(content.get("vec_env_wrapper"), f"{where}, vec_env_wrapper"),
        frame_stack=frame_stack if isinstance(frame_stack, int) and 0 < frame_stack <= MAX_FRAMES else None,
    )
