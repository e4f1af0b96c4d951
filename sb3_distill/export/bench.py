"""``sb3-distill export bench``: what exported policies cost and score, beside the same agents under torch."""

import csv
import io
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import load_teacher
from sb3_distill.common.arguments import add_import_options, whole_number
from sb3_distill.common.files import check_writable_folder, write_whole
from sb3_distill.common.formats import format_problem
from sb3_distill.common.utils import missing_extra
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import check_env_id, check_env_kwargs, trust_packages
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, read_wrappers
from sb3_distill.evaluation.disturbance import Disturbance, add_disturbance_options
from sb3_distill.evaluation.environments import transpose_for
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.evaluation.players import Player
from sb3_distill.export.c import bench as c_bench
from sb3_distill.export.c.build import CPlayer, Footprint
from sb3_distill.export.cost import (
    AGENT_CODE,
    COLUMNS,
    FILE_CODE,
    BenchRow,
    format_rows,
    latencies,
    peak_memory,
    plot_returns,
)
from sb3_distill.export.description import FORMAT, Description
from sb3_distill.export.export import C_FILE, FLOAT_FILE, INTEGER_FILE, ExportError
from sb3_distill.export.flat import flattened
from sb3_distill.export.web.page import WEB_FILE
from sb3_distill.reading.text import read_json
from sb3_distill.results.figures import distinct_names, save_figure

KINDS = {FLOAT_FILE: "float", INTEGER_FILE: "integer", C_FILE: "C"}


class FilePlayer:
    """
    An exported policy that plays as SB3's models do.

    :param runner: a ``PolicyRunner``
    :param source: its file, for messages
    """

    def __init__(self, runner: Any, source: str) -> None:
        self.runner = runner
        self.source = source

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, on a batch; of the actions that are allowed the one with the largest logit."""
        actions, logits = self.runner.predict(observation)
        if action_masks is not None:
            actions = np.where(action_masks, logits, -np.inf).argmax(axis=1)
        return actions, state


def mean_return(
    player: Player,
    description: Description,
    n_episodes: int,
    disturbance: Disturbance | None = None,
    action_masks: bool = False,
) -> float | None:
    """
    :param player: the policy
    :param description: the content of ``policy.json``
    :param n_episodes: number of episodes, 0 for none
    :param disturbance: noise, bits and delays; given to several policies, it is the same for all
    :param action_masks: whether it takes only actions that the environment allows
    :return: their mean return
    """
    if n_episodes == 0:
        return None
    env_id = description.env_id
    check_env_id(env_id, "policy.json")
    check_env_kwargs(description.env_kwargs, "policy.json")
    recipe = EnvRecipe(
        description.env_kwargs,
        read_wrappers(description.env_wrapper, "policy.json: env_wrapper"),
        read_wrappers(description.vec_env_wrapper, "policy.json: vec_env_wrapper"),
        description.frame_stack,
    )
    shape = description.observation.shape
    play = partial(
        evaluate_paired,
        player,
        lambda n_envs: transpose_for(make_eval_env(env_id, n_envs, recipe), shape),
        # Of stacked observations policy.c keeps the earlier ones of one episode.
        n_envs=1 if isinstance(player, CPlayer) and player.stack > 1 else 10,
        action_masks=action_masks,
    )
    try:
        return play(n_episodes, wrapper=None if disturbance is None else disturbance.wrapper(play)).mean
    except gym.error.UnregisteredEnv as error:
        raise ExportError(
            f"policy.json: the environment {env_id} is not registered ({error}): name its package with --gym-packages, "
            "or play no episodes with --n-episodes 0."
        ) from error


def read_description(folder: Path) -> Description:
    """
    :param folder: folder that ``sb3-distill export`` wrote
    :return: its ``policy.json``
    :raises ExportError: there is none, or it is not complete, or of a later version
    """
    path = folder / "policy.json"
    if not path.is_file():
        raise ExportError(f"{path} is not there: name folders that `sb3-distill export` wrote.")
    try:
        content = read_json(path)
        problem = format_problem(path, content.pop("format", FORMAT), FORMAT) if isinstance(content, dict) else None
        if problem is not None:
            raise ExportError(problem)
        description = Description.from_dict(content)
    except ExportError:
        raise
    except ValueError as error:
        raise ExportError(f"{path} cannot be read ({error}): export the agent again.") from error
    unknown = sorted(description.files.keys() - {*KINDS, WEB_FILE})
    if unknown:
        known = ", ".join([*KINDS, WEB_FILE])
        raise ExportError(f"{path} names the file {unknown[0]!r}, which is none of {known}: export again.")
    return description


def find_source(folder: Path, description: Description) -> Teacher | None:
    """
    :param folder: folder of the export
    :param description: the content of ``policy.json``
    :return: the agent that was exported, which sees what its files take; None, and a line that says why, where it is
        not at hand any more
    """
    source, sha256 = description.source, description.sha256
    try:
        agent = load_teacher(source, device="cpu", local_only=True)
    except (AgentError, OSError) as error:
        print(f"{folder}: torch is not measured: {error}", file=sys.stderr)
        return None
    if not agent.is_agent(sha256):
        print(
            f"{folder}: torch is not measured: {source} has changed since the export (sha256 {agent.sha256[:12]}, then "
            f"{sha256[:12]}).",
            file=sys.stderr,
        )
        return None
    return flattened(agent)


def open_file(path: Path) -> FilePlayer:
    """
    :param path: an ONNX file
    :return: its policy
    :raises ExportError: ONNX Runtime is not installed, or does not read it
    """
    problem = missing_extra("export", "onnxruntime")
    if problem is not None:
        raise ExportError(f"{path} cannot be run: {problem}")
    from sb3_distill.export.runner import PolicyRunner

    try:
        return FilePlayer(PolicyRunner(path), str(path))
    except Exception as error:
        # ONNX Runtime's errors have no class in common but this one.
        raise ExportError(f"{path} cannot be run ({' '.join(str(error).split())}): export the agent again.") from error


def _inference(player: Player, observation: np.ndarray) -> Callable[[], Any]:
    """One inference; of C the call of ``policy_act`` alone."""
    if isinstance(player, CPlayer):
        return partial(player.call, player.newest(observation))
    return partial(player.predict, observation)


def measure_c(folder: Path, name: str) -> list[tuple[str, Footprint]]:
    """
    :param folder: folder that ``sb3-distill export`` wrote
    :param name: its name in tables
    :return: the name, and what its policy in C takes on each processor, if it holds one
    :raises ValueError: it cannot be built
    """
    description = read_description(folder)
    if C_FILE not in description.files:
        return []
    return [(name, row) for row in c_bench.footprints(folder, c_bench.open_c(folder, description))]


def bench_folder(
    folder: Path,
    name: str,
    n_runs: int,
    n_episodes: int,
    disturbances: Mapping[str, Disturbance] | None = None,
    action_masks: bool = False,
) -> list[BenchRow]:
    """
    :param folder: folder that ``sb3-distill export`` wrote
    :param name: its name in tables
    :param n_runs: inferences that are timed
    :param n_episodes: episodes that are played
    :param disturbances: by environment with its arguments, noise, bits and delays under which they are played
    :param action_masks: let all of them take only actions that the environment allows; those of an agent that was
        trained so always do
    :return: one row per file, and one for the agent under torch where it is still at hand
    :raises ExportError: the folder holds no export, or a file that does not run
    """
    description = read_description(folder)
    disturbance = None
    if disturbances is not None:
        disturbance = disturbances[f"{description.env_id} {description.env_kwargs}"]
    shape, dtype = description.observation.shape, description.observation.dtype
    rng = np.random.default_rng(0)
    observation = (rng.random((1, *shape)) * (255 if dtype == "uint8" else 1)).astype(dtype)
    players: list[tuple[str, str, int, Player, str, str]] = []
    agent = find_source(folder, description)
    action_masks = action_masks or description.needs_masks
    if WEB_FILE in description.files:
        print(f"{folder}: {WEB_FILE} is for a browser, and is not measured.", file=sys.stderr)
    for file, exported in description.files.items():
        if file == WEB_FILE:
            continue
        path, policy = folder / file, f"{name}/{file}"
        if file == C_FILE:
            players.append((policy, KINDS[file], exported.bytes, c_bench.open_c(folder, description), "", ""))
        else:
            players.append((policy, KINDS[file], path.stat().st_size, open_file(path), FILE_CODE, str(path)))
    if not players and agent is None:
        raise ExportError(f"{folder} has no file and no agent to measure: export the agent again.")
    if agent is not None:
        players.append((f"{name} under torch", "torch", agent.n_bytes, agent, AGENT_CODE, description.source))
    rows = []
    for policy, kind, n_bytes, player, code, source in players:
        median, tail = latencies(_inference(player, observation), n_runs)
        rows.append(
            BenchRow(
                name,
                policy,
                kind,
                n_bytes,
                description.macs,
                median,
                tail,
                peak_memory(code, folder, source, shape, dtype) if code else None,
                mean_return(player, description, n_episodes, disturbance, action_masks),
            )
        )
    return rows


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind ``export bench``
    :return: exit status
    """
    parser = Parser(
        "sb3-distill export bench",
        "Measure exported policies, beside the same agents under torch: bytes, time of a decision, memory, return.",
        "out/ -o bench/",
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders that `sb3-distill export` wrote")
    parser.add_argument("--n-runs", type=whole_number(1), default=500, help="inferences that are timed")
    parser.add_argument("--n-episodes", type=whole_number(0), default=10, help="episodes of each policy")
    parser.add_argument("--action-masks", action="store_true", help="students, too, take only allowed actions")
    parser.add_argument("-o", "--output", type=Path, help="folder for bench.csv and bench.png (size against return)")
    add_disturbance_options(parser)
    add_import_options(parser)
    args = parser.parse_args(argv)
    new_disturbance = partial(Disturbance, args.obs_noise, args.action_delay, args.obs_bits)
    th.set_num_threads(1)
    try:
        trust_packages(args.gym_packages, args.allow_import)
        disturbance = new_disturbance()
        disturbances: dict[str, Disturbance] = defaultdict(new_disturbance)
        if args.output is not None:
            check_writable_folder(args.output)
        if disturbance and args.n_episodes == 0:
            raise ValueError(f"With --n-episodes 0 nothing is played: leave out {', '.join(disturbance.facts)}.")
        named = list(zip(args.folders, distinct_names(args.folders), strict=True))
        rows = [
            row
            for folder, name in named
            for row in bench_folder(folder, name, args.n_runs, args.n_episodes, disturbances, args.action_masks)
        ]
        taken = [row for folder, name in named for row in measure_c(folder, name)]
    except (ValueError, OSError) as error:
        print(f"sb3-distill export bench: {error}", file=sys.stderr)
        return 1
    if disturbance:
        print(f"return: with {', '.join(disturbance.describe())}")
    print(format_rows(rows))
    if taken:
        print(f"\n{c_bench.format_footprints(taken)}")
    if args.output is not None:
        table = io.StringIO()
        csv.writer(table).writerows(
            [[*COLUMNS, *disturbance.facts], *([*astuple(row), *disturbance.facts.values()] for row in rows)]
        )
        try:
            write_whole(args.output / "bench.csv", table.getvalue())
            if taken:
                table = io.StringIO()
                csv.writer(table).writerows([c_bench.COLUMNS, *((name, *astuple(row)) for name, row in taken)])
                write_whole(args.output / "footprint.csv", table.getvalue())
            if args.n_episodes > 0:
                save_figure(plot_returns(rows), args.output / "bench.png")
        except OSError as error:
            print(f"sb3-distill export bench: {error}", file=sys.stderr)
            return 1
    return 0
