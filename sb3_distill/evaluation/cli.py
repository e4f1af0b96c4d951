"""``sb3-distill evaluate``: students and teachers side by side, from the same starts."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.common.arguments import (
    add_import_options,
    add_teacher_kwargs,
    device,
    keyword,
    percentage,
    share,
    whole_number,
)
from sb3_distill.common.files import check_writable, write_whole
from sb3_distill.common.utils import counted
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.evaluation.disturbance import add_disturbance_options
from sb3_distill.evaluation.games import Game, group_by_game, tell_of_wrappers
from sb3_distill.evaluation.scoring import Score, architecture_of, row_of, score_agent
from sb3_distill.evaluation.starts import HeldOutStarts, StartFrom, load_or_record
from sb3_distill.evaluation.table import cells_of, footnotes, geometric_means, header
from sb3_distill.results.comparison import MARGIN
from sb3_distill.results.row import FORMAT, Row
from sb3_distill.results.tables import format_csv, format_markdown, format_table, interval_text, to_json

FORMATS = (".json", ".csv", ".md")


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The verb's options."""
    parser = Parser(
        "sb3-distill evaluate",
        "Score agents on the same episodes: same starts, same random actions. Nothing is unpickled.",
        "logs/pd/CartPole-v1_1 -n 100 -o scores.json",
    )
    parser.add_argument(
        "agents", nargs="+", help="students and teachers: zips, run folders, zoo: or hub: names, ONNX files"
    )
    parser.add_argument("--best", action="store_true", help="for run folders, play best_model.zip, not the last model")
    parser.add_argument("--device", type=device, default="auto", help="cpu, cuda or auto")
    comparison = parser.add_argument_group("comparison")
    comparison.add_argument("--teacher", help="the agent whose score is 100%% (default: each student's own teacher)")
    add_teacher_kwargs(comparison)
    worse = "per cent of the teacher by which a student may be worse"
    comparison.add_argument("--margin", type=percentage, default=MARGIN, help=worse)
    game = parser.add_argument_group("the game")
    game.add_argument("--env", help="environment (default: the one that each agent was trained on)")
    game.add_argument(
        "--env-kwargs",
        type=keyword,
        nargs="*",
        metavar="KEY:VALUE",
        help="arguments of the environment; the option alone: none (default: those of each run)",
    )
    episodes = parser.add_argument_group("episodes")
    episodes.add_argument("-n", "--n-episodes", type=whole_number(1), default=30, help="episodes of each agent")
    episodes.add_argument("--epsilon", type=share, default=0.0, help="share of random actions; papers have 0.05")
    episodes.add_argument("--stochastic", action="store_true", help="sample the actions of actor-critic agents")
    episodes.add_argument("--action-masks", action="store_true", help="students, too, take only allowed actions")
    episodes.add_argument("--seed", type=whole_number(0), default=0, help="seed of the first episode and of --starts")
    episodes.add_argument("--starts", type=Path, help="file of held-out start states (Atari)")
    episodes.add_argument("--starts-from", help="agent that records --starts if it does not exist yet, or 'random'")
    game.add_argument(
        "--native",
        action=argparse.BooleanOptionalAction,
        help="step Atari games in C++ (default: Pong and Breakout, whose scores agree with the Zoo's wrappers)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", type=Path, nargs="+", default=[], help="files of results: .json, .csv, .md")
    output.add_argument("--json", action="store_true", help="print one JSON object, with every return")
    add_disturbance_options(parser)
    add_import_options(parser)
    args = parser.parse_args(argv)
    if args.starts_from and not args.starts:
        parser.error("--starts-from records a file: name it with --starts FILE.npz")
    names = [name for name, _ in args.env_kwargs or ()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"--env-kwargs: {', '.join(twice)} is given twice")
    for path in args.output:
        if path.suffix not in FORMATS:
            parser.error(f"--output: {path} must end with one of {', '.join(FORMATS)}")
    return args


@dataclass(frozen=True)
class Results:
    """
    What one call of the verb has found.

    :param games: the games, with their players
    :param n_episodes: episodes of each agent
    :param epsilon: share of random actions
    :param stochastic: whether actions were sampled
    :param seed: seed of the first episode
    :param starts_sha256: hash of the held-out start states; None: ordinary starts
    :param rows: one for each agent and game
    :param means: geometric means over the games, see ``geometric_means``
    :param action_masks: whether all agents took only actions that the environment allows
    """

    games: Sequence[Game]
    n_episodes: int
    epsilon: float
    stochastic: bool
    seed: int
    starts_sha256: str | None
    rows: Sequence[Row]
    means: Mapping[str, tuple[float, float, float]]
    action_masks: bool = False

    def to_dict(self) -> dict[str, Any]:
        """
        :return: the content of the JSON file; ``stochastic``, ``action_masks``, ``starts_sha256``, ``env_kwargs``,
            ``native`` and ``ranges`` (of disturbed observations) are left out if there are none
        """
        names = [game.env_id for game in self.games]
        env_kwargs = {game.env_id: game.env_kwargs for game in self.games if game.env_kwargs}
        native = [game.env_id for game in self.games if game.native]
        ranges = {game.env_id: found for game in self.games if (found := game.disturbance.ranges())}
        return {
            "format": FORMAT,
            "env": names[0] if len(names) == 1 else names,
            "n_episodes": self.n_episodes,
            "epsilon": self.epsilon,
            **({"stochastic": True} if self.stochastic else {}),
            **({"action_masks": True} if self.action_masks else {}),
            "seed": self.seed,
            **({} if self.starts_sha256 is None else {"starts_sha256": self.starts_sha256}),
            **({"env_kwargs": env_kwargs} if env_kwargs else {}),
            **({"native": native} if native else {}),
            **({"ranges": ranges} if ranges else {}),
            "agents": [row.to_dict() for row in self.rows],
            "geometric_means": self.means,
        }


def find_starts(args: argparse.Namespace, game: Game) -> HeldOutStarts | None:
    """
    :param args: the options
    :param game: the game
    :return: the start states that were asked for; if the file does not exist yet, they are recorded first
    :raises ValueError: the file belongs to another game, or it does not exist and no recorder is named
    """
    if args.starts is None:
        return None
    starts = load_or_record(args.starts, game.env_id, args.starts_from, args.seed, game.env_kwargs)
    for agent in game.agents:
        if agent.sha256 == starts.recorder_sha256:
            print(
                f"Warning: {agent.source} recorded {args.starts} itself. Starts are held out only if neither teacher "
                "nor student has recorded them.",
                file=sys.stderr,
            )
    return starts


def evaluate_game(game: Game, starts: HeldOutStarts | None, args: argparse.Namespace) -> list[Row]:
    """
    :param game: the game and its players
    :param starts: held-out start states
    :param args: the options
    :return: one row per agent
    """
    tell_of_wrappers(game)
    scores: dict[Teacher, Score] = {}
    for agent in game.agents:
        scores[agent] = score_agent(
            agent,
            game.env_id,
            args.n_episodes,
            args.epsilon,
            args.seed,
            deterministic=not args.stochastic,
            start_wrapper=None if starts is None else partial(StartFrom, starts=starts, first_seed=args.seed),
            # Start states are put into the emulator from Python, and so is what disturbs.
            native=args.native if starts is None and not game.disturbance else args.native or False,
            env_kwargs=game.env_kwargs,
            progress=True,
            disturbance=game.disturbance,
            action_masks=args.action_masks,
        )
    game.native = any(score.native for score in scores.values())
    rows = []
    for agent in game.agents:
        teacher = game.teachers.get(agent)
        reference = None if teacher is None else scores[teacher]
        row = row_of(agent, game.env_id, scores[agent], reference, teacher, args.margin)
        rows.append(replace(row, **game.disturbance.facts))
    return rows


def write_output(path: Path, results: Results, margin: float) -> None:
    """
    :param path: the file; its ending chooses the format
    :param results: the results to write
    :param margin: per cent of the teacher by which a student may be worse
    :raises OSError: the file cannot be written
    """
    if path.suffix == ".json":
        text = to_json(results.to_dict())
    elif path.suffix == ".md":
        table = [("game", *header(margin)), *([row.env, *cells_of(row)] for row in results.rows)]
        text = format_markdown(table, n_left=3) + "".join(f"\n{note}\n" for note in footnotes(results.rows, margin))
    else:
        text = format_csv(results.rows)
    write_whole(path, text)


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    args = parse_args(argv)
    rows: list[Row] = []
    starts_sha256 = None
    try:
        for path in args.output:
            check_writable(path)
        trust_packages(args.gym_packages, args.allow_import)
        games = group_by_game(args)
        if args.starts is not None and len(games) > 1:
            named = ", ".join(game.env_id for game in games)
            raise ValueError(f"--starts is a file of one game, but the runs are of {named}.")
        for game in games:
            starts = find_starts(args, game)
            starts_sha256 = starts_sha256 if starts is None else starts.sha256
            rows += evaluate_game(game, starts, args)
    except (AgentError, ValueError, OSError, gym.error.Error) as error:
        print(f"sb3-distill evaluate: {error}", file=sys.stderr)
        return 1

    means = geometric_means(rows, {agent.source: architecture_of(agent) for game in games for agent in game.agents})
    played = args.n_episodes, args.epsilon, args.stochastic, args.seed, starts_sha256
    results = Results(games, *played, rows, means, args.action_masks)
    status = 0
    for path in args.output:
        try:
            write_output(path, results, args.margin)
        except OSError as error:
            print(f"sb3-distill evaluate: {error}", file=sys.stderr)
            status = 1
    if args.json:
        print(to_json(results.to_dict()), end="")
        return status
    for game in games:
        protocol = [game.env_id, counted(args.n_episodes, "episode"), f"epsilon {args.epsilon}", f"seed {args.seed}"]
        protocol += ["sampled actions"] * args.stochastic + ["action masks for all"] * args.action_masks
        print(", ".join(protocol + ["stepped in C++"] * game.native + game.disturbance.describe()))
        print(format_table([header(args.margin), *(cells_of(row) for row in rows if row.env == game.env_id)], n_left=2))
    for label, (mean, low, high) in means.items():
        print(f"geometric mean over the games, {label}: {mean:.1f}%{interval_text((low, high))}")
    for note in footnotes(rows, args.margin, bool(means)):
        print(note)
    return status
