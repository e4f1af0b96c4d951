"""Registers our algorithms with the RL Baselines3 Zoo. Called by the start-up hook ``sb3_distill_zoo``."""

import functools
import inspect
import math
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from sb3_distill.algorithms import ALGORITHMS, resolve
from sb3_distill.base.resume.resuming import ResumableMixin
from sb3_distill.common.files import default_config
from sb3_distill.envs.imports import trust_packages, why_not_made
from sb3_distill.envs.minatar import register_minatar
from sb3_distill.study.cell import leaves_one_agent
from sb3_distill.study.file import check_hyperparams
from sb3_distill.study.plan.strict import with_paper
from sb3_distill.zoo.refusals import in_one_line, option_in_one_line
from sb3_distill.zoo.samplers import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

# Of a run, where nobody says otherwise: the Zoo's steps between two evaluations are more than many of our runs have.
_N_EVALUATIONS, _EVAL_FREQ = 10, 25_000
# What a run's folder has before it learns: files, and lines of a Monitor file
_SETTINGS, _MONITOR_LINES = ("config.yml", "args.yml", "command.txt"), 2
# Through it, environments in other processes are heard.
_TO_PROCESSES = str(Path("multiprocessing", "connection.py"))


def register_algorithms(utils: ModuleType) -> None:
    """
    Add our algorithms to the choices of ``--algo``. Keys that exist already are not replaced.

    :param utils: ``rl_zoo3.utils``
    """
    # Makes the ids of MinAtar's games available for --env
    register_minatar()
    # The Zoo evaluates settings in this module, such as optimizer_class=sb3_distill.Muon.
    vars(utils)["sb3_distill"] = sys.modules["sb3_distill"]
    for key in ALGORITHMS:
        utils.ALGOS.setdefault(key, resolve(key))
    ours = tuple(key for key in ALGORITHMS if utils.ALGOS[key] is resolve(key))
    utils.StoreDict.__call__ = option_in_one_line(utils.StoreDict.__call__, ours)


def register_samplers(hyperparams_opt: ModuleType) -> None:
    """
    Add our search spaces for ``--optimize-hyperparameters``, and the conversion of a trial's values for ``--trial-id``.

    :param hyperparams_opt: ``rl_zoo3.hyperparams_opt``
    """
    for key in ALGORITHMS:
        hyperparams_opt.HYPERPARAMS_SAMPLER.setdefault(key, HYPERPARAMS_SAMPLER[key])
        hyperparams_opt.HYPERPARAMS_CONVERTER.setdefault(key, HYPERPARAMS_CONVERTER[key])


def register_experiments(exp_manager: ModuleType) -> None:
    """
    Let the Zoo read our hyperparameters if no ``--conf-file`` is given (by itself it searches only its own package),
    and those of the papers (``strict:True``), and evaluate ten times in a run if no ``--eval-freq`` is given. And let
    the state of a run stay until the Zoo has saved the model, its memory and its statistics.

    :param exp_manager: ``rl_zoo3.exp_manager``
    """
    manager = exp_manager.ExperimentManager
    zoo_init = manager.__init__
    signature = inspect.signature(zoo_init)

    def is_ours(algo: str) -> bool:
        # Check the class too: another package's algorithm with the same key must keep its own configuration.
        return algo in ALGORITHMS and exp_manager.ALGOS.get(algo) is resolve(algo)

    @functools.wraps(zoo_init)
    def init_with_our_defaults(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        algo = bound.arguments["algo"]
        ours = is_ours(algo)
        if ours:
            # The user has named them, so a teacher may be made by a function in them.
            trust_packages(getattr(bound.arguments["args"], "gym_packages", None) or ())
            tasks = (bound.arguments.get("env_kwargs") or {}).get("env_ids") or ()
            for env_id in (bound.arguments["env_id"], *(each for each in tasks if isinstance(each, str))):
                if problem := why_not_made(env_id):
                    raise ValueError(problem)
        if ours and not bound.arguments.get("config"):
            bound.arguments["config"] = str(default_config(algo))
        if ours and bound.arguments.get("hyperparams"):
            n_timesteps = bound.arguments.get("n_timesteps", 0)
            bound.arguments["hyperparams"] = with_paper(
                algo, bound.arguments["env_id"], bound.arguments["hyperparams"], n_timesteps
            )
        zoo_init(*bound.args, **bound.kwargs)

    zoo_preprocess = manager._preprocess_hyperparams

    @functools.wraps(zoo_preprocess)
    def check_settings(self: Any, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        # What is left is for the constructor: the Zoo has taken out its own.
        processed: tuple[dict[str, Any], Any, Any, Any] = zoo_preprocess(self, hyperparams)
        if is_ours(self.algo):
            check_hyperparams(f"--algo {self.algo}", self.algo, processed[0])
            # argparse takes the beginning of an option for the whole.
            is_said = self.eval_freq != _EVAL_FREQ or any(word.startswith("--eval-f") for word in sys.argv)
            # Other runs evaluate by themselves.
            if not is_said and leaves_one_agent(self.algo, processed[0]):
                n_calls = math.ceil(self.n_timesteps / self.n_envs / _N_EVALUATIONS)
                # args.yml says it, too.
                self.eval_freq = self.args.eval_freq = n_calls * self.n_envs
        return processed

    zoo_save = manager.save_trained_model

    @functools.wraps(zoo_save)
    def save_before_the_state_goes(self: Any, model: Any) -> None:
        with model.keeping_state(self.save_path) if isinstance(model, ResumableMixin) else nullcontext():
            zoo_save(self, model)

    manager.__init__ = in_one_line(init_with_our_defaults)
    manager.create_log_folder = _own_folder(manager.create_log_folder, is_ours)
    manager.save_trained_model = save_before_the_state_goes
    manager._preprocess_hyperparams = check_settings
    manager.learn = in_one_line(_leaving_nothing(_naming_dead_environments(manager.learn, is_ours)))
    setup = _naming_dead_environments(manager.setup_experiment, is_ours)
    manager.setup_experiment = in_one_line(_leaving_nothing(setup))
    manager.hyperparameters_optimization = in_one_line(manager.hyperparameters_optimization)


def _naming_dead_environments(zoo_method: Callable[..., Any], is_ours: Callable[[str], bool]) -> Callable[..., Any]:
    """What the Zoo does, but that it says where an environment's process has ended, of which this one hears no more."""

    @functools.wraps(zoo_method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return zoo_method(self, *args, **kwargs)
        except (EOFError, ConnectionResetError, BrokenPipeError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            if not is_ours(self.algo) or not any(frame.filename.endswith(_TO_PROCESSES) for frame in frames):
                raise
            raise ChildProcessError(
                "The process of an environment has ended. Its error stands above; with --vec-env dummy, all "
                "environments are in one process, and the error ends the run itself."
            ) from error

    return call


def _own_folder(zoo_create: Callable[..., None], is_ours: Callable[[str], bool]) -> Callable[..., None]:
    """
    The Zoo's making of a run's folder, but that ours never share one: of two runs that begin at once, both have found
    the same number free. One makes its folder, and the other takes the next number.
    """

    @functools.wraps(zoo_create)
    def create(self: Any) -> None:
        while is_ours(self.algo):
            folder = Path(self.save_path)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                name, _, number = self.save_path.rpartition("_")
                self.save_path = f"{name}_{int(number) + 1}"
                self.params_path = f"{self.save_path}/{self.env_name}"
            else:
                self.made_folder = folder
                break
        zoo_create(self)

    return create


def _leaving_nothing(zoo_method: Callable[..., Any]) -> Callable[..., Any]:
    """What the Zoo does, but that a run of ours that cannot begin leaves no folder, which would count as a run."""

    @functools.wraps(zoo_method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return zoo_method(self, *args, **kwargs)
        except Exception:
            folder = getattr(self, "made_folder", None)
            if folder is not None and all(_is_of_beginning(path) for path in folder.rglob("*") if not path.is_dir()):
                shutil.rmtree(folder, ignore_errors=True)
            raise

    return call


def _is_of_beginning(path: Path) -> bool:
    """Whether the Zoo writes this file before a run learns: its settings, and Monitor files without an episode."""
    if path.name.endswith(".monitor.csv"):
        return len(path.read_text().splitlines()) <= _MONITOR_LINES
    return path.name in _SETTINGS
