"""The files of an agent as a repository of the Hugging Face hub holds them."""

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import HUB_STATISTICS, AgentError, AgentFiles
from sb3_distill.common.files import file_name, write_whole

CARD, RESULTS, CURVE = "README.md", "results.json", "curve.png"
# As the Zoo names it: what a run has recorded beside its model
METRICS = "train_eval_metrics.zip"
# Everything that is written beside the agent's zip
OURS = (CARD, RESULTS, CURVE, METRICS, HUB_STATISTICS, "config.yml", "args.yml", "env_kwargs.yml")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_name(repository: str) -> None:
    """
    :param repository: the name of a repository
    :raises ValueError: it is no name of a repository
    """
    if _REPOSITORY.fullmatch(repository) is None:
        raise ValueError(f"--repo: expected OWNER/NAME, such as me/pd-CartPole-v1, not {repository!r}.")


def check_repository(repository: str, agent: Teacher, env_id: str) -> None:
    """
    :param repository: the name of a repository
    :param agent: the agent that it will hold
    :param env_id: the agent's environment
    :raises ValueError: it is not one by which ``hub:`` finds the agent in it
    """
    expected = f"{agent.algo}-{file_name(env_id)}"
    owner, _, name = repository.partition("/")
    if name != expected and not name.startswith(f"{expected}-"):
        raise ValueError(
            f"--repo: {name!r} does not say which agent the repository holds, and 'hub:' could not read it. Begin its "
            f"name with {expected}, such as {owner}/{expected} or {owner}/{expected}-small."
        )


def _is_ours(name: str) -> bool:
    """Whether a file of this name may be one that an earlier call has written."""
    return name in OURS or name.endswith(".zip")


def check_folder(folder: Path, agent: Path) -> None:
    """
    :param folder: the folder that will be written
    :param agent: the agent's file or run folder
    :raises AgentError: it holds something else than what an earlier call has written, or the agent itself
    """
    if not folder.exists():
        return
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
    if names and (RESULTS not in names or not all(map(_is_ours, names))):
        raise AgentError(f"-o: {folder} holds other files. Name a folder that is empty, or does not exist yet.")
    if agent.resolve().is_relative_to(folder.resolve()):
        raise AgentError(f"-o: {folder} holds the agent itself. Name another folder.")


def write_folder(folder: Path, agent: Teacher, files: AgentFiles, env_id: str, written: dict[str, str | bytes]) -> None:
    """
    Write what ``load_teacher("hub:...")`` and ``rl_zoo3.load_from_hub`` read, in place of what the folder held of an
    earlier call.

    :param folder: the folder
    :param agent: the agent
    :param files: its files
    :param env_id: its environment
    :param written: further files by name, such as the card
    :raises OSError: a file cannot be read or written
    """
    own: dict[str, str | bytes] = {f"{agent.algo}-{file_name(env_id)}.zip": files.zip_path.read_bytes()}
    for name in ("config.yml", "args.yml"):
        path = files.yaml(name)
        own[name] = "{}\n" if path is None else path.read_bytes()
    env_kwargs = read_yaml(files.yaml("args.yml")).get("env_kwargs") or dict(agent.env_kwargs or {})
    own["env_kwargs.yml"] = yaml.safe_dump(env_kwargs)
    if files.normalization is not None:
        own[HUB_STATISTICS] = files.normalization.read_bytes()
    own[METRICS] = _zip_of([] if files.run_folder is None else _records(files.run_folder))
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _is_ours(path.name):
            path.unlink()
    for name, content in (own | written).items():
        write_whole(folder / name, content)


def _records(run: Path) -> list[Path]:
    return sorted(path for path in (run / "evaluations.npz", *run.glob("*.monitor.csv")) if path.is_file())


def _zip_of(paths: Sequence[Path]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            # No times: the same run gives the same bytes.
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()
