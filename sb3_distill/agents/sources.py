"""Finds the files of the agent that a user names (zip, run folder, ``zoo:`` or ``hub:``)."""

import difflib
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from sb3_distill.agents.files import STATISTICS, AgentError, AgentFiles, AgentNotFoundError
from sb3_distill.agents.hub import download
from sb3_distill.common.files import file_name

# If no teacher is named, these algorithms are searched in this order.
ZOO_ALGORITHMS = ("dqn", "qrdqn", "ppo", "a2c", "trpo")
_HUB_ORGANIZATION = "sb3"
# Other zips that the Zoo writes into a run folder: the model with the best evaluation, and checkpoints
_BESIDE_LAST_MODEL = re.compile(r"best_model\.zip|rl_model_\d+_steps\.zip")


def find_agent(source: str | Path) -> AgentFiles:
    """
    Find the files of an agent.

    :param source: a zip, a run folder, ``zoo:algo/env``, or ``hub:organisation/repository@revision``
    :return: its files
    :raises AgentNotFoundError: no agent is there
    :raises AgentError: the name has none of these forms, or several agents are there
    """
    text = str(source)
    if text.startswith("zoo:"):
        return _find_in_zoo(text)
    if text.startswith("hub:"):
        return download(text)
    path = Path(source)
    # As in SB3's load, ".zip" can be left out. Look for the zip before the folder: the Zoo writes a folder with the
    # same name beside the zip.
    with_ending = Path(f"{path}.zip")
    if path.is_file():
        return _around_zip(path)
    if with_ending.is_file():
        return _around_zip(with_ending)
    if path.is_dir():
        return _find_in_run_folder(path)
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f" Did you mean {path.parent / close[0]}?" if close else ""
    raise AgentNotFoundError(
        f"There is no agent at {source}.{hint} A teacher is a zip, a run folder, 'zoo:algo/env' or 'hub:owner/name'."
    )


def _env_id_of_run(folder: Path) -> str | None:
    """The Zoo names its run folders <environment>_<number>."""
    match = re.fullmatch(r"(.+)_\d+", folder.resolve().name)
    return match.group(1) if match else None


def _around_zip(zip_path: Path) -> AgentFiles:
    parent = zip_path.parent
    env_id = _env_id_of_run(parent)
    if env_id is not None and ((parent / env_id).is_dir() or zip_path.stem == env_id):
        folder = parent / env_id if (parent / env_id).is_dir() else None
        return AgentFiles(zip_path, folder, parent, parent.resolve().parent.name, env_id)
    # On the hub, and where a user saves model and VecNormalize into one folder, all files are beside the zip. The Zoo
    # has them in a folder with the name of the zip.
    flat = any((parent / name).is_file() for name in ("config.yml", *STATISTICS))
    beside = parent if flat else parent / zip_path.stem
    return AgentFiles(zip_path, beside if beside.is_dir() else None)


def _find_in_run_folder(folder: Path) -> AgentFiles:
    env_id = _env_id_of_run(folder)
    zips = sorted(folder.glob("*.zip"))
    if not zips:
        raise AgentNotFoundError(
            f"{folder} holds no agent: no .zip in it. Pass a run folder such as rl-trained-agents/dqn/CartPole-v1_1."
        )
    # Same order as in the Zoo: first the last model, then the best one
    for name in (f"{env_id}.zip", "best_model.zip"):
        if folder / name in zips:
            others = [path.name for path in zips if path.name != name]
            if name != "best_model.zip":
                others = [other for other in others if not _BESIDE_LAST_MODEL.fullmatch(other)]
            if others:
                warnings.warn(
                    f"{folder} holds several agents: {name} is taken, not {', '.join(others)}. Name the zip to choose."
                )
            return _around_zip(folder / name)
    if len(zips) > 1:
        raise AgentError(f"{folder} holds several agents: name one of {', '.join(path.name for path in zips)}.")
    return _around_zip(zips[0])


def zoo_roots() -> list[Path]:
    """
    :return: the folders in which the Zoo's agents are searched
    """
    roots = [Path("rl-trained-agents")]
    if os.environ.get("RL_TRAINED_AGENTS"):
        roots.append(Path(os.environ["RL_TRAINED_AGENTS"]))
    return roots


def _runs(root: Path, algo: str, env_id: str) -> list[Path]:
    """Run folders that hold an agent, the latest first."""
    name = file_name(env_id)
    runs = [run for run in (root / algo).glob(f"{name}_*") if _env_id_of_run(run) == name and any(run.glob("*.zip"))]
    return sorted(runs, key=lambda run: int(run.name.rsplit("_", 1)[1]), reverse=True)


def _find_in_zoo(source: str) -> AgentFiles:
    algo, _, env_id = source.removeprefix("zoo:").partition("/")
    if not algo or not env_id:
        raise AgentError(f"{source!r} does not name a Zoo agent: write 'zoo:algo/env', e.g. 'zoo:dqn/CartPole-v1'.")
    for root in zoo_roots():
        for run in _runs(root, algo, env_id):
            return _find_in_run_folder(run)
    try:
        return download(_on_hub(algo, env_id))
    except AgentError as error:
        raise AgentNotFoundError(
            f"No Zoo agent {algo}/{env_id}: not in {_list(zoo_roots())}, and not on the hub ({error}){_similar(env_id)}"
        ) from error


def find_zoo_teacher(
    env_id: str | None, algos: Iterable[str] = ZOO_ALGORITHMS, argument: str = "teacher=PATH"
) -> str | Path:
    """
    Find the Zoo's agent for an environment: in ``rl-trained-agents/``, then ``$RL_TRAINED_AGENTS``, then on the hub.

    :param env_id: the environment's id
    :param algos: algorithms in the order of preference
    :param argument: the argument with which the user can name a teacher, for the error message
    :return: a source for ``load_teacher``: a run folder, or a revision on the hub
    :raises AgentNotFoundError: no agent was found; the message says where it was searched
    """
    if env_id is None:
        raise AgentNotFoundError(
            f"No teacher was given, and the environment has no id by which to find one: pass {argument}."
        )
    algos = tuple(algos)
    for root in zoo_roots():
        for algo in algos:
            runs = _runs(root, algo, env_id)
            if runs:
                return runs[0]
    from huggingface_hub.constants import HF_HUB_OFFLINE

    failures = []
    for algo in algos:
        try:
            # The name of the folder in the cache is the commit, so the source names exactly this version.
            return f"{_on_hub(algo, env_id)}@{download(_on_hub(algo, env_id)).zip_path.parent.name}"
        except AgentNotFoundError:
            continue
        except AgentError as error:
            failures.append(str(error))
            # Offline, only the cache can be searched: go on with the next algorithm. Online, a failed download may be
            # of the preferred agent: stop, so that no other one is used instead.
            if not HF_HUB_OFFLINE:
                break
    failure = failures[0] if failures else "no " + ", ".join(_on_hub(algo, env_id) for algo in algos)
    raise AgentNotFoundError(
        f"No teacher was given, and the Zoo's agent for {env_id} was found neither in {_list(zoo_roots())} "
        f"(algorithms {', '.join(algos)}) nor on the Hugging Face hub ({failure}). Pass {argument}, put the "
        f"agents into rl-trained-agents/, or set RL_TRAINED_AGENTS.{_similar(env_id, algos)}"
    )


def _on_hub(algo: str, env_id: str) -> str:
    return f"hub:{_HUB_ORGANIZATION}/{algo}-{file_name(env_id)}"


def _list(roots: list[Path]) -> str:
    return " or ".join(f"{root}/" for root in roots)


def _similar(env_id: str, algos: Iterable[str] = ZOO_ALGORITHMS) -> str:
    """A hint for the error message: agents for other versions of the environment, or of other algorithms."""
    name = file_name(env_id).rsplit("-v", 1)[0]
    found = {
        f"zoo:{run.parent.name}/{_env_id_of_run(run)}"
        for root in zoo_roots()
        for algo in algos
        for run in (root / algo).glob(f"{name}-v*_*")
    }
    hint = ""
    if found:
        hint += f" At hand for other versions: {', '.join(sorted(found))} (with allow_env_mismatch=True)."
    others = [
        f"zoo:{algo}/{env_id}"
        for algo in ("dqn", "qrdqn")
        if algo not in algos and any(_runs(root, algo, env_id) for root in zoo_roots())
    ]
    if others:
        hint += f" Of other algorithms: {', '.join(others)}, which --algo pd (PolicyDistillation) can distill."
    return hint
