"""``sb3-distill resume``: goes on with a run of the Zoo that was stopped, as if nothing had happened."""

import argparse
import importlib
import itertools
import os
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import gymnasium as gym
from stable_baselines3.common.monitor import ResultsWriter

import sb3_distill_zoo
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.kinds.own import is_function_name
from sb3_distill.buffers.recording_meta import RecordingError
from sb3_distill.common.locks import locked
from sb3_distill.common.verbs import Parser
from sb3_distill.reading.limits import ReadError
from sb3_distill.resume.runs import StoppedRun, check_run_folder, find_stopped_run
from sb3_distill.state.file import StateFileError

# Arguments of the Zoo's train that the resumed run does not get: it has the hyperparameters of config.yml, which those
# arguments have led to, and the folder of the run
_LEFT_OUT = {"hyperparams", "conf_file", "storage", "study_name", "trial_id", "uuid", "truncate_last_trajectory"}
# Those whose values have names: the Zoo would evaluate their text
_NAMED = {"env_kwargs", "eval_env_kwargs"}
_EXPECTED = (AgentError, StateFileError, RecordingError, ReadError, OSError, gym.error.Error)


def resume(folder: Path, is_trusted: bool = False, hyperparams: Mapping[str, Any] | None = None) -> None:
    """
    Go on with a run, in its folder. This runs its command line again.

    :param folder: the run folder
    :param is_trusted: whether functions that its config.yml names as teachers may be called
    :param hyperparams: settings that take the place of those in its config.yml, such as folders that were moved since
    :raises AgentError: there is no run that can go on
    :raises StateFileError: its state is damaged
    :raises InUseError: another process saves models in the folder
    """
    check_run_folder(folder)
    # Before the folder is looked at, until the last file is written; learn() runs under this lock, too.
    with locked(folder, "saves its models", lend=True):
        # The Zoo runs where it was started.
        run = find_stopped_run(folder.resolve())
        print(run or _complete(folder.resolve()))
        if run is not None:
            _go_on(replace(run, config={**run.config, **(hyperparams or {})}), is_trusted)


def _go_on(run: StoppedRun, is_trusted: bool) -> None:
    for name in () if is_trusted else ("teacher", "teachers"):
        _refuse_functions(run, name)
    _go_where_it_was_started(run)
    agent = str(run.arguments.get("trained_agent") or "")
    if agent and not Path(agent).is_file():
        raise AgentError(f"The run was started from {agent}, which is no longer there. Put it back.")
    sb3_distill_zoo.add_finder()
    train: Any = importlib.import_module("rl_zoo3.train")
    manager = _experiment_manager(run, train.ExperimentManager)
    zoo = train.ExperimentManager, train.argparse, sys.argv
    train.ExperimentManager, train.argparse = manager, SimpleNamespace(ArgumentParser=_argument_parser(run))
    # Where the processes of environments, and the default of --eval-freq, find them
    own = {name: run.arguments.get(name) for name in ("gym_packages", "eval_freq")}
    sys.argv = [*sys.argv, *command_line(own)]
    try:
        train.train()
    except (ValueError, TypeError, ImportError) as error:
        # What refuses the settings says why. Later, such an error is a fault of the program.
        if manager.is_learning or isinstance(error, _EXPECTED):
            raise
        raise AgentError(f"The settings of {run.folder} are refused: {error}") from error
    finally:
        train.ExperimentManager, train.argparse, sys.argv = zoo


def _refuse_functions(run: StoppedRun, name: str) -> None:
    sources = run.config.get(name)
    for source in sources.values() if isinstance(sources, dict) else [sources]:
        if is_function_name(source):
            raise AgentError(
                f"{name} in the config.yml of {run.folder} names the function {source}, which is not called because a "
                "file says so. A run with such a teacher goes on in Python, with load_run_state and the teacher itself "
                "(see docs/resume.md)."
            )


def _go_where_it_was_started(run: StoppedRun) -> None:
    """The command may have named files relative to that folder, as it named the folder of the logs."""
    root, logs = run.folder.parent.parent, Path(str(run.arguments.get("log_folder", "logs")))
    start = Path(*root.parts[: len(root.parts) - len(logs.parts)])
    if not logs.is_absolute() and start / logs == root:
        os.chdir(start)


def _argument_parser(run: StoppedRun) -> type[argparse.ArgumentParser]:
    """A parser that gives the Zoo the arguments of the run."""

    class ResumedParser(argparse.ArgumentParser):
        def parse_args(self, *_: Any) -> argparse.Namespace:  # type: ignore[override]
            # --track adds some that the Zoo does not know, such as `command`.
            known = {action.dest for action in self._actions} - _LEFT_OUT
            given = {name: value for name, value in run.arguments.items() if name in known}
            args = super().parse_args(command_line(given))
            for name in _NAMED:
                setattr(args, name, given.get(name))
            return args

        def error(self, message: str) -> NoReturn:
            raise AgentError(f"The args.yml in {run.folder} holds no command line of the Zoo's train: {message}.")

    return ResumedParser


def _keep_folder(_: Any) -> None:
    """A run that goes on has its folder."""


def _experiment_manager(run: StoppedRun, manager: Any) -> Any:
    """The Zoo's, but for the folder and the hyperparameters of the run, from its state on."""

    class ResumedExperiment(manager):
        is_learning = False
        create_log_folder = _keep_folder

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.save_path = str(run.folder)
            self.params_path = f"{self.save_path}/{self.env_name}"
            if run.arguments.get("tensorboard_log"):
                # With --track, the Zoo chooses a new one.
                self.tensorboard_log: str | None = f"{run.arguments['tensorboard_log']}/{self.env_name}"

        def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
            return dict(run.config), run.config

        def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> Any:
            if run.state is not None and not eval_env:
                self.monitor_kwargs |= {"override_existing": False}
            return super().create_envs(n_envs, eval_env, no_log)

        def _begin_monitor_file(self, name: str) -> None:
            columns = (self.monitor_kwargs.get(key, ()) for key in ("reset_keywords", "info_keywords"))
            header = {"t_start": time.time(), "env_id": self.env_name.gym_id}
            ResultsWriter(str(run.folder / name), header, tuple(itertools.chain(*columns))).close()

        def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
            print(f"Log path: {self.save_path}")

        def learn(self, model: Any) -> None:
            if run.state is not None:
                model.load_run_state(run.state)
                for name, size in run.monitor_files.items():
                    if not _cut(run.folder / name, size):
                        self._begin_monitor_file(name)
                self.n_timesteps = run.total_timesteps - model.num_timesteps
            type(self).is_learning = True
            super().learn(model)

    return ResumedExperiment


def _cut(path: Path, size: int) -> bool:
    """
    Cut a Monitor file to the size that it had at the checkpoint: later episodes are played again.

    :param path: the file
    :param size: the size
    :return: whether the run can append to it; else it has to be begun anew
    """
    content = path.read_bytes()[:size]
    if len(content) < size:
        warnings.warn(f"{path} is shorter than at the checkpoint: rows of it are lost. All else goes on where it was.")
        # A row that is not whole would be one with the next one.
        content = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(content))
    return content.count(b"\n") >= 2


def command_line(arguments: dict[str, Any]) -> list[str]:
    """
    :param arguments: the content of args.yml
    :return: the command line that leads to it, without hyperparameters and the arguments of environments
    """
    words = []
    for name, value in arguments.items():
        option = f"--{name.replace('_', '-')}"
        if name in _LEFT_OUT | _NAMED or value is None or value is False or value in ("", [], {}):
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            words += [option, *map(str, value)]
        else:
            words.append(f"{option}={value}")
    return words


def _complete(folder: Path) -> str:
    return f"{folder} is complete: its last model is saved."


def main(argv: list[str]) -> int:
    """
    :param argv: the command line without the verb
    :return: exit status
    """
    parser = Parser(
        "sb3-distill resume",
        "Go on with a run that was stopped, until the number of steps that it was started for. This runs "
        "the command that is in the folder: use it on your own runs.",
        "logs/pd/CartPole-v1_1",
    )
    parser.add_argument("folder", type=Path, help="run folder of the Zoo, such as logs/pd/CartPole-v1_1")
    parser.add_argument("--dry-run", action="store_true", help="only say from where the run would go on")
    args = parser.parse_args(argv)
    try:
        if args.dry_run:
            print(find_stopped_run(args.folder) or _complete(args.folder))
        else:
            resume(args.folder)
    except _EXPECTED as error:
        print(f"sb3-distill resume: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
