"""Finds the files of the agent that a user names (zip, run folder, ``zoo:`` or ``hub:``)."""

import difflib
import itertools
import math
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import (
    BEST_MODEL,
    CHECKPOINT,
    RUN_STATE,
    SETTINGS,
    AgentError,
    AgentFiles,
    AgentNotFoundError,
    EvaluationScore,
)
from sb3_distill.agents.hub import download
from sb3_distill.agents.metadata import read_score
from sb3_distill.algorithms import STUDENTS
from sb3_distill.common.files import file_name
from sb3_distill.common.utils import earlier_versions, setting, unknown_choice

# If no teacher is named, agents of these algorithms are searched; where no scores are recorded, in this order.
ZOO_ALGORITHMS = ("dqn", "qrdqn", "ppo", "a2c", "trpo", "ars")
_HUB_ORGANIZATION = "sb3"
# The name of a run folder: the environment, a number, and what the Zoo adds with --uuid
_RUN_NAME = re.compile(r"(?P<env>.+)_(?P<number>\d+)(_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?")
# The form of an environment's id
_ENV_NAME = re.compile(r".+-v\d+")
# How alike two names are where one is the other with a letter wrong: LunarLander and LunarLanderContinuous are less so
_TYPO = 0.85


def find_agent(source: str | Path, local_only: bool = False) -> AgentFiles:
    """
    Find the files of an agent.

    :param source: a zip, a run folder, ``zoo:algo/env``, or ``hub:organisation/repository@revision``
    :param local_only: do not ask the hub for what is not on this machine
    :return: its files
    :raises AgentNotFoundError: no agent is there
    :raises AgentError: the name has none of these forms, or several agents are there
    """
    text = str(source)
    if text.startswith("zoo:"):
        return _find_in_zoo(text, local_only)
    if text.startswith("hub:"):
        return download(text, local_only)
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
    elsewhere = [root / Path(*path.parts[1:]) for root in zoo_roots()[1:] if path.parts[:1] == ("rl-trained-agents",)]
    if any(place.exists() for place in elsewhere):
        hint = f" It is in $RL_TRAINED_AGENTS: {elsewhere[0]}."
    raise AgentNotFoundError(
        f"There is no agent at {source}.{hint} Agents are zips, run folders, ONNX files, 'zoo:algo/env' and "
        "'hub:owner/algo-env'."
    )


def _is_beside_last_model(zip_path: Path) -> bool:
    """Whether the zip is one of those that the Zoo writes beside the last model: the best one, or a checkpoint."""
    return zip_path.stem == BEST_MODEL or CHECKPOINT.fullmatch(zip_path.stem) is not None


def _env_name_in(folder: Path) -> str | None:
    """The environment in the name of a run folder, if it has the Zoo's form."""
    match = _RUN_NAME.fullmatch(folder.resolve().name)
    return match["env"] if match else None


def _has_settings(folder: Path) -> bool:
    # Unlike Path.is_file, this is False where permission is denied.
    return any(os.path.isfile(folder / name) for name in SETTINGS)


def _is_named_after_env(folder: Path, zip_path: Path) -> bool:
    """
    Whether a folder beside a zip has the name of the run's environment, which is how the Zoo names the settings: as the
    args.yml in it says, or, without one, as the last model is named that the Zoo writes beside best ones and
    checkpoints.
    """
    try:
        args = read_yaml(folder / "args.yml")
    except AgentError:
        # Nobody has said that this folder belongs to the agent, so its damage is no matter of the agent's.
        return False
    if args:
        return folder.name == file_name(str(args.get("env")))
    last_model = folder.with_name(f"{folder.name}.zip")
    return _is_beside_last_model(zip_path) and _ENV_NAME.fullmatch(folder.name) is not None and last_model.is_file()


def _settings_of(zip_path: Path) -> Path | None:
    """The folder beside a zip of a run of the Zoo that holds its settings. The Zoo gives it the environment's name."""
    run = zip_path.parent
    found = {entry.name: entry for entry in run.iterdir() if _has_settings(entry)}
    for name in (zip_path.stem, _env_name_in(run)):
        if name in found:
            return found[name]
    # The run may have been renamed, and so may its zip.
    named = [entry for entry in found.values() if _is_named_after_env(entry, zip_path)]
    return named[0] if len(named) == 1 else None


def env_name_of_run(run: Path) -> str | None:
    """
    :param run: a run folder of the Zoo, which may have been renamed
    :return: its environment, as the Zoo writes it in file names; None if nothing in it says so
    """
    settings = _settings_of(run / "best_model.zip") if run.is_dir() else None
    return _env_name_in(run) if settings is None else settings.name


def _around_zip(zip_path: Path) -> AgentFiles:
    parent = zip_path.parent
    settings, env_name = _settings_of(zip_path), _env_name_in(parent)
    # A folder name such as exp_1 has the Zoo's form too: believe it only if something in the folder agrees.
    is_named = env_name is not None and (zip_path.stem == env_name or (parent / env_name).is_dir())
    if settings is not None or is_named:
        env_id = env_name if is_named else None
        return AgentFiles(zip_path, settings, parent, parent.resolve().parent.name, env_id)
    # On the hub, and where a user saves model and VecNormalize into one folder, all files are beside the zip.
    return AgentFiles(zip_path, parent if _has_settings(parent) else None)


def _what_else(folder: Path) -> str:
    """What a folder without an agent can be: a run that has saved none, or a folder of runs."""
    if any(folder.glob("*.monitor.csv")):
        return "; this run was refused or stopped before it saved one"
    runs = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.zip")))
    return f"; it holds the runs {', '.join(runs[:5])}{' ...' if len(runs) > 5 else ''}" if runs else ""


def _find_in_run_folder(folder: Path) -> AgentFiles:
    zips = sorted(path for path in folder.glob("*.zip") if path.name != RUN_STATE)
    if not zips:
        raise AgentNotFoundError(
            f"{folder} holds no agent: no .zip in it{_what_else(folder)}. Pass a run folder such as "
            "logs/pd/CartPole-v1_1."
        )
    # The last model before the best one, as in the Zoo; it may have been renamed.
    last = [path for path in zips if not _is_beside_last_model(path)]
    names = {env_name_of_run(folder), _env_name_in(folder)}
    taken = [path for path in last if path.stem in names] or last or [p for p in zips if p.stem == BEST_MODEL] or zips
    if len(taken) > 1:
        raise AgentError(f"{folder} holds several agents: name one of {', '.join(path.name for path in taken)}.")
    others = [path.name for path in (last or zips) if path != taken[0]]
    if others:
        warnings.warn(
            f"{folder} holds several agents: {taken[0].name} is taken, not {', '.join(others)}. Name the zip to choose."
        )
    return _around_zip(taken[0])


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
    folders = (root / algo).iterdir() if (root / algo).is_dir() else []
    runs = [
        run for run in folders if any(run.glob("*.zip")) and (_env_name_in(run) == name or _has_settings(run / name))
    ]

    def age(run: Path) -> tuple[int, float]:
        match = _RUN_NAME.fullmatch(run.name)
        # With --uuid, every run of the Zoo has the number 1.
        return int(match["number"]) if match else 0, run.stat().st_mtime

    return sorted(runs, key=age, reverse=True)


def _find_in_zoo(source: str, local_only: bool) -> AgentFiles:
    algo, _, env_id = source.removeprefix("zoo:").partition("/")
    if not algo or not env_id:
        raise AgentError(f"{source!r} does not name a Zoo agent: write 'zoo:algo/env', e.g. 'zoo:dqn/CartPole-v1'.")
    for root in zoo_roots():
        for run in _runs(root, algo, env_id):
            return _find_in_run_folder(run)
    from sb3_distill.agents.rebuild import BUILDERS

    if algo not in BUILDERS:
        # The hub would be asked in vain, and without a network for long.
        raise AgentNotFoundError(f"{source!r}: {unknown_choice('algorithm', algo, BUILDERS)}{_similar(env_id)}")
    try:
        return download(_on_hub(algo, env_id), local_only)
    except AgentError as error:
        raise AgentNotFoundError(
            f"No Zoo agent {algo}/{env_id}: not in {name_roots()}, and not on the hub ({error}){_similar(env_id, algo)}"
        ) from error


def find_zoo_teacher(
    env_id: str | None,
    algos: Iterable[str] = ZOO_ALGORITHMS,
    argument: str | None = None,
    other_algos: str = "",
) -> str | Path:
    """
    Find the Zoo's agent for an environment: in ``rl-trained-agents/``, then ``$RL_TRAINED_AGENTS``, for the environment
    itself, then for earlier versions of it, the latest first; then on the hub, in the same order of versions. Of
    several agents in a folder the one with the highest recorded score is taken (that of the last evaluation of its run,
    since the last model is loaded), else that of the first algorithm.

    :param env_id: the environment's id
    :param algos: algorithms in the order of preference
    :param argument: the setting with which the user can name a teacher, for the error message; None: ``teacher``
    :param other_algos: what the student needs for agents of other algorithms, for the error message
    :return: a source for ``load_teacher``: a run folder, or a revision on the hub
    :raises AgentNotFoundError: no agent was found; the message says where it was searched
    """
    argument = setting("teacher", "'PATH'") if argument is None else argument
    if env_id is None:
        raise AgentNotFoundError(
            f"No teacher was given, and the environment has no id by which to find one: pass {argument}."
        )
    algos = tuple(algos)
    versions = [env_id, *earlier_versions(env_id)]
    for version in versions:
        for root in zoo_roots():
            found = [runs[0] for algo in algos if (runs := _runs(root, algo, version))]
            if found:
                # Of equal ones, the first
                return max(found, key=_recorded_score)
    from huggingface_hub.constants import HF_HUB_OFFLINE

    failures = []
    for version, algo in itertools.product(versions, algos):
        try:
            # The name of the folder in the cache is the commit, so the source names exactly this version.
            return f"{_on_hub(algo, version)}@{download(_on_hub(algo, version)).zip_path.parent.name}"
        except AgentNotFoundError:
            continue
        except AgentError as error:
            failures.append(str(error))
            # Offline, only the cache can be searched: go on with the next algorithm. Online, a failed download may be
            # of the preferred agent: stop, so that no other one is used instead.
            if not HF_HUB_OFFLINE:
                break
    hint = _similar(env_id)
    needs = f" {other_algos}" if hint and other_algos else ""
    failure = failures[0] if failures else "no " + ", ".join(_on_hub(algo, env_id) for algo in algos)
    raise AgentNotFoundError(
        f"No teacher was given, and the Zoo's agent for {env_id} was found neither in {name_roots()} "
        f"(algorithms {', '.join(algos)}) nor on the Hugging Face hub ({failure}). Pass {argument}, put the "
        f"agents into rl-trained-agents/, or set RL_TRAINED_AGENTS.{hint}{needs}"
    )


def _recorded_score(run: Path) -> float:
    """The mean return that a run folder records of its agent; minus infinity where it records none."""
    try:
        score = read_score(AgentFiles(run, run_folder=run))
    except AgentError:
        # Of an agent that nobody has named
        return -math.inf
    if isinstance(score, EvaluationScore):
        # Of the model that will be loaded: the last one, if it is there.
        zips = (path for path in run.glob("*.zip") if path.name != RUN_STATE)
        mean = score.best_mean if all(map(_is_beside_last_model, zips)) else score.last_mean
        return mean if math.isfinite(mean) else -math.inf
    means = [value for key, value in (score or {}).items() if key in ("mean_reward", "mean")]
    return float(means[0]) if means and isinstance(means[0], (int, float)) and math.isfinite(means[0]) else -math.inf


def _on_hub(algo: str, env_id: str) -> str:
    return f"hub:{_HUB_ORGANIZATION}/{algo}-{file_name(env_id)}"


def name_roots() -> str:
    """
    :return: the folders in which the Zoo's agents are searched, and which of them do not exist, for messages
    """
    return " or ".join(f"{root}/" if root.is_dir() else f"{root}/ (no such folder)" for root in zoo_roots())


def _game(env_id: str) -> str:
    """An environment without its version and what Gymnasium's namespaces and variants add: Pong of ALE/Pong-v5."""
    return re.sub(r"^ALE[/-]|NoFrameskip|-v\d+$", "", env_id)


def _version(env_name: str) -> int:
    found = re.search(r"-v(\d+)$", env_name)
    return int(found[1]) if found else 0


def _similar(env_id: str, algo: str | None = None) -> str:
    """A hint for the error message: agents of the game, of ``algo`` before others, or one with nearly that name."""
    from sb3_distill.agents.rebuild import BUILDERS

    algos = sorted((name for name in BUILDERS if name not in STUDENTS), key=lambda name: name != algo)
    runs = [run for name in algos for root in zoo_roots() for run in sorted((root / name).glob("*_*")) if run.is_dir()]
    names = {f"zoo:{run.parent.name}/{name}": name for run in runs if (name := env_name_of_run(run))}
    wanted = file_name(env_id)
    found = [source for source, name in names.items() if _game(name) == _game(wanted)]
    if found:
        is_later = any(_version(names[source]) > _version(wanted) for source in found)
        note = f", of later versions with {setting('allow_env_mismatch', 'True')}" if is_later else ""
        return f" At hand for this game: {', '.join(found)}{note}."
    close = difflib.get_close_matches(wanted, names.values(), n=1, cutoff=_TYPO)
    if not close:
        return ""
    meant = [source for source, name in names.items() if name == close[0]]
    of_algo = [source for source in meant if source.startswith(f"zoo:{algo}/")]
    return f" Did you mean {' or '.join(of_algo or meant)}?"
