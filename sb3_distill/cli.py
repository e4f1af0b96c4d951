"""The console script ``sb3-distill``: imports only the module of the verb that is called."""

import importlib
import io
import sys

from sb3_distill.common.log import shown_messages
from sb3_distill.common.verbs import find_verb
from sb3_distill.version import __version__

# Verb -> module with `main(argv) -> int`, one line of help
VERBS = {
    "teachers": ("sb3_distill.agents.cli", "list the trained agents on this machine, or show the details of one"),
    "evaluate": ("sb3_distill.evaluation.cli", "score a student or a teacher, as % of the teacher"),
    "fit": ("sb3_distill.fit.cli", "fit a student to a log of observations, without an environment"),
    "export": ("sb3_distill.export.cli", "write an agent as ONNX, C, a web page or an SB3 zip; measure the files"),
    "compress": ("sb3_distill.compress.cli", "find the smallest student that keeps an agent's return, and export it"),
    "visualize": ("sb3_distill.visualize.cli", "draw localization maps, learning curves, sizes and other figures"),
    "study": ("sb3_distill.study.cli", "run a grid of games, students, losses and seeds from a file"),
    "report": ("sb3_distill.study.report", "write the results of a study as one page, Markdown and LaTeX"),
    "push": ("sb3_distill.push.cli", "put an agent on the Hugging Face hub, with a model card"),
    "resume": ("sb3_distill.resume.resume", "go on with a run that was stopped, or say from where (--dry-run)"),
    "zoo": ("sb3_distill.zoo.run", "run a command of the RL Baselines3 Zoo with the algorithms of sb3_distill"),
}


def main(argv: list[str] | None = None) -> int:
    """
    Run one verb.

    :param argv: the command line without the program's name; ``None``: the command line of the process
    :return: exit status
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--version"]:
        print(f"sb3-distill {__version__}")
        return 0
    # By its name, as any verb: the rooms of the verbs are not imported here.
    if argv and argv[0] not in VERBS and argv[0] in importlib.import_module(VERBS["zoo"][0]).COMMANDS:
        print(f"sb3-distill: error: {argv[0]} is a command of the Zoo: sb3-distill zoo {argv[0]} ...", file=sys.stderr)
        return 2
    module = find_verb("sb3-distill", VERBS, argv, "evaluate logs/pd/CartPole-v1_1 -n 100")
    # Results must not be lost because a terminal has no sign for "±".
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with shown_messages(sys.stderr):
        return int(importlib.import_module(module).main(argv[1:]))
