"""What the run of a cell refuses when it begins, as far as its settings say it."""

import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_distill.algorithms import resolve
from sb3_distill.base.collecting import check_frequency, check_recordable
from sb3_distill.base.several.spec import check_shares, naming
from sb3_distill.common.utils import counted
from sb3_distill.networks.computing import planned_updates
from sb3_distill.ppd.checks import check_length
from sb3_distill.qpd.checks import check_updates
from sb3_distill.quantization.precision import BITS, check_precision, check_schedule
from sb3_distill.study.cell import DISTILLING, Cell, StudyError, leaves_one_agent
from sb3_distill.study.format.study_file import read_whole
from sb3_distill.study.plan.needs import length_of, settings_of

# Whole numbers among the settings, each with the smallest that a run takes
COUNTS = {
    "n_envs": 1,
    "batch_size": 1,
    "n_epochs": 1,
    "gradient_steps": -1,
    "learning_starts": 0,
    "eval_freq": -1,
    "n_eval_episodes": 0,
}


def check_start(where: str, cell: Cell) -> None:
    """
    :param where: path of the study file, for the message
    :param cell: a run of it
    :raises StudyError: the run would refuse its settings when it begins; the sentence is the run's
    """
    try:
        _check_start(cell)
    except ValueError as error:
        labels = " ".join(f"{name}={label}" for name, label in cell.labels.items())
        raise StudyError(f"{where}: {labels}: {error}") from error


def _check_start(cell: Cell) -> None:
    algorithm = resolve(cell.algo)
    arguments = inspect.signature(algorithm.__init__).parameters.items()
    defaults = {name: argument.default for name, argument in arguments}
    own = settings_of(cell)
    for name in COUNTS.keys() & own.keys():
        read_whole(name, own[name], COUNTS[name])
    settings = {**defaults, "n_envs": 1, **own}
    n_envs, n_timesteps = int(settings["n_envs"]), length_of(cell)
    further: dict[str, Any] = {}
    if cell.algo in (*DISTILLING, "mtpd"):
        check_frequency(read_frequency(settings["train_freq"]), n_envs)
    if cell.algo in DISTILLING:
        students = algorithm.read_students(settings["students"] or {})
        further = {name: {**settings, **entries} for name, entries in students.items()}
        check_shares(settings["rollout_policy"], len(further) + 1, n_envs)
    if cell.recording_key is not None:
        check_recordable(settings["rollout_policy"], bool(settings.get("normalize")))
    if cell.algo == "rtpd" and not leaves_one_agent(cell.algo, settings):
        _check_evaluations(settings, n_envs, n_timesteps)
    if cell.algo in ("qpd", "ppd"):
        _check_bits(settings)
        for name, student in further.items():
            with naming(name):
                _check_bits(student)
        if n_timesteps is not None and any(each["weight_bits"] is not None for each in (settings, *further.values())):
            _check_length(cell.algo, settings, n_envs, n_timesteps)


def _check_evaluations(settings: Mapping[str, Any], n_envs: int, n_timesteps: int | None) -> None:
    """The rows of its students are those of its evaluations: a run without one would be found out at its end."""
    eval_freq, n_episodes = (read_whole(name, settings[name], -1) for name in ("eval_freq", "n_eval_episodes"))
    train_freq = read_frequency(settings["train_freq"])
    gradient_steps = read_whole("gradient_steps", settings["gradient_steps"], -1)
    n_updates = None
    if n_timesteps is not None and train_freq.unit == TrainFrequencyUnit.STEP:
        n_learning = n_timesteps - read_whole("learning_starts", settings["learning_starts"], 0)
        # Where the rollouts begin and end can make one series of updates more.
        n_updates = planned_updates(n_learning, n_envs, train_freq, gradient_steps) + abs(gradient_steps)
    if n_episodes < 1 or eval_freq < 1 or (n_updates is not None and n_updates < eval_freq):
        raise ValueError(without_evaluation(n_timesteps, n_updates, eval_freq, n_episodes))


def without_evaluation(n_timesteps: int | None, n_updates: int | None, eval_freq: int, n_eval_episodes: int) -> str:
    """
    :param n_timesteps: steps of a run of ``rtpd``; None: not known
    :param n_updates: its updates; None: not known
    :param eval_freq: its updates between two evaluations
    :param n_eval_episodes: episodes of an evaluation
    :return: why its students have no rows
    """
    made = ""
    if n_timesteps is not None and n_updates is not None:
        made = f"n_timesteps={n_timesteps} makes {counted(n_updates, 'update')}, with "
    return (
        f"The run has no evaluation to score its students by: {made}eval_freq={eval_freq} updates between evaluations "
        f"of n_eval_episodes={n_eval_episodes}. Raise n_timesteps, or lower eval_freq; both numbers of evaluations "
        "must be above 0."
    )


def _check_bits(student: Mapping[str, Any]) -> None:
    check_precision(**{name: student[name] for name in BITS})
    check_schedule(student["quantization_schedule"], student["full_precision_fraction"], student["final_fraction"])


def _check_length(algo: str, settings: Mapping[str, Any], n_envs: int, n_timesteps: int) -> None:
    if algo == "qpd":
        check_updates(read_whole("learning_starts", settings["learning_starts"], 0), n_timesteps)
    else:
        n_steps = read_whole("n_steps", settings["n_steps"], 1) * n_envs
        check_length(n_timesteps, n_steps, settings["full_precision_fraction"], settings["final_fraction"])


def read_frequency(value: Any) -> TrainFreq:
    """
    :param value: the setting ``train_freq``
    :return: how many steps or episodes are between updates
    :raises ValueError: it is neither a number nor a number and its unit
    """
    pair = value if isinstance(value, (list, tuple)) else (value, "step")
    if len(pair) != 2 or pair[1] not in ("step", "episode"):
        raise ValueError(f"train_freq must be a number of steps, or such as [1, episode], not {value!r}.")
    unit = TrainFrequencyUnit(pair[1])
    if isinstance(pair[0], int):
        # Of numbers below 1, a run has words of its own.
        check_frequency(TrainFreq(pair[0], unit), n_envs=1)
    return TrainFreq(read_whole("train_freq", pair[0], 1), unit)
