"""``sb3-distill compress``: the smallest student that still plays."""

import argparse
import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

from sb3_distill.common.arguments import (
    add_gym_packages,
    add_teacher_kwargs,
    keyword,
    percentage,
    to_number,
    whole_number,
)
from sb3_distill.common.verbs import Parser

_UNITS = {"s": 1, "m": 60, "h": 3600}
# Exit status where no student was shown to keep enough
NONE_KEPT = 3


def duration(text: str) -> float:
    """
    :param text: a number of seconds, minutes or hours: ``90s``, ``30m``, ``2h``
    :return: seconds
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None or not float(match[1]) > 0:
        raise argparse.ArgumentTypeError(f"must be a duration such as 90s, 30m or 2h, not {text}")
    return float(match[1]) * _UNITS[match[2]]


def confidence(text: str) -> float:
    """
    :param text: the argument
    :return: the number
    """
    number = to_number(text)
    if not 50.0 <= number < 100.0:
        raise argparse.ArgumentTypeError(f"must be a number of per cent from 50 to below 100, not {text}")
    return number


def wrapper(text: str) -> Any:
    """
    :param text: the name of a wrapper, or ``name:arguments`` with a dictionary
    :return: the same as the Zoo's configurations write it
    """
    return dict([keyword(text)]) if ":" in text else text


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status: 3 where no student was shown to keep enough
    """
    parser = Parser(
        "sb3-distill compress",
        "Find the smallest student that keeps the return of an agent, and export it. Repeat the command "
        "to go on with a search that was stopped.",
        "zoo:ppo/CartPole-v1 -o small/ --budget 10m",
    )
    parser.add_argument("agent", help="a zip, a run folder, a zoo: or hub: name, an ONNX file, a function")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--target", choices=["onnx", "c"], default="onnx", help="format of the export")
    parser.add_argument("--env", help="environment (default: the one that the agent was trained on)")
    add_teacher_kwargs(parser)
    seen = parser.add_argument_group("what agent and students see")
    wrapped = 'wrappers around those of the agent\'s run, such as sb3_distill.StackedEntries:"dict(entries=[0, 1])"'
    seen.add_argument("--env-wrapper", type=wrapper, nargs="+", help=wrapped)
    seen.add_argument("--teacher-keys", nargs="+", metavar="KEY", help="keys that the agent sees")
    seen.add_argument("--student-keys", nargs="+", metavar="KEY", help="keys that the students see")
    seen.add_argument(
        "--frame-stack", type=whole_number(1), help="observations that the students see at once (default: as the agent)"
    )
    goal = parser.add_argument_group("what the student must keep")
    goal.add_argument("--keep", type=percentage, default=95.0, help="%% of the teacher that the lower bound must reach")
    goal.add_argument("--confidence", type=confidence, default=95.0, help="confidence level of that bound, in %%")
    goal.add_argument("--max-bytes", type=whole_number(1), help="most bytes of the student (default: no limit)")
    search = parser.add_argument_group("the search")
    search.add_argument("--budget", type=duration, default="30m", help="wall-clock time, such as 90s, 30m, 2h")
    search.add_argument("--seed", type=whole_number(0), default=0, help="seed of the search and of its runs")
    search.add_argument("--backend", choices=["local", "ray"], default="local", help="local processes, or Ray")
    search.add_argument("-j", "--jobs", type=whole_number(1), default=1, help="runs at the same time")
    add_gym_packages(parser)
    args = parser.parse_args(argv)
    import gymnasium as gym

    from sb3_distill.common.files import check_writable
    from sb3_distill.compress.compress import JOB, compress
    from sb3_distill.compress.outputs import EXPORT, RECORD, REPORT, STUDENT
    from sb3_distill.compress.search import Goal, Plan
    from sb3_distill.study.backends import run_locally, run_on_ray

    try:
        check_writable(args.output / RECORD)
        backend = run_on_ray(None, args.jobs, 1, JOB) if args.backend == "ray" else run_locally(args.jobs, 1, JOB)
        outcome = compress(
            args.agent,
            args.output,
            Goal(args.keep, args.confidence, args.max_bytes),
            Plan(args.seed, n_jobs=args.jobs),
            budget=args.budget,
            target=args.target,
            backend=backend,
            env_id=args.env,
            teacher_kwargs=dict(args.teacher_kwargs),
            gym_packages=args.gym_packages,
            env_wrapper=args.env_wrapper,
            teacher_keys=args.teacher_keys,
            student_keys=args.student_keys,
            frame_stack=args.frame_stack,
            command=shlex.join(["sb3-distill", "compress", *argv]),
            say=partial(print, flush=True),
        )
    except KeyboardInterrupt:
        print("sb3-distill compress: interrupted; to continue, repeat the command.", file=sys.stderr)
        return 130
    except (ValueError, OSError, gym.error.Error) as error:
        print(f"sb3-distill compress: {error}", file=sys.stderr)
        return 1
    print(outcome.text)
    left = [REPORT] if outcome.chosen is None else [STUDENT, EXPORT, REPORT]
    print(", ".join(str(args.output / name) for name in left))
    return NONE_KEPT if outcome.chosen is None else 0
