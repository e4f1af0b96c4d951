"""A run's YAML files and the keywords in them, read without making the Python objects that they name."""

import ast
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_distill.agents.files import AgentError


class _ZooLoader(yaml.SafeLoader):
    """SafeLoader that also reads the two Python tags which the Zoo's files are written with."""


def _ordered_dict(loader: yaml.SafeLoader, node: yaml.Node) -> OrderedDict[Any, Any]:
    assert isinstance(node, yaml.SequenceNode)
    return OrderedDict(*loader.construct_sequence(node, deep=True))


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> tuple[Any, ...]:
    assert isinstance(node, yaml.SequenceNode)
    return tuple(loader.construct_sequence(node, deep=True))


_ZooLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)


_ZooLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_yaml(path: Path | None) -> dict[str, Any]:
    """
    Read a run folder's ``config.yml``, ``args.yml`` or ``results.yml``.

    :param path: the file; None or a file that is not there gives an empty dictionary
    :return: its content
    :raises AgentError: the file is no mapping, or wants Python objects to be made
    """
    if path is None or not path.is_file():
        return {}
    try:
        # A SafeLoader with two more constructors for plain containers
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_ZooLoader)
    except Exception as error:
        # PyYAML's constructors let through whatever int(), a dictionary or the stack's depth raise.
        raise AgentError(f"{path} cannot be read safely: {error}") from error
    if not isinstance(content, dict):
        raise AgentError(f"{path} holds no mapping of names to values, but {type(content).__name__}.")
    return content


def read_keywords(text: Any) -> dict[str, Any]:
    """
    The keywords of a hyperparameter such as ``"dict(net_arch=[256, 256], activation_fn=nn.ReLU)"``.

    :param text: what stands in ``config.yml``: text, or a mapping already
    :return: literals as they are, dotted names as text; whatever would have to be computed is left out
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
            if isinstance(key, ast.Constant)
        ]
    keywords: dict[str, Any] = {}
    for name, value in pairs:
        if isinstance(value, (ast.Name, ast.Attribute)):
            keywords[name] = ast.unparse(value)
        else:
            try:
                keywords[name] = ast.literal_eval(value)
            except (ValueError, TypeError, RecursionError):
                nested = read_keywords(ast.unparse(value))
                if nested:
                    keywords[name] = nested
    return keywords
