"""Reads JSON and YAML up to limits of size, depth and aliases."""

import json
from collections.abc import Hashable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import (
    MAX_DATA_BYTES,
    MAX_DEPTH,
    MAX_YAML_BYTES,
    MAX_YAML_VALUES,
    ReadError,
)
from sb3_distill.reading.yaml_keys import DuplicateKeyError, UniqueKeyLoader

# Far more than 64 bits need
_MAX_INT_CHARACTERS = 100


def parse_json(content: bytes | str) -> Any:
    """
    :param content: JSON
    :return: what it says
    :raises ValueError: it is no JSON, or is nested more deeply than any file of ours
    """
    too_deep = f"it is nested more than {MAX_DEPTH} levels deep"
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ReadError(too_deep) from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise ReadError(too_deep)


def has_json(path: Path, keys: Iterable[str]) -> bool:
    """
    :param path: a file, which need not exist
    :param keys: keys
    :return: whether it is a JSON object with these keys
    """
    with suppress(OSError, ValueError):
        content = read_json(path)
        return isinstance(content, dict) and set(keys) <= content.keys()
    return False


def read_json(path: Path) -> Any:
    """
    :param path: a JSON file
    :return: what it says
    :raises OSError: it cannot be opened
    :raises ValueError: it is no JSON, too large, or nested too deeply
    """
    return parse_json(read_file(path, MAX_DATA_BYTES))


class BoundedLoader(UniqueKeyLoader):
    """
    A safe loader that refuses a key that is written twice, and stops where a file is nested more deeply, or has more
    values with its aliases written out, than the limits say.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._n_values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML's, with counting."""
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._n_values
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ReadError(f"it is nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._n_values += 1
            self._sizes[id(node)] = self._n_values - before
        elif id(node) in self._sizes:
            self._n_values += self._sizes[id(node)]
        else:
            raise ReadError("an alias in it refers to the value that holds it")
        if self._n_values > MAX_YAML_VALUES:
            raise ReadError(f"it has more than the {MAX_YAML_VALUES:,} values that are read, with its aliases")
        return node

    def construct_bounded_int(self, node: yaml.ScalarNode) -> int:
        """As PyYAML's, up to a length: Python refuses to write numbers of thousands of digits."""
        if len(node.value) > _MAX_INT_CHARACTERS:
            raise ReadError(f"it has a whole number of {len(node.value):,} characters")
        return self.construct_yaml_int(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML's, without the error of a key that is a list."""
        try:
            return super().construct_mapping(node, deep)
        except TypeError as error:
            raise ReadError(f"it has a key that is no text or number ({error})") from error


BoundedLoader.add_constructor("tag:yaml.org,2002:int", BoundedLoader.construct_bounded_int)


def load_yaml(path: Path, loader: type[BoundedLoader] = BoundedLoader) -> Any:
    """
    :param path: a YAML file
    :param loader: the loader
    :return: what it says
    :raises OSError: it cannot be opened
    :raises ValueError: it is no YAML in UTF-8, or above a limit
    :raises DuplicateKeyError: a key in it is written twice
    """
    text = read_file(path, MAX_YAML_BYTES).decode("utf-8")
    try:
        # Safe: BoundedLoader is a SafeLoader.
        return yaml.load(text, Loader=loader)
    except (ReadError, UnicodeError, DuplicateKeyError):
        raise
    except Exception as error:
        # PyYAML does not convert all errors to YAMLError: it lets through those of int() and of dates.
        raise ReadError(f"{type(error).__name__}: {str(error) or 'no details'}") from error
