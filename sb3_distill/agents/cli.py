"""``sb3-distill teachers``: what an agent is, read without running anything that is in its files."""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import RUN_STATE, AgentError, EvaluationScore
from sb3_distill.agents.load import check_teacher_kwargs, is_onnx_file, load_teacher
from sb3_distill.agents.sources import name_roots, zoo_roots
from sb3_distill.common.arguments import add_gym_packages, add_teacher_kwargs
from sb3_distill.common.utils import counted
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.results.tables import format_table


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The verb's options."""
    parser = Parser(
        "sb3-distill teachers",
        "Print what trained agents are: algorithm, environment, spaces, layers, size, recorded score. Nothing is "
        "unpickled.",
        "zoo:dqn/CartPole-v1",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        help="zips, run folders, collections of them, zoo: or hub: names (default: rl-trained-agents/ and "
        "$RL_TRAINED_AGENTS)",
    )
    parser.add_argument("--env", help="environment of ONNX files, for information that is missing in them")
    add_teacher_kwargs(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    add_gym_packages(parser)
    return parser.parse_args(argv)


def expand(path: str) -> list[str]:
    """The run folders of a collection such as ``rl-trained-agents/``; other names as they are."""
    folder = Path(path)
    if not folder.is_dir() or list(folder.glob("*.zip")):
        return [path]
    runs = {found.parent for pattern in ("*/*.zip", "*/*/*.zip") for found in folder.glob(pattern)}
    return [str(run) for run in sorted(runs)] or [path]


@dataclass(frozen=True)
class Layer:
    """
    A tensor of weights.

    :param kind: kind of the module that the tensor is part of
    :param shape: its shape
    """

    kind: str
    shape: list[int]


@dataclass(frozen=True)
class Statistics:
    """
    How observations are normalised.

    :param mean: their mean; for Dict observations, that of each normalised key
    :param var: their variance, likewise
    :param clip: they are clipped to [-clip, clip]
    """

    mean: Any
    var: Any
    clip: float


@dataclass(frozen=True)
class Facts:
    """
    Everything there is to say about an agent.

    :param source: where it was found
    :param algo: its algorithm
    :param env: the environment it was trained on, if known
    :param observation_space: its observations, as text
    :param action_space: its actions, as text
    :param frame_stack: number of stacked frames, if known
    :param kind: "actor-critic", "value-based", or "policy search" (ARS)
    :param activation: its activation function, if known
    :param layers: everything that has weights, under the names of the weights
    :param n_parameters: its parameters
    :param zip_bytes: size of its zip, None where there is no zip
    :param sha256: see ``Teacher.sha256``
    :param normalization: how its observations are normalised, if they are
    :param recorded_score: the score that its run folder records
    :param statistics_note: what is to be said where ``normalization`` may be of another moment than the weights
    """

    source: str
    algo: str
    env: str | None
    observation_space: str
    action_space: str
    frame_stack: int | None
    kind: str
    activation: str | None
    layers: dict[str, Layer]
    n_parameters: int
    zip_bytes: int | None
    sha256: str
    normalization: Statistics | None
    recorded_score: EvaluationScore | dict[str, Any] | None
    statistics_note: str | None


def layers(network: th.nn.Module) -> dict[str, Layer]:
    """Kind and shape of everything that has weights, under the names of the weights."""
    return {
        name: Layer(
            type(network.get_submodule(name.rpartition(".")[0])).__name__ if "." in name else "Parameter",
            list(weight.shape),
        )
        for name, weight in network.named_parameters()
    }


def _plain(statistic: np.ndarray | dict[str, np.ndarray]) -> Any:
    if isinstance(statistic, dict):
        return {key: part.tolist() for key, part in statistic.items()}
    return statistic.tolist()


def facts_of(teacher: Teacher) -> Facts:
    """Everything there is to say about an agent."""
    statistics = teacher.normalization
    return Facts(
        source=teacher.source,
        algo=teacher.algo,
        env=teacher.env_id,
        observation_space=str(teacher.observation_space),
        action_space=str(teacher.action_space),
        frame_stack=teacher.frame_stack,
        kind=teacher.kind,
        activation=getattr(getattr(teacher.policy, "activation_fn", None), "__name__", None),
        layers=layers(teacher.network),
        n_parameters=teacher.n_parameters,
        zip_bytes=teacher.facts.zip_bytes,
        sha256=teacher.sha256,
        normalization=None
        if statistics is None
        else Statistics(_plain(statistics.mean), _plain(statistics.var), statistics.clip_obs),
        recorded_score=teacher.facts.recorded_score,
        statistics_note=teacher.facts.statistics_note,
    )


def score_text(score: EvaluationScore | dict[str, Any] | None) -> str:
    """The recorded score in a few words."""
    if score is None:
        return "none"
    if isinstance(score, EvaluationScore):
        return (
            f"best {score.best_mean:.1f} ± {score.best_std:.1f}, "
            f"last {score.last_mean:.1f} ± {score.last_std:.1f} ({counted(score.episodes, 'episode')})"
        )
    return ", ".join(f"{key} {value}" for key, value in score.items())


def print_one(facts: Facts) -> None:
    """Print everything that is known of one agent."""
    print(facts.source)
    for label, value in (
        ("algorithm", facts.algo),
        ("environment", facts.env),
        ("observations", facts.observation_space),
        ("actions", facts.action_space),
        ("frame stack", facts.frame_stack),
        ("activation", facts.activation),
        ("sha256", facts.sha256),
    ):
        if value is not None:
            print(f"  {label:14} {value}")
    print(f"  {'parameters':14} {facts.n_parameters:,}")
    if facts.zip_bytes is not None:
        print(f"  {'zip':14} {facts.zip_bytes:,} bytes")
    if facts.normalization is not None:
        print(f"  {'normalised':14} mean {facts.normalization.mean}, variance {facts.normalization.var}")
    if facts.statistics_note is not None:
        print(f"  {'note':14} {facts.statistics_note}")
    print(f"  {'score':14} {score_text(facts.recorded_score)}")
    if facts.layers:
        print("  layers")
    for name, layer in facts.layers.items():
        print(f"    {name:44} {layer.kind:10} {' x '.join(map(str, layer.shape))}")


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status: 1 if any agent could not be read
    """
    args = parse_args(argv)
    teacher_kwargs = dict(args.teacher_kwargs) or None
    try:
        trust_packages(args.gym_packages)
        check_teacher_kwargs(teacher_kwargs, args.paths)
    except ValueError as error:
        print(f"sb3-distill teachers: {error}", file=sys.stderr)
        return 1
    if not args.paths:
        args.paths = [str(root) for root in zoo_roots() if root.is_dir()]
    if not args.paths:
        print(f"sb3-distill teachers: no agents were found in {name_roots()}. Name a zip or a folder.", file=sys.stderr)
        return 1
    sources = [source for path in args.paths for source in expand(path)]
    facts, failed = [], False
    for source in sources:
        said = {"env_id": args.env, "teacher_kwargs": teacher_kwargs} if is_onnx_file(source) else {}
        try:
            facts.append(facts_of(load_teacher(source, device="cpu", **said)))
        except (AgentError, OSError) as error:
            options = " (Use --env and --teacher-kwargs for what is missing in such a file.)" if said else ""
            print(f"sb3-distill teachers: {error}{options}", file=sys.stderr)
            failed = True
        if Path(source, RUN_STATE).is_file():
            print(f"{source} is not complete: `sb3-distill resume {source}` goes on with the run.", file=sys.stderr)
    if args.json:
        # A run's YAML may have dates in it.
        print(json.dumps([asdict(entry) for entry in facts], indent=2, default=str))
    elif len(sources) == 1:
        for entry in facts:
            print_one(entry)
    elif facts:
        header = ("agent", "environment", "score", "parameters", "zip bytes")
        rows = [
            (
                entry.source,
                entry.env or "unknown",
                score_text(entry.recorded_score),
                f"{entry.n_parameters:,}",
                "-" if entry.zip_bytes is None else f"{entry.zip_bytes:,}",
            )
            for entry in facts
        ]
        print(format_table([header, *rows], n_left=3))
    return 1 if failed else 0
