"""``sb3-distill push``: an agent with its model card to the Hugging Face hub."""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import AgentError, AgentFiles
from sb3_distill.agents.sources import find_agent
from sb3_distill.common.arguments import add_import_options, share, whole_number
from sb3_distill.common.log import explained_wait
from sb3_distill.common.utils import missing_extra
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.evaluation import cli as evaluate
from sb3_distill.evaluation.games import group_by_game
from sb3_distill.push.card import public_name, write_card
from sb3_distill.push.folder import CARD, CURVE, OURS, RESULTS, check_folder, check_name, check_repository, write_folder
from sb3_distill.results.tables import to_json
from sb3_distill.study.manifest import versions


class PushError(ValueError):
    """The hub did not take the agent; the message says why and what to do."""


def parse_args(argv: list[str]) -> argparse.Namespace:
    """The verb's options."""
    parser = Parser(
        "sb3-distill push",
        "Score an agent beside its teacher, and put it on the Hugging Face hub with a model card, in the "
        "layout that hub: and the Zoo's load_from_hub read.",
        "logs/pd/CartPole-v1_1 --repo me/pd-CartPole-v1 --dry-run",
    )
    parser.add_argument("agent", help="a run folder or a zip")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository; created if it does not exist")
    parser.add_argument("--dry-run", action="store_true", help="only write the folder that would be sent")
    parser.add_argument("-o", "--output", type=Path, help="folder to be written (default: hub/OWNER/NAME)")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("-m", "--message", help="message of the commit (default: names the agent)")
    parser.add_argument("--best", action="store_true", help="push best_model.zip of the run, not the last model")
    score = parser.add_argument_group("the score on the model card")
    score.add_argument("--teacher", help="the agent whose score is 100%% (default: the agent's own teacher)")
    score.add_argument("--env", help="environment (default: the one that the agent was trained on)")
    score.add_argument("-n", "--n-episodes", type=whole_number(1), default=100, help="episodes of each agent")
    score.add_argument("--epsilon", type=share, default=0.0, help="share of random actions")
    score.add_argument("--seed", type=whole_number(0), default=0, help="seed of the first episode")
    add_import_options(parser)
    return parser.parse_args(argv)


def _evaluation_words(args: argparse.Namespace) -> list[str]:
    words = ["-n", str(args.n_episodes), "--epsilon", str(args.epsilon), "--seed", str(args.seed)]
    return words if args.env is None else [*words, "--env", args.env]


def _curve_of(files: AgentFiles) -> Any:
    """The figure of the run's evaluations; None if it has none."""
    if files.run_folder is None or not (files.run_folder / "evaluations.npz").is_file():
        return None
    if problem := missing_extra("plots", "matplotlib"):
        print(f"The card has no curve: {problem}", file=sys.stderr)
        return None
    from sb3_distill.visualize.curves import plot_runs

    return plot_runs([files.run_folder])


def prepare(args: argparse.Namespace, folder: Path) -> Teacher:
    """
    Score the agent, and write the folder that the hub gets.

    :param args: the options
    :param folder: the folder
    :return: the agent
    :raises AgentError: the agent or its teacher cannot be loaded, or the folder holds something else
    :raises ValueError: the repository's name does not fit the agent
    """
    check_name(args.repo)
    check_folder(folder, Path(args.agent))
    words = _evaluation_words(args)
    teacher = [] if args.teacher is None else ["--teacher", args.teacher]
    options = evaluate.parse_args([args.agent, *words, *teacher, *["--best"] * args.best])
    (game,) = group_by_game(options)
    source = str(Path(args.agent) / "best_model.zip") if args.best and Path(args.agent).is_dir() else args.agent
    agent = next((each for each in game.agents if each.source == source), None)
    if agent is None:
        raise AgentError(f"--teacher {args.teacher} is the agent itself: leave it out.")
    if agent.facts.zip_bytes is None or agent.algo == "onnx":
        raise AgentError(f"{source} is not the zip of an agent, which the hub needs: push the agent itself.")
    check_repository(args.repo, agent, game.env_id)
    names = {each.source: public_name(each.source) for each in game.agents} | {source: args.repo}
    rows = [
        replace(row, agent=names[row.agent], taught_by=names.get(row.taught_by or "", row.taught_by))
        for row in evaluate.evaluate_game(game, None, options)
    ]
    results = evaluate.Results([game], args.n_episodes, args.epsilon, False, args.seed, None, rows, {})
    files = find_agent(source)
    figure = _curve_of(files)
    shown = [] if args.teacher is None else ["--teacher", public_name(args.teacher)]
    command = shlex.join(["sb3-distill", "evaluate", f"hub:{args.repo}", *words, *shown])
    run = read_yaml(files.yaml("args.yml"))
    curve = None if figure is None else CURVE
    card = write_card(agent, game.env_id, args.repo, rows, options.margin, command, run, versions(), curve)
    write_folder(folder, agent, files, game.env_id, {CARD: card, RESULTS: to_json(results.to_dict())})
    if figure is not None:
        from sb3_distill.results.figures import save_figure

        save_figure(figure, folder / CURVE)
    return agent


def upload(folder: Path, repository: str, message: str, private: bool) -> str:
    """
    :param folder: the folder
    :param repository: owner/name
    :param message: message of the commit
    :param private: whether a new repository is private
    :return: the address of the commit
    :raises PushError: the hub cannot be reached, or refuses
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        with explained_wait(f"The hub is taking {folder}. If nothing happens, check the connection: Ctrl-C ends this."):
            api.create_repo(repository, private=private, exist_ok=True)
            # What an earlier agent has left there, such as its statistics, would count for this one.
            patterns = [*OURS, "*.zip"]
            return str(
                api.upload_folder(
                    repo_id=repository, folder_path=folder, commit_message=message, delete_patterns=patterns
                ).commit_url
            )
    except Exception as error:
        # The hub's client passes on the errors of its HTTP library, which differ between its versions.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PushError(
            f"{repository} was not pushed ({reason}). Log in with `hf auth login`, or set HF_TOKEN to a token that may "
            f"write there. What would be sent is in {folder}."
        ) from error


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    args = parse_args(argv)
    folder = args.output or Path("hub") / args.repo
    try:
        trust_packages(args.gym_packages, args.allow_import)
        agent = prepare(args, folder)
        print(f"Wrote {folder}.")
        if not args.dry_run:
            message = args.message or f"{agent.algo} agent, sha256 {agent.sha256[:12]}"
            print(f"Pushed to {upload(folder, args.repo, message, args.private)}")
    except (AgentError, ValueError, OSError, gym.error.Error) as error:
        print(f"sb3-distill push: {error}", file=sys.stderr)
        return 1
    return 0
