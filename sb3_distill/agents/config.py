"""Reads the YAML files of a run, and the keyword arguments in them, without creating the Python objects they name."""

import ast
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.classes import ClassName
from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.text import BoundedLoader, load_yaml
from sb3_distill.reading.yaml_keys import DuplicateKeyError


class _ZooLoader(BoundedLoader):
    """A safe loader that also reads the Python tags of the Zoo's files: OrderedDict, tuple, names of known classes."""


def _ordered_dict(loader: BoundedLoader, node: yaml.Node) -> OrderedDict[Any, Any]:
    # A list whose one entry is a list of pairs
    for pairs in node.value:
        loader.refuse_duplicates(pair.value[0] for pair in pairs.value)
    return OrderedDict(*loader.construct_sequence(node, deep=True))  # type: ignore[arg-type]


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))  # type: ignore[arg-type]


def _other(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> ClassName:
    try:
        if not tag.startswith("name:"):
            raise ValueError(f"{tag} makes a Python object, which is not read")
        return ClassName(tag.removeprefix("name:"))
    except ValueError as error:
        mark = node.start_mark
        line = str(mark.buffer).rstrip("\0").splitlines()[mark.line].strip()
        raise ReadError(f"line {mark.line + 1}, {line!r:.150}: {error}") from error


_ZooLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)
_ZooLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_ZooLoader.add_multi_constructor("tag:yaml.org,2002:python/", _other)


def read_yaml(path: Path | None) -> dict[str, Any]:
    """
    Read a run folder's ``config.yml``, ``args.yml`` or ``results.yml``.

    :param path: the file; None, or a file that does not exist, gives an empty dictionary
    :return: the content of the file; classes are a ``ClassName``
    :raises AgentError: the file is not a mapping, has a key twice, or has tags that would create other Python objects
    """
    if path is None or not path.is_file():
        return {}
    try:
        # Safe: _ZooLoader is a SafeLoader whose other constructors are for plain containers and for text.
        content = load_yaml(path, _ZooLoader)
    except DuplicateKeyError as error:
        raise AgentError(f"{path}: {error}") from error
    except (ValueError, OSError) as error:
        raise AgentError(f"{path} cannot be read safely ({type(error).__name__}: {error}).") from error
    if not isinstance(content, dict):
        raise AgentError(f"{path} holds no mapping of names to values, but {type(content).__name__}.")
    return content


def read_keywords(text: Any) -> dict[str, Any]:
    """
    The keyword arguments in a hyperparameter such as ``"dict(net_arch=[256, 256], activation_fn=nn.ReLU)"``.

    :param text: the value in ``config.yml``: a string, or a mapping
    :return: the keyword arguments: literals as their values, names such as ``nn.ReLU`` as strings; any other expression
        would have to be evaluated and is left out
    """
    if isinstance(text, dict):
        return dict(text)
    try:
        expression = ast.parse(str(text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    pairs: Sequence[tuple[Any, ast.expr]] = ()
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name) and expression.func.id == "dict":
        pairs = [(keyword.arg, keyword.value) for keyword in expression.keywords if keyword.arg is not None]
    elif isinstance(expression, ast.Dict):
        pairs = [
            (key.value, value)
            for key, value in zip(expression.keys, expression.values, strict=True)
            if isinstance(key, ast.Constant) and isinstance(key.value, str)
        ]
    keywords: dict[str, Any] = {}
    for name, value in pairs:
        try:
            if isinstance(value, (ast.Name, ast.Attribute)):
                keywords[name] = ast.unparse(value)
            else:
                keywords[name] = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            with suppress(RecursionError):
                nested = read_keywords(ast.unparse(value))
                if nested:
                    keywords[name] = nested
    return keywords
