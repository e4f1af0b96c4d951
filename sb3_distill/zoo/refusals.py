"""What a command of the Zoo cannot do is said in one line, as what is wrong in a command line is."""

import argparse
import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# What refuses: our constructors, files, and values of options that are no Python
REFUSALS = (ValueError, TypeError, OSError, NameError, SyntaxError)


def refusal(error: Exception) -> str | None:
    """
    What our own code refuses says why. Other errors are the Zoo's, or faults, and show where they come from.

    :param error: what was raised
    :return: what it says; None: show where it comes from
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(__file__).parents[1]
    if not isinstance(error, NameError) and Path(last.filename).is_relative_to(ours) and "raise " in (last.line or ""):
        return str(error)
    # The Zoo evaluates texts of its configurations.
    place = error.filename if isinstance(error, SyntaxError) else last.filename
    if isinstance(error, NameError | SyntaxError) and place == "<string>":
        return as_text(error)
    return None


def as_text(error: Exception) -> str:
    """
    :param error: of a value that Python cannot read
    :return: what it says, and how texts and classes are written
    """
    said = f"{error.msg} in {(error.text or '').strip()!r}" if isinstance(error, SyntaxError) else str(error)
    return f"{said}. A text in an option needs quotes within quotes, NAME:\"'text'\"; classes are written as nn.ReLU."


def stop(message: str) -> NoReturn:
    """
    End the program as argparse does, but without the usage, which would hide the message.

    :param message: what is wrong
    """
    script = Path(sys.argv[0])
    program = f"sb3-distill zoo {script.stem}" if "sb3_distill.zoo.run" in sys.modules else script.name
    print(f"{program}: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def in_one_line(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    :param function: part of ``rl_zoo3.train``
    :return: the same, but that the program ends with one line where our code refuses. Callers in Python still get the
        exception.
    """

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except REFUSALS as error:
            said = refusal(error) if _is_program() else None
            if said is None:
                raise
            stop(said)

    return called


def option_in_one_line(store: Callable[..., None], ours: tuple[str, ...]) -> Callable[..., None]:
    """
    :param store: how the Zoo reads the values of an option: as Python
    :param ours: keys of our algorithms
    :return: the same, but that for these a value that is no Python ends the program with one line
    """

    @functools.wraps(store)
    def stored(action: argparse.Action, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            store(action, parser, namespace, values, option_string)
        # A text can be wrong in any way.
        except Exception as error:
            # The algorithm may stand behind its settings.
            named = {getattr(namespace, "algo", None), *(word.removeprefix("--algo=") for word in sys.argv)}
            if not _is_program() or not named & set(ours):
                raise
            stop(f"argument {'/'.join(action.option_strings)}: {as_text(error)}")

    return stored


def _is_program() -> bool:
    """Whether this process is a command of the Zoo, and not a program of somebody else that uses it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.startswith("rl_zoo3.")
