"""``sb3-distill resume``: goes on with a run of the Zoo that was stopped, as if nothing had happened."""

import argparse
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

import sb3_distill_zoo
from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import AgentError
from sb3_distill.algorithms import ALGORITHMS
from sb3_distill.base.resuming import RUN_STATE
from sb3_distill.common.files import model_zip
from sb3_distill.common.locks import InUseError, locked
from sb3_distill.state.file import StateFileError, read_state

# Arguments of the Zoo's train that the resumed run does not get: it has the hyperparameters of config.yml, which those
# arguments have led to, and the folder of the run
_LEFT_OUT = {"hyperparams", "conf_file", "uuid", "truncate_last_trajectory"}
# Arguments with several values, and those whose values have names
_LISTS, _NAMED = {"gym_packages", "wandb_tags"}, {"env_kwargs", "eval_env_kwargs"}


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
    """

    folder: Path
    arguments: dict[str, Any]
    config: dict[str, Any]
    state: Path | None
    n_timesteps: int
    total_timesteps: int | None
    monitor_files: dict[str, int]

    def __str__(self) -> str:
        if self.state is None:
            return f"{self.folder} has no {RUN_STATE}, since no checkpoint was saved: the run begins anew, at step 0."
        return f"{self.folder} goes on at step {self.n_timesteps:,} of {self.total_timesteps:,}, from {RUN_STATE}."


def find_stopped_run(folder: Path) -> StoppedRun | None:
    """
    :param folder: a run folder of the Zoo
    :return: the run; None if it is complete
    :raises AgentError: the folder is none of a run of one of our algorithms
    :raises StateFileError: its state is damaged
    """
    settings = sorted(path.parent for path in folder.glob("*/args.yml"))
    if len(settings) != 1:
        raise AgentError(
            f"{folder} is no run folder of the Zoo's train: there should be one <environment>/args.yml in it, not "
            f"{len(settings)}. Name a folder such as logs/pd/CartPole-v1_1."
        )
    arguments, config = read_yaml(settings[0] / "args.yml"), read_yaml(settings[0] / "config.yml")
    algo, env_id = arguments.get("algo"), arguments.get("env")
    if algo not in ALGORITHMS:
        raise AgentError(
            f"{folder} is a run of {algo}: only runs of {', '.join(ALGORITHMS)} can be resumed. Use the Zoo's "
            "--trained-agent to train this agent further."
        )
    state = folder / RUN_STATE
    if state.is_file():
        content = read_state(state)
        return StoppedRun(
            folder,
            arguments,
            config,
            state,
            content["attributes"]["num_timesteps"],
            content["total_timesteps"],
            content["monitor_files"],
        )
    last = model_zip(folder, str(env_id))
    if last.is_file():
        # The Zoo saves it also if the run was interrupted.
        data = read_archive(last).data
        if data.get("num_timesteps", 0) >= data.get("_total_timesteps", 0):
            return None
    return StoppedRun(folder, arguments, config, None, 0, None, {})


def resume(run: StoppedRun) -> None:
    """
    Go on with a run, in its folder. This runs its command line again.

    :param run: the run
    """
    # The command may have named files relative to where it was started, such as the folder of the logs.
    folder = run.folder.resolve()
    root = folder.parents[1]
    logs = Path(str(run.arguments.get("log_folder", "logs")))
    if not logs.is_absolute() and root.parts[-len(logs.parts) :] == logs.parts:
        os.chdir(root.parents[len(logs.parts) - 1])
    sb3_distill_zoo.add_finder()
    train: Any = importlib.import_module("rl_zoo3.train")
    # The lock is that of the run's learn(), which takes it again.
    with locked(folder, "saves its models"):
        for name, size in run.monitor_files.items():
            # Episodes after the checkpoint are played again.
            os.truncate(folder / name, size)

    class ResumedExperiment(train.ExperimentManager):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.save_path = str(folder)
            self.params_path = f"{self.save_path}/{self.env_name}"

        def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> Any:
            if run.state is not None and not eval_env:
                self.monitor_kwargs |= {"override_existing": False}
            return super().create_envs(n_envs, eval_env, no_log)

        def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
            print(f"Log path: {self.save_path}")

        def learn(self, model: Any) -> None:
            if state is not None:
                model.load_run_state(state)
                self.n_timesteps = run.total_timesteps - model.num_timesteps
            super().learn(model)

    state = None if run.state is None else folder / RUN_STATE
    zoo_manager = train.ExperimentManager
    with TemporaryDirectory() as temporary:
        config = Path(temporary) / "config.yml"
        config.write_text(yaml.safe_dump({run.arguments["env"]: dict(run.config)}))
        sys.argv = ["rl_zoo3.train", *command_line(run.arguments), f"--conf-file={config}"]
        train.ExperimentManager = ResumedExperiment
        try:
            train.train()
        finally:
            train.ExperimentManager = zoo_manager


def command_line(arguments: dict[str, Any]) -> list[str]:
    """
    :param arguments: the content of args.yml
    :return: the command line that leads to it, without the hyperparameters
    """
    words = []
    for name, value in arguments.items():
        option = f"--{name.replace('_', '-')}"
        if name in _LEFT_OUT or value is None or value is False or value in ("", [], {}):
            continue
        if value is True:
            words.append(option)
        elif name in _LISTS:
            words += [option, *map(str, value)]
        elif name in _NAMED:
            words += [option, *(f"{key}:{part!r}" for key, part in value.items())]
        else:
            words.append(f"{option}={value}")
    return words


def main(argv: list[str]) -> int:
    """
    :param argv: the command line without the verb
    :return: exit status
    """
    parser = argparse.ArgumentParser(
        prog="sb3-distill resume",
        description="Go on with a run that was stopped, until the number of steps that it was started for. This runs "
        "the command that is in the folder: use it on your own runs.",
    )
    parser.add_argument("folder", type=Path, help="run folder of the Zoo, such as logs/pd/CartPole-v1_1")
    parser.add_argument("--dry-run", action="store_true", help="only say from where the run would go on")
    args = parser.parse_args(argv)
    try:
        run = find_stopped_run(args.folder)
        print(run or f"{args.folder} is complete: its last model is saved.")
        if run is not None and not args.dry_run:
            resume(run)
    except (AgentError, StateFileError, InUseError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
