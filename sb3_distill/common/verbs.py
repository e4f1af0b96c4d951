"""The verb (first word) of a command line."""

import sys
from typing import NoReturn


def find_verb(program: str, verbs: dict[str, tuple[str, str]], argv: list[str]) -> str:
    """
    Look up the first word of a command line. If it is not a verb, print the usage and exit.

    :param program: the program's name, for the messages
    :param verbs: verb -> name of its module, one line of help
    :param argv: the command line, from the verb on
    :return: name of the verb's module
    """
    verb = argv[0] if argv else ""
    if verb in verbs:
        return verbs[verb][0]
    width = max(map(len, verbs))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in verbs.items()]
    usage = "\n".join([f"usage: {program} <verb> ...", "", *lines])
    if verb in ("-h", "--help"):
        print(usage)
        raise SystemExit(0)
    _unknown_verb(program, list(verbs), verb, usage)


def _unknown_verb(program: str, verbs: list[str], verb: str, usage: str) -> NoReturn:
    import difflib

    closest = difflib.get_close_matches(verb, verbs, n=1)
    problem = f"unknown verb {verb!r}" if verb else "a verb is missing"
    hint = f", did you mean {closest[0]!r}?" if closest else ""
    print(f"{program}: error: {problem}{hint}\n\n{usage}", file=sys.stderr)
    raise SystemExit(2)
