"""Checks what JSON says against the annotations of the dataclasses that it is read into."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from sb3_distill.reading.limits import ReadError

T = TypeVar("T")
_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "null"}


def read_fields(cls: type[T], content: Any, where: str) -> T:
    """
    :param cls: a dataclass
    :param content: its fields by name
    :param where: what the content is, for the message
    :return: the object
    :raises ReadError: a field is missing, unknown, or of another type
    """
    if not isinstance(content, Mapping):
        raise ReadError(f"{where} must be a mapping, not {_shown(content)}")
    hints = typing.get_type_hints(cls)
    own = {entry.name: entry for entry in dataclasses.fields(cls) if entry.init}  # type: ignore[arg-type]
    missing = [
        name
        for name, entry in own.items()
        if name not in content
        and entry.default is dataclasses.MISSING
        and entry.default_factory is dataclasses.MISSING
    ]
    if missing or content.keys() - own.keys():
        problem = f"lacks {', '.join(missing)}" if missing else f"has unknown {_shown(sorted(content.keys() - own))}"
        raise ReadError(f"{where} {problem}")
    return cls(**{name: conform(value, hints[name], f"{where}.{name}") for name, value in content.items()})


def conform(value: Any, annotation: Any, where: str) -> Any:
    """
    :param value: a value from JSON
    :param annotation: the type that it should have
    :param where: what it is, for the message
    :return: the value; of a list of numbers, null becomes NaN, which is written as null
    :raises ReadError: it has another type
    """
    if annotation is Any:
        return value
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return conform(value, option, where)
            except ReadError:
                continue
    elif origin is Literal:
        if any(type(value) is type(option) and value == option for option in arguments):
            return value
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return {key: conform(entry, arguments[1], f"{where}.{key}") for key, entry in value.items()}
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        if isinstance(value, (list, tuple)):
            wanted = float | None if arguments[0] is float else arguments[0]
            entries = [conform(entry, wanted, where) for entry in value]
            if arguments[0] is float:
                entries = [math.nan if entry is None else entry for entry in entries]
            return tuple(entries) if issubclass(origin, tuple) else entries
    elif dataclasses.is_dataclass(annotation):
        reader = getattr(annotation, "from_dict", None)
        return read_fields(annotation, value, where) if reader is None else reader(value)  # type: ignore[arg-type]
    elif annotation is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**1023:
            return float(value) if isinstance(value, float) else value
        if isinstance(value, float) and not math.isfinite(value):
            return value
    elif annotation is int:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            return value
    elif isinstance(value, annotation):
        return value
    raise ReadError(f"{where} must be {_described(annotation)}, not {_shown(value)}")


def _described(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if isinstance(origin, type):
        return "a mapping" if issubclass(origin, Mapping) else f"a list, each entry {_described(arguments[0])}"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
