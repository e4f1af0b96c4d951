"""Types of command-line arguments for argparse."""

import argparse
import ast
from collections.abc import Callable
from typing import Any

from sb3_distill.common.utils import check_device, to_number


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """
    :param least: the smallest accepted number
    :param most: the largest one; None: there is none
    :return: an argparse type that accepts whole numbers from ``least`` to ``most``
    """

    def parse(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least or (most is not None and int(text) > most):
            which = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be a whole number {which}, not {text}")
        return int(text)

    return parse


def share(text: str) -> float:
    """
    :param text: the argument
    :return: the number
    """
    number = to_number(text)
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a share, between 0 and 1, not {text}")
    return number


def percentage(text: str) -> float:
    """
    :param text: the argument
    :return: the number
    """
    number = to_number(text)
    if not 0.0 <= number < 100.0:
        raise argparse.ArgumentTypeError(f"must be a number of per cent from 0 to below 100, not {text}")
    return number


def positive(text: str) -> float:
    """
    :param text: the argument
    :return: the number
    """
    number = to_number(text)
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return number


def device(text: str) -> str:
    """
    :param text: the argument
    :return: the name of a device that is available
    """
    try:
        check_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"must be cpu, cuda, mps or auto, not {text}") from error
    return text


def keyword(text: str) -> tuple[str, Any]:
    """
    :param text: ``key:value``, as in the Zoo; the value must be a Python literal, or a ``dict(...)`` of them: no code
        is run
    :return: the key and the value
    """
    name, _, value = text.partition(":")
    try:
        return name, read_literal(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            "must be key:value with a Python literal as the value, such as mode:1, name:\"'text'\" or "
            f'policy_kwargs:"dict(net_arch=[16])", not {text}'
        ) from error


def read_literal(text: str, names: bool = False) -> Any:
    """
    :param text: a literal of Python, or a ``dict(...)`` of them
    :param names: whether dotted names, such as ``nn.ReLU``, are read too, as text
    :return: what it says; nothing is evaluated
    :raises ValueError: it is anything else
    """
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body, names)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r:.80} is no literal of Python") from error


def _literal(node: ast.expr, names: bool) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and not node.args:
        if any(each.arg is None for each in node.keywords):
            raise ValueError("** is no literal")
        return {str(each.arg): _literal(each.value, names) for each in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) if key is not None else {} for key in node.keys]
        return dict(zip(keys, (_literal(value, names) for value in node.values), strict=True))
    if isinstance(node, ast.List):
        return [_literal(entry, names) for entry in node.elts]
    return ast.unparse(node) if names and _is_dotted_name(node) else ast.literal_eval(node)


def _is_dotted_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_dotted_name(node.value))


def add_teacher_kwargs(parser: Any) -> None:
    """
    Add the option ``teacher_kwargs``.

    :param parser: the parser, or a group of its options
    """
    said = "information that is missing in ONNX files, such as answers:\"'logits'\""
    parser.add_argument("--teacher-kwargs", type=keyword, nargs="+", default=[], metavar="KEY:VALUE", help=said)


def add_gym_packages(parser: argparse.ArgumentParser) -> Any:
    """
    Add the option ``gym_packages``.

    :param parser: the parser
    :return: the group of options that it is in
    """
    group = parser.add_argument_group("packages")
    group.add_argument(
        "--gym-packages",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="packages with environments or wrappers to import first, as in the Zoo",
    )
    return group


def add_import_options(parser: argparse.ArgumentParser) -> None:
    """
    Add the options that say which packages a run's files may name: ``gym_packages`` and ``allow_import``.

    :param parser: the parser
    """
    add_gym_packages(parser).add_argument(
        "--allow-import",
        action="store_true",
        help="import whatever packages the agents' files name, which runs code",
    )
