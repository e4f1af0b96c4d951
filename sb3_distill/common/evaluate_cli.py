"""``sb3-distill evaluate``: students and teachers side by side, from the same starts."""

import argparse
import json
import sys
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_distill.common.evaluation import Score, evaluate_paired, is_atari, make_eval_env
from sb3_distill.common.tables import format_table
from sb3_distill.common.teachers import Teacher, TeacherError, load_teacher


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The verb's options."""
    parser = argparse.ArgumentParser(
        prog="sb3-distill evaluate",
        description="Score agents on the same episodes: same starts, same random actions. Nothing is unpickled.",
    )
    parser.add_argument("agents", nargs="+", help="zips, run folders, zoo: or hub: names; students and teachers alike")
    parser.add_argument("--teacher", help="the agent whose score is 100%% (default: the first student's own teacher)")
    parser.add_argument("--env", help="environment (default: the one the first agent was trained on)")
    parser.add_argument("-n", "--n-episodes", type=int, default=30, help="episodes per agent (default: 30)")
    parser.add_argument("--epsilon", type=float, default=0.0, help="share of uniformly random actions (paper: 0.05)")
    parser.add_argument("--stochastic", action="store_true", help="sample the actions of actor-critic agents")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every return")
    args = parser.parse_args(argv)
    if args.n_episodes < 1:
        parser.error(f"--n-episodes must be at least 1, not {args.n_episodes}")
    if not 0.0 <= args.epsilon <= 1.0:
        parser.error(f"--epsilon is a probability, between 0 and 1, not {args.epsilon}")
    return args


def describe(agent: Teacher, score: Score, reference: Score | None) -> dict[str, Any]:
    """One row of the table."""
    return {
        "agent": agent.source,
        "algo": agent.algo,
        "n_parameters": agent.n_parameters,
        "n_bytes": agent.stored_bytes,
        "mean": score.mean,
        "std": score.std,
        "median": float(np.median(score.returns)),
        "percent_of_teacher": None if reference is None else score.percent_of(reference),
        "returns": score.returns,
        "lengths": score.lengths,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """The rows for people."""
    cells = [("agent", "algo", "parameters", "bytes", "score", "% of teacher")]
    for row in rows:
        percent = row["percent_of_teacher"]
        cells.append(
            (
                row["agent"],
                row["algo"],
                f"{row['n_parameters']:,}",
                f"{row['n_bytes']:,}",
                f"{row['mean']:.2f} ± {row['std']:.2f}",
                "" if percent is None else f"{percent:.1f}",
            )
        )
    print(format_table(cells, n_left=2))


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    args = parse_args(argv)
    try:
        agents = [load_teacher(source, device=args.device) for source in args.agents]
        teacher_source = args.teacher or next((agent.teacher_source for agent in agents if agent.teacher_source), None)
        if teacher_source is not None:
            teacher = load_teacher(teacher_source, device=args.device)
            agents = [teacher, *(agent for agent in agents if agent.sha256 != teacher.sha256)]
    except (TeacherError, OSError) as error:
        print(f"sb3-distill evaluate: {error}", file=sys.stderr)
        return 1
    env_id = args.env or next((agent.env_id for agent in reversed(agents) if agent.env_id), None)
    if env_id is None:
        print("sb3-distill evaluate: no agent names its environment: pass --env ID.", file=sys.stderr)
        return 1

    try:
        atari = is_atari(env_id)
    except gym.error.Error as error:
        print(f"sb3-distill evaluate: {error} Pass the environment to play with --env ID.", file=sys.stderr)
        return 1

    rows = []
    reference = None
    for agent in agents:
        frame_stack = agent.observation_space.shape[0] if atari and agent.observation_space.shape else 1
        score = evaluate_paired(
            agent,
            lambda n_envs, frame_stack=frame_stack: make_eval_env(env_id, n_envs, frame_stack),  # type: ignore[misc]
            args.n_episodes,
            args.epsilon,
            args.seed,
            deterministic=not args.stochastic,
        )
        if teacher_source is not None and reference is None:
            reference = score
        rows.append(describe(agent, score, reference))
    if args.json:
        settings = {"env": env_id, "n_episodes": args.n_episodes, "epsilon": args.epsilon, "seed": args.seed}
        print(json.dumps({**settings, "agents": rows}, indent=2))
    else:
        print(f"{env_id}, {args.n_episodes} episodes, epsilon {args.epsilon}, seed {args.seed}")
        print_table(rows)
    return 0
