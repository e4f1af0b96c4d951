"""The console script ``sb3-distill``: finds the verb, and imports nothing else before it knows which one."""

import importlib
import sys
from typing import NoReturn

from sb3_distill.version import __version__

# Verb -> module with `main(argv) -> int`, one line of help
VERBS = {
    "teachers": ("sb3_distill.common.teachers_cli", "list the trained agents at hand, or show what is known of one"),
    "evaluate": ("sb3_distill.common.evaluate_cli", "score a student or a teacher, as % of the teacher"),
    "export": ("sb3_distill.export.cli", "write an agent as ONNX, in float32 and in integers; measure the files"),
    "visualize": ("sb3_distill.visualize.cli", "draw localization maps, learning curves, sizes and other figures"),
    "study": ("sb3_distill.study.cli", "run a grid of games, students, losses and seeds from a file"),
    "report": ("sb3_distill.study.report", "write the results of a study as one page, Markdown and LaTeX"),
    "zoo": ("sb3_distill.zoo.run", "run a command of the RL Baselines3 Zoo with the algorithms of sb3_distill"),
}


def main(argv: list[str] | None = None) -> int:
    """
    Run one verb.

    :param argv: command line without the program's name, that of the process if ``None``
    :return: exit status
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--version"]:
        print(f"sb3-distill {__version__}")
        return 0
    module = find_verb("sb3-distill", VERBS, argv)
    return int(importlib.import_module(module).main(argv[1:]))


def find_verb(program: str, verbs: dict[str, tuple[str, str]], argv: list[str]) -> str:
    """
    Look up the first word of a command line. Leaves the process where that word is no verb.

    :param program: what stands before the verb, for the messages
    :param verbs: verb -> name of a module, one line of help
    :param argv: command line that begins with the verb
    :return: name of the module
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
