"""Spaces, rebuilt from the text that SB3 writes beside their pickles."""

import ast
import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_distill.agents.files import AS_MODEL, AgentError
from sb3_distill.reading.limits import MAX_SPACE_ELEMENTS, MAX_SPACE_TEXT, check_size

# Keys and kinds of the parts of a Dict space
_PART = re.compile(r"""(?:'(?P<key>[^'\\]*)'|"(?P<other>[^"\\]*)")[:,]\s*(?P<kind>\w+)\(""")
# What stands in a Box's text behind its bounds
_SHAPE = re.compile(r", \((?P<shape>[\d, ]*)\), (?P<dtype>\w+)$")
_DISCRETE = re.compile(r"(?P<n>\d+)(?:, start=(?P<start>-?\d+))?")


def read_space(data: dict[str, Any], name: str, env_id: str | None, env: Any = None) -> spaces.Space:
    """
    Read a space from the attributes of a saved model. What the text does not state comes from the environment.

    :param data: the attributes, whose pickled parts stay unread
    :param name: "observation_space" or "action_space"
    :param env_id: the agent's environment, if known
    :param env: an environment with the agent's spaces, for what neither the text nor a registered environment states
    :return: the space
    :raises AgentError: nothing states the space
    """
    summary = data.get(name)
    for key, text in summary.items() if isinstance(summary, dict) else ():
        # The pickle is not read.
        if isinstance(text, str) and key != ":serialized:":
            check_size(f"The text of the {name}", len(text), MAX_SPACE_TEXT, "characters")
    space, kind = None, "unknown"
    if isinstance(summary, dict):
        kind = str(summary.get(":type:", "")).strip("<>'").rsplit(".", 1)[-1]
        if any(not key.startswith(":") for key in summary):
            space = _read(kind, summary)
    if space is not None:
        return space
    registered = _space_of_env(env_id, name)
    if registered is not None and _may_be(registered, summary):
        return registered
    given: spaces.Space | None = getattr(env, name, None)
    if given is not None and type(given).__name__ == kind and _may_be(given, summary):
        return given
    is_observation = name == "observation_space"
    if (
        is_observation
        and kind == "Box"
        and isinstance(summary, dict)
        and np.issubdtype(_number_type(summary["dtype"]), np.floating)
    ):
        # The bounds of floats change nothing that a policy computes; actions are clipped to theirs.
        return spaces.Box(-np.inf, np.inf, _shape_of(summary), _number_type(summary["dtype"]).type)
    raise AgentError(
        f"The file does not state the {name} ({kind}), and its environment is not registered here. Name "
        "the package that registers it with --gym-packages (in Python: import it, or pass env_id= or env=), or pass "
        f"the agent {AS_MODEL}."
    )


def _read(kind: str, summary: dict[str, Any]) -> spaces.Space | None:
    if kind == "Discrete":
        return _make_discrete(summary["n"], summary.get("start", 0))
    if kind == "MultiBinary":
        return _make_multi_binary(summary["n"])
    if kind == "MultiDiscrete":
        return _make_multi_discrete(summary["nvec"])
    if kind == "Box" and _shape_of(summary) is not None:
        return _make_box(summary.get("low"), summary.get("high"), _shape_of(summary), _number_type(summary["dtype"]))
    if kind == "Dict":
        return _read_dict(str(summary["spaces"]))
    return None


def _shape_of(summary: dict[str, Any]) -> Any:
    shape = summary.get("_shape", summary.get("shape"))
    return None if shape is None else _check_shape(shape)


def _check_shape(shape: Iterable[Any]) -> tuple[int, ...]:
    """A shape from a file; its numbers are counted before an array takes memory for them."""
    sizes = tuple(int(size) for size in shape)
    check_size("A space", math.prod(sizes), MAX_SPACE_ELEMENTS, "elements")
    return sizes


def _number_type(text: Any) -> np.dtype:
    dtype = np.dtype(text) if isinstance(text, str) and text.isalnum() else np.dtype(object)
    if dtype.kind not in "biuf":
        raise AgentError(f"A space is of the type {text!r}, which is not one of numbers.")
    return dtype


def _make_discrete(n: Any, start: Any) -> spaces.Discrete:
    check_size("A discrete space", int(n), MAX_SPACE_ELEMENTS, "elements")
    return spaces.Discrete(int(n), start=int(start))


def _make_multi_binary(n: Any) -> spaces.MultiBinary:
    shape = _check_shape(n if isinstance(n, (list, tuple)) else [n])
    return spaces.MultiBinary(shape if isinstance(n, (list, tuple)) else shape[0])


def _make_multi_discrete(text: Any) -> spaces.MultiDiscrete:
    numbers = _read_integers(text)
    # As SB3's one-hot encoding of it
    check_size("A discrete space", int(numbers.astype(float).clip(0).sum()), MAX_SPACE_ELEMENTS, "elements")
    return spaces.MultiDiscrete(numbers)


def _may_be(space: spaces.Space, summary: Any) -> bool:
    """Whether a registered environment's space has the shape that the file states, if it states one."""
    shape = _shape_of(summary) if isinstance(summary, dict) else None
    return shape is None or space.shape == shape


def _make_box(low: Any, high: Any, shape: tuple[int, ...], dtype: np.dtype) -> spaces.Box | None:
    bounds = [_read_bounds(text, shape, dtype) for text in (low, high)]
    if bounds[0] is None or bounds[1] is None:
        return None
    return spaces.Box(bounds[0], bounds[1], shape, dtype.type)


def _read_bounds(text: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    """An array as numpy prints it; of a long one only the ends of each axis are printed, which must then be equal."""
    words = str(text).replace("[", " ").replace("]", " ").split()
    visible = [word for word in words if word != "..."]
    try:
        values = np.array([word == "True" for word in visible] if dtype == np.bool_ else visible).astype(dtype)
    except ValueError:
        return None
    if len(values) == 1 or (len(visible) < len(words) and len(set(visible)) == 1):
        return np.full(shape, values[0], dtype)
    return values.reshape(shape) if values.size == np.prod(shape) and len(visible) == len(words) else None


def _read_integers(text: Any) -> np.ndarray:
    """An array of integers as numpy prints it."""
    return np.array(ast.literal_eval(re.sub(r"\s+", ",", str(text).strip())), dtype=np.int64)


def _read_dict(text: str) -> spaces.Dict | None:
    """The parts of a Dict space in their order, which is that of the features."""
    parts: OrderedDict[str, spaces.Space] = OrderedDict()
    end = 0
    while found := _PART.search(text, end):
        end = _closing(text, found.end())
        space = _read_part(found["kind"], text[found.end() : end])
        if space is None:
            return None
        parts[found["key"] or found["other"] or ""] = space
    return spaces.Dict(parts) if parts else None


def _closing(text: str, start: int) -> int:
    """Where the parenthesis is closed that was opened before the start."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text)


def _read_part(kind: str, text: str) -> spaces.Space | None:
    if kind == "Discrete" and (found := _DISCRETE.fullmatch(text)):
        return _make_discrete(found["n"], found["start"] or 0)
    if kind == "MultiBinary":
        return _make_multi_binary(ast.literal_eval(text))
    if kind == "MultiDiscrete":
        return _make_multi_discrete(text)
    if kind == "Box" and (found := _SHAPE.search(text)):
        shape = _check_shape(int(size) for size in found["shape"].split(",") if size.strip())
        dtype = _number_type(found["dtype"])
        low, _, high = text[: found.start()].partition(", ")
        box = _make_box(low, high, shape, dtype)
        if box is None and np.issubdtype(dtype, np.floating):
            return spaces.Box(-np.inf, np.inf, shape, dtype.type)
        return box
    return None


def _space_of_env(env_id: str | None, name: str) -> spaces.Space | None:
    if env_id is None or env_id not in gym.registry:
        return None
    try:
        env = gym.make(env_id)
    except (gym.error.Error, ImportError):
        # Registered, but without what it needs, such as MuJoCo
        return None
    space: spaces.Space = getattr(env, name)
    env.close()
    return space
