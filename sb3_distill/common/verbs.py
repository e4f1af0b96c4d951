"""Command lines: the verb (first word), and a parser whose help shows defaults and an example."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where the help text does not say them in words already, and keeps the lines of an example."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = "(default" in (action.help or "") or action.default is None or action.default is False
        return action.help if said or action.default == [] else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return indent + text if text.startswith("example") else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """
    A parser that names what is closest to a word it does not know: a choice, a sub-command, an option.

    :param prog: the program and its verb, such as "sb3-distill export"
    :param description: what the verb does
    :param example: the arguments of an example
    :param kwargs: passed to argparse's parser
    """

    def __init__(self, prog: str, description: str, example: str, **kwargs: Any) -> None:
        epilog = f"example: {prog} {example}"
        super().__init__(prog, description=description, epilog=epilog, formatter_class=_Help, **kwargs)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Of a sub-command, too, which knows its own options: words that nobody knows are an error here."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [name for action in self._actions for name in action.option_strings]
            mistyped = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{close_match(mistyped, options)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Without the usage, which hides the message where there are many options."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.epilog}\nthe options: {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = list(map(str, action.choices))
            hint = close_match(str(value), known)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{hint} (choose from {', '.join(known)})")


def close_match(word: str, known: Iterable[str]) -> str:
    """
    :param word: a word that is none of these
    :param known: the words that there are
    :return: a question that names the closest one; empty if none is close
    """
    import difflib

    closest = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {closest[0]!r}?" if closest else ""


def find_verb(program: str, verbs: dict[str, tuple[str, str]], argv: list[str], example: str) -> str:
    """
    Look up the first word of a command line. If it is not a verb, print the usage and exit.

    :param program: the program's name, for the messages
    :param verbs: verb -> name of its module, one line of help
    :param argv: the command line, from the verb on
    :param example: the arguments of an example
    :return: name of the verb's module
    """
    verb = argv[0] if argv else ""
    if verb in verbs:
        return verbs[verb][0]
    width = max(map(len, verbs))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in verbs.items()]
    ending = [f"The options of a verb: {program} <verb> --help", f"example: {program} {example}"]
    usage = "\n".join([f"usage: {program} <verb> ...", "", *lines, "", *ending])
    if verb in ("-h", "--help"):
        print(usage)
        raise SystemExit(0)
    problem = f"unknown verb {verb!r}{close_match(verb, verbs)}" if verb else "a verb is missing"
    print(f"{program}: error: {problem}\n\n{usage}", file=sys.stderr)
    raise SystemExit(2)
