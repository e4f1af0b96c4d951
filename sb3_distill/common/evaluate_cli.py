"""``sb3-distill evaluate``: students and teachers side by side, from the same starts."""

import argparse
import csv
import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_distill.common.evaluation import Player, RandomPlayer
from sb3_distill.common.scoring import describe, score_agent
from sb3_distill.common.starts import HeldOutStarts, StartFrom, check_atari, record_starts
from sb3_distill.common.statistics import geometric_mean_interval
from sb3_distill.common.tables import format_markdown, format_table
from sb3_distill.common.teachers import Teacher, TeacherError, load_teacher

FORMATS = (".json", ".csv", ".md")
HEADER = ("agent", "algo", "parameters", "bytes", "MACs", "score", "IQM (95%)", "% of teacher")


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The verb's options."""
    parser = argparse.ArgumentParser(
        prog="sb3-distill evaluate",
        description="Score agents on the same episodes: same starts, same random actions. Nothing is unpickled.",
    )
    parser.add_argument("agents", nargs="+", help="zips, run folders, zoo: or hub: names; students and teachers alike")
    parser.add_argument("--teacher", help="the agent whose score is 100%% (default: the first student's own teacher)")
    parser.add_argument("--env", help="environment (default: the one that each agent was trained on)")
    parser.add_argument("-n", "--n-episodes", type=int, default=30, help="episodes per agent (default: 30)")
    parser.add_argument("--epsilon", type=float, default=0.0, help="share of uniformly random actions (paper: 0.05)")
    parser.add_argument("--stochastic", action="store_true", help="sample the actions of actor-critic agents")
    parser.add_argument("--best", action="store_true", help="of run folders, the best model of the run's evaluations")
    parser.add_argument("--starts", type=Path, help="file of held-out start states (Atari)")
    parser.add_argument("--starts-from", help="agent that plays where --starts does not exist yet, or 'random'")
    parser.add_argument("--native", action="store_true", help="step Atari games in C++")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", type=Path, nargs="+", default=[], help="files: .json, .csv, .md")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every return")
    args = parser.parse_args(argv)
    if args.n_episodes < 1:
        parser.error(f"--n-episodes must be at least 1, not {args.n_episodes}")
    if not 0.0 <= args.epsilon <= 1.0:
        parser.error(f"--epsilon is a probability, between 0 and 1, not {args.epsilon}")
    if args.starts_from and not args.starts:
        parser.error("--starts-from records a file: name it with --starts FILE.npz")
    for path in args.output:
        if path.suffix not in FORMATS:
            parser.error(f"--output: {path} must end with one of {', '.join(FORMATS)}")
    return args


def cells_of(row: dict[str, Any]) -> list[str]:
    """A row for people."""
    percent = row["percent_of_teacher"]
    low, high = row["iqm_interval"]
    return [
        row["agent"],
        row["algo"],
        f"{row['n_parameters']:,}",
        f"{row['n_bytes']:,}",
        f"{row['n_macs']:,}",
        f"{row['mean']:.2f} ± {row['std']:.2f}",
        f"{row['iqm']:.2f} ({low:.2f} to {high:.2f})",
        "" if percent is None else f"{percent:.1f}",
    ]


def find_starts(args: argparse.Namespace, env_id: str) -> HeldOutStarts | None:
    """
    :param args: the options
    :param env_id: the game
    :return: the start states that were asked for, recorded first where they do not exist yet
    :raises ValueError: the file belongs to another game, or nobody is there to record it
    """
    if args.starts is None:
        return None
    check_atari(env_id)
    if args.starts.is_file():
        starts = HeldOutStarts.load(args.starts)
        if starts.env_id != env_id:
            raise ValueError(f"{args.starts} holds starts of {starts.env_id}, not of {env_id}.")
        return starts
    if args.starts_from is None:
        raise ValueError(f"{args.starts} does not exist: --starts-from AGENT (or 'random') records it.")
    player: Player
    frame_stack = 4
    if args.starts_from == "random":
        env = gym.make(env_id)
        player = RandomPlayer(int(env.action_space.n), args.seed)  # type: ignore[attr-defined]
        env.close()
    else:
        agent = load_teacher(args.starts_from, device=args.device)
        player, frame_stack = agent, agent.frame_stack or 1
    starts = record_starts(player, args.starts_from, env_id, frame_stack, seed=args.seed)
    starts.save(args.starts)
    return starts


def evaluate_game(
    env_id: str, agents: list[Teacher], has_teacher: bool, starts: HeldOutStarts | None, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """
    :param env_id: the environment
    :param agents: who plays, the teacher first where there is one
    :param has_teacher: whether there is
    :param starts: held-out start states
    :param args: the options
    :return: one row per agent
    """
    rows: list[dict[str, Any]] = []
    reference = None
    for agent in agents:
        score = score_agent(
            agent,
            env_id,
            args.n_episodes,
            args.epsilon,
            args.seed,
            deterministic=not args.stochastic,
            start_wrapper=None if starts is None else partial(StartFrom, starts=starts),
            native=args.native,
        )
        reference = score if has_teacher and reference is None else reference
        rows.append(describe(agent, env_id, score, reference))
    return rows


def group_by_game(args: argparse.Namespace) -> dict[str, tuple[list[Teacher], bool]]:
    """
    :param args: the options
    :return: by environment who plays there, the teacher first, and whether there is one
    :raises TeacherError: an agent cannot be loaded, or names no environment
    """
    sources = [
        Path(source) / "best_model.zip" if args.best and Path(source).is_dir() else source for source in args.agents
    ]
    games: dict[str, list[Teacher]] = {}
    for agent in [load_teacher(source, device=args.device) for source in sources]:
        env_id = args.env or agent.env_id
        if env_id is None:
            raise TeacherError(f"{agent.source} does not say its environment: name it with --env.")
        games.setdefault(env_id, []).append(agent)
    if args.teacher and len(games) > 1:
        raise TeacherError(f"--teacher is one agent, but the runs are of {len(games)} games: {', '.join(games)}.")
    grouped = {}
    for env_id, agents in games.items():
        source = args.teacher or next((agent.teacher_source for agent in agents if agent.teacher_source), None)
        if source is not None:
            teacher = load_teacher(source, device=args.device)
            agents = [teacher, *(agent for agent in agents if agent.sha256 != teacher.sha256)]
        grouped[env_id] = agents, source is not None
    return grouped


def geometric_means(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """
    :param rows: the rows of several games, each with its teacher first
    :return: by algorithm with one student in every game, its geometric mean over the games and the 95% interval
    """
    games = list(dict.fromkeys(row["env"] for row in rows))
    teachers = {game: next(row for row in rows if row["env"] == game) for game in games}
    students = [row for row in rows if row is not teachers[row["env"]] and row["percent_of_teacher"] is not None]
    means = {}
    for algo in dict.fromkeys(row["algo"] for row in students):
        of_algo = {row["env"]: row["returns"] for row in students if row["algo"] == algo}
        if len(games) > 1 and len(of_algo) == len(games) == sum(row["algo"] == algo for row in students):
            means[algo] = geometric_mean_interval(of_algo, {game: teachers[game]["returns"] for game in games})
    return means


def write_output(path: Path, result: dict[str, Any]) -> None:
    """
    :param path: file, whose ending chooses the format
    :param result: settings and rows
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = result["agents"]
    if path.suffix == ".json":
        text = json.dumps(result, indent=2) + "\n"
    elif path.suffix == ".md":
        text = format_markdown([("game", *HEADER), *([row["env"], *cells_of(row)] for row in rows)], n_left=3)
    else:
        lists = ("returns", "lengths", "mean_interval", "iqm_interval")
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [key for key in rows[0] if key not in lists], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    path.write_text(text)


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    args = parse_args(argv)
    rows: list[dict[str, Any]] = []
    settings = {"n_episodes": args.n_episodes, "epsilon": args.epsilon, "seed": args.seed}
    try:
        games = group_by_game(args)
        if args.starts is not None and len(games) > 1:
            raise ValueError(f"--starts is a file of one game, but the runs are of {', '.join(games)}.")
        for env_id, (agents, has_teacher) in games.items():
            starts = find_starts(args, env_id)
            if starts is not None:
                settings["starts_sha256"] = starts.sha256
            rows += evaluate_game(env_id, agents, has_teacher, starts, args)
    except gym.error.Error as error:
        print(f"sb3-distill evaluate: {error} Pass the environment to play with --env ID.", file=sys.stderr)
        return 1
    except (TeacherError, ValueError, OSError) as error:
        print(f"sb3-distill evaluate: {error}", file=sys.stderr)
        return 1

    means = geometric_means(rows)
    result = {"env": next(iter(games)) if len(games) == 1 else list(games), **settings, "agents": rows}
    result["geometric_means"] = means
    for path in args.output:
        write_output(path, result)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    for env_id in games:
        print(", ".join([env_id, f"{args.n_episodes} episodes", f"epsilon {args.epsilon}", f"seed {args.seed}"]))
        print(format_table([HEADER, *(cells_of(row) for row in rows if row["env"] == env_id)], n_left=2))
    for algo, (mean, low, high) in means.items():
        print(f"geometric mean over {len(games)} games, {algo}: {mean:.1f}% ({low:.1f} to {high:.1f})")
    return 0
