"""Checks what JSON says against the annotations of the dataclasses that it is read into."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
        if name not in content and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    if missing or content.keys() - own.keys():
        problem = (
            f"has no {', '.join(missing)}"
            if missing
            else f"has unknown {_shown(sorted(content.keys() - own, key=str))}"
        )
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
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        for option in arguments:
            with suppress(ReadError):
                return conform(value, option, where)
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {
            conform(key, arguments[0], where): conform(entry, arguments[1], f"{where}.{key}")
            for key, entry in value.items()
        }
    elif isinstance(origin, type) and issubclass(origin, Sequence) and isinstance(value, (list, tuple)):
        entries = [_entry(entry, arguments[0], where) for entry in value]
        return tuple(entries) if issubclass(origin, tuple) else entries
    elif dataclasses.is_dataclass(annotation):
        reader = getattr(annotation, "from_dict", None)
        return read_fields(annotation, value, where) if reader is None else reader(value)  # type: ignore[arg-type]
    elif _fits(value, annotation, arguments):
        return value
    raise ReadError(f"{where} must be {_described(annotation)}, not {_shown(value)}")


def _entry(value: Any, annotation: Any, where: str) -> Any:
    return math.nan if value is None and annotation is float else conform(value, annotation, where)


def _fits(value: Any, annotation: Any, choices: Sequence[Any]) -> bool:
    if annotation is Any:
        return True
    if choices:
        return any(type(value) is type(choice) and value == choice for choice in choices)
    if isinstance(value, bool):
        return annotation is bool
    if isinstance(value, int) and annotation in (int, float):
        return abs(value) < 2**63
    return isinstance(annotation, type) and isinstance(value, annotation)


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
