"""``sb3-distill fit``: a student from a log of observations alone."""

import argparse
import inspect
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import load_teacher
from sb3_distill.common.arguments import add_import_options, add_teacher_kwargs, device, keyword, share, whole_number
from sb3_distill.common.files import check_writable
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.evaluation.environments import find_env_id, make_env_of, recipe_of
from sb3_distill.evaluation.loading import load_player
from sb3_distill.evaluation.scoring import row_of, score_agent
from sb3_distill.evaluation.table import cells_of, footnotes, header
from sb3_distill.fit.fit import ALGORITHMS, N_PASSES, fit
from sb3_distill.fit.log import check_share, check_there
from sb3_distill.results.comparison import MARGIN
from sb3_distill.results.tables import format_table


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The verb's options."""
    parser = Parser(
        "sb3-distill fit",
        "Fit a student to recorded observations, without an environment: it learns the teacher's answers to the log.",
        "log.npz --teacher ppo.zip -o student.zip",
    )
    parser.add_argument("data", help="an .npz with observations, the folder of a recording, or a Minari dataset")
    parser.add_argument("-o", "--output", type=Path, required=True, help="zip of the student")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="seed of student, held-out part and score")
    parser.add_argument("--device", type=device, default="auto", help="cpu, cuda or auto")
    teacher = parser.add_argument_group("teacher")
    teacher.add_argument(
        "--teacher", required=True, help="a zip, a run folder, a zoo: or hub: name, an ONNX file, a function"
    )
    add_teacher_kwargs(teacher)
    student = parser.add_argument_group("student")
    student.add_argument(
        "--algo", choices=list(ALGORITHMS), help="how it learns (default: qpd, or pd for teachers with Q-values)"
    )
    policies = "its policy (default: CnnPolicy for images, MultiInputPolicy for Dict observations, else MlpPolicy)"
    student.add_argument("--policy", help=policies)
    arguments = "arguments of the algorithm"
    student.add_argument(
        "-params", "--params", type=keyword, nargs="+", default=[], metavar="KEY:VALUE", help=arguments
    )
    steps = f"steps of the log to read (default: the whole log {N_PASSES} times)"
    student.add_argument("-n", "--n-timesteps", type=whole_number(1), help=steps)
    student.add_argument("--frame-stack", type=whole_number(1), default=1, help="stacked observations that it sees")
    comparison = parser.add_argument_group("comparison")
    comparison.add_argument("--held-out", type=share, default=0.1, help="share of episodes kept for comparison")
    comparison.add_argument("--env", help="also score student and teacher in this environment")
    comparison.add_argument("--n-episodes", type=whole_number(1), default=30, help="episodes of that score")
    add_import_options(parser)
    args = parser.parse_args(argv)
    if args.output.suffix != ".zip":
        parser.error(f"--output: {args.output} must end with .zip")
    for name, _ in args.params:
        if name in {*inspect.signature(fit).parameters, "teacher_kwargs"}:
            option = f": use --{name.replace('_', '-')}" if name in vars(args) else ""
            parser.error(f"--params: {name} cannot be set here{option}")
    return args


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    args = parse_args(argv)
    try:
        check_writable(args.output)
        trust_packages(args.gym_packages, args.allow_import)
        check_there(args.data)
        check_share(args.held_out)
        kwargs = dict(args.teacher_kwargs) or None
        teacher = load_player(args.teacher, args.env, kwargs, args.device)
        env_id = None if args.env is None else find_env_id(teacher, args.env)
        if env_id is not None:
            check_playable(teacher, env_id, args.frame_stack)
        found = fit(
            args.data,
            teacher,
            args.algo,
            args.policy,
            args.n_timesteps,
            args.held_out,
            args.frame_stack,
            args.seed,
            args.device,
            progress_bar=sys.stderr.isatty(),
            teacher_kwargs=kwargs,
            **dict(args.params),
        )
        found.model.env_id = env_id or found.model.env_id
        found.model.save(args.output)
        print(f"{args.output}: {found.describe()}")
        if env_id is not None:
            student = load_teacher(args.output, device=args.device)
            print(score(student, teacher, env_id, args.n_episodes, args.seed, args.frame_stack))
    except (AgentError, ValueError, TypeError, RuntimeError, OSError, gym.error.Error) as error:
        print(f"sb3-distill fit: {error}", file=sys.stderr)
        return 1
    return 0


def check_playable(teacher: Teacher, env_id: str, frame_stack: int) -> None:
    """
    :param teacher: the teacher
    :param env_id: the environment of the score
    :param frame_stack: how many observations the student sees at once
    :raises ValueError: teacher or student cannot play there
    """
    make_env_of(teacher, env_id).close()
    n_frames = recipe_of(teacher, env_id).frame_stack or 1
    if frame_stack > 1 and n_frames > 1:
        raise ValueError(
            f"--frame-stack {frame_stack}: the teacher's observations in {env_id} are {n_frames} stacked frames, "
            "which no environment stacks again: leave out --frame-stack, or --env."
        )


def score(student: Teacher, teacher: Teacher, env_id: str, n_episodes: int, seed: int, frame_stack: int) -> str:
    """
    :param student: the student
    :param teacher: its teacher
    :param env_id: the environment in which both play the same episodes
    :param n_episodes: number of episodes
    :param seed: seed of the first one
    :param frame_stack: how many observations the student sees at once
    :return: a table with both
    """
    recipe = recipe_of(teacher, env_id)
    if frame_stack > 1:
        recipe = replace(recipe, frame_stack=frame_stack)
    student.facts = replace(student.facts, recipe=recipe)
    scores = [score_agent(agent, env_id, n_episodes, seed=seed) for agent in (teacher, student)]
    rows = [
        row_of(agent, env_id, own, scores[0], teacher) for agent, own in zip((teacher, student), scores, strict=True)
    ]
    table = format_table([header(MARGIN), *map(cells_of, rows)], n_left=2)
    return "\n".join([table, *footnotes(rows, MARGIN)])
