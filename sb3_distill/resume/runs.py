"""Runs of the Zoo that were stopped: what their folders say."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import BEST_MODEL, RUN_STATE, AgentError, checkpoints_in
from sb3_distill.agents.rebuild.classes import with_classes
from sb3_distill.algorithms import ALGORITHMS
from sb3_distill.common.files import model_zip
from sb3_distill.state.file import StateFileError, read_state

_EXAMPLE = "Name the folder of one run, such as logs/pd/CartPole-v1_1."


@dataclass(frozen=True)
class StoppedRun:
    """
    A run of the Zoo that can go on.

    :param folder: the run folder
    :param arguments: the command line with which it was started
    :param config: its hyperparameters
    :param state: path of the state of its newest checkpoint; None if it has none
    :param n_timesteps: steps that were done at that checkpoint
    :param total_timesteps: steps that it was started for; None if only the hyperparameters say it
    :param monitor_files: sizes of the Monitor files at that checkpoint
    :param checkpoint: a checkpoint without a state, at which the run was stopped
    """

    folder: Path
    arguments: dict[str, Any]
    config: dict[str, Any]
    state: Path | None = None
    n_timesteps: int = 0
    total_timesteps: int | None = None
    monitor_files: dict[str, int] = field(default_factory=dict)
    checkpoint: Path | None = None

    def __str__(self) -> str:
        if self.state is not None:
            return f"{self.folder} goes on at step {self.n_timesteps:,} of {self.total_timesteps:,}, from {RUN_STATE}."
        said = (
            f"{self.folder} has no {RUN_STATE}, since it was stopped before the first one was written: the run begins "
            "anew, at step 0."
        )
        if self.checkpoint is not None:
            said += (
                f" {self.checkpoint.name} will come again. To train it further instead: the Zoo's train -i <its path>."
            )
        return said


def check_run_folder(folder: Path) -> Path:
    """
    :param folder: what a user names
    :return: the folder in it that holds the settings of the run
    :raises AgentError: it is no run folder of the Zoo
    """
    settings = sorted(path.parent for path in folder.glob("*/args.yml"))
    if len(settings) == 1:
        return settings[0]
    if not folder.exists():
        raise AgentError(f"{folder} does not exist. {_EXAMPLE}")
    if not folder.is_dir():
        raise AgentError(f"{folder} is a file. {_EXAMPLE}")
    if (folder / "cells").is_dir():
        raise AgentError(
            f"{folder} is the folder of a study: run its `sb3-distill study` command again. Cells that are complete "
            "are kept."
        )
    runs = sorted({str(path.parents[1]) for depth in ("*/*", "*/*/*") for path in folder.glob(f"{depth}/args.yml")})
    hint = f"Name one of the runs in it: {', '.join(runs[:5])}{', …' if len(runs) > 5 else ''}." if runs else _EXAMPLE
    raise AgentError(
        f"{folder} is no run folder of the Zoo's train: there should be one <environment>/args.yml in it, not "
        f"{len(settings)}. {hint}"
    )


def find_stopped_run(folder: Path) -> StoppedRun | None:
    """
    :param folder: a run folder of the Zoo
    :return: the run; None if it is complete
    :raises AgentError: the folder is none of a run of one of our algorithms, or the run cannot go on
    :raises StateFileError: its state is damaged
    """
    settings = check_run_folder(folder)
    arguments, config = _read(settings / "args.yml"), _read(settings / "config.yml")
    algo, env_id = arguments.get("algo"), arguments.get("env")
    if not isinstance(algo, str) or algo not in ALGORITHMS:
        raise AgentError(
            f"{folder} is a run of {algo}: only runs of {', '.join(ALGORITHMS)} can be resumed. Use the Zoo's "
            "--trained-agent to train this agent further."
        )
    if not isinstance(config.get("n_timesteps"), (int, float, str)):
        raise AgentError(
            f"{settings / 'config.yml'} has no n_timesteps: it is not the file that the Zoo wrote. Start the run anew."
        )
    run = StoppedRun(folder, arguments, config)
    if (folder / RUN_STATE).is_file():
        return _with_state(run, folder / RUN_STATE)
    last = model_zip(folder, str(env_id))
    if last.is_file():
        # The Zoo saves it also if the run was interrupted.
        data = read_archive(last).data
        done, total = data.get("num_timesteps"), data.get("_total_timesteps")
        if isinstance(done, int) and isinstance(total, int) and done >= total:
            return None
    saved = checkpoints_in(folder)
    best = folder / f"{BEST_MODEL}.zip"
    has_only_best = best.is_file() and not _saves_states(arguments)
    if last.is_file() or has_only_best or len(saved) > 1 or not all(_is_ours(path) for path in saved.values()):
        newest = last if last.is_file() else saved[max(saved)] if saved else best
        raise AgentError(
            f"{folder} has saved models, but no {RUN_STATE}, which holds what their zips do not: an older version has "
            "trained here, or the run had no --save-freq, or the file was removed. To train the newest model further, "
            f"give the Zoo's train `-i {newest}`. To begin anew, delete the saved models, or use another folder."
        )
    return replace(run, checkpoint=next(iter(saved.values()), None))


def _saves_states(arguments: dict[str, Any]) -> bool:
    """Whether the run would have had a state later. Before its first one, beginning anew repeats what it has done."""
    frequency = arguments.get("save_freq", -1)
    return isinstance(frequency, int) and frequency > 0


def _is_ours(checkpoint: Path) -> bool:
    """Whether it was saved by a version that writes a state after it. Then the run was stopped between the two."""
    return "sb3_distill_format" in read_archive(checkpoint).data


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(with_classes(read_yaml(path)))
    except AgentError as error:
        raise AgentError(
            f"{error} A run with such a setting goes on in Python, with load_run_state (see docs/resume.md)."
        ) from error


def _with_state(run: StoppedRun, path: Path) -> StoppedRun:
    state = read_state(path, only=("attributes", "total_timesteps", "monitor_files"))
    attributes, total = state.get("attributes"), state.get("total_timesteps")
    done = attributes.get("num_timesteps") if isinstance(attributes, dict) else None
    if not isinstance(done, int) or not isinstance(total, int) or min(done, total) < 0:
        raise StateFileError(
            f"{path} is not the state of a run: it says step {done!r:.40} of {total!r:.40}, which should be two "
            "numbers. Use another state, or delete this one to begin anew."
        )
    # A state that `save_run_state` wrote after learn() has none.
    sizes = state.get("monitor_files", {})
    if not isinstance(sizes, dict):
        raise StateFileError(f"{path}: monitor_files must be a mapping of names to sizes, not {sizes!r:.80}.")
    folder = run.folder.resolve()
    for name, size in sizes.items():
        is_name = isinstance(name, str) and name.isprintable() and name.endswith("monitor.csv")
        # Also none that is a link to elsewhere
        if not is_name or (folder / name).resolve() != folder / name or type(size) is not int or size < 0:
            raise StateFileError(
                f"{path}: monitor_files has the entry {name!r:.80}: {size!r:.80}. It must be the name of a "
                "monitor.csv in this folder and its size. Begin anew without this state."
            )
    return StoppedRun(run.folder, run.arguments, run.config, path, done, total, sizes)
