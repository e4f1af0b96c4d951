"""What the run of a cell refuses when it begins, as far as its settings say it."""

import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_distill.algorithms import resolve
from sb3_distill.base.collecting import check_frequency, check_recordable
from sb3_distill.base.several.spec import check_shares
from sb3_distill.ppd.checks import check_length
from sb3_distill.qpd.checks import check_updates
from sb3_distill.quantization.precision import BITS, check_precision, check_schedule
from sb3_distill.study.cell import DISTILLING, Cell, StudyError
from sb3_distill.study.format.study_file import read_whole
from sb3_distill.study.plan.needs import length_of, settings_of


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
    settings = {**defaults, "n_envs": 1, **settings_of(cell)}
    n_envs, n_timesteps = read_whole("n_envs", settings["n_envs"], 1), length_of(cell)
    students = [settings]
    if cell.algo in (*DISTILLING, "mtpd"):
        check_frequency(read_frequency(settings["train_freq"]), n_envs)
    if cell.algo in DISTILLING:
        further = algorithm.read_students(settings["students"] or {})
        students += [{**settings, **own} for own in further.values()]
        check_shares(settings["rollout_policy"], len(students), n_envs)
    if cell.recording_key is not None:
        check_recordable(settings["rollout_policy"], bool(settings.get("normalize")))
    if cell.algo in ("qpd", "ppd"):
        for student in students:
            _check_bits(cell.algo, student, n_envs, n_timesteps)


def _check_bits(algo: str, student: Mapping[str, Any], n_envs: int, n_timesteps: int | None) -> None:
    schedule = student["full_precision_fraction"], student["final_fraction"]
    check_precision(**{name: student[name] for name in BITS})
    check_schedule(student["quantization_schedule"], *schedule)
    if student["weight_bits"] is None or n_timesteps is None:
        return
    if algo == "qpd":
        check_updates(read_whole("learning_starts", student["learning_starts"], 0), n_timesteps)
    else:
        check_length(n_timesteps, read_whole("n_steps", student["n_steps"], 1) * n_envs, *schedule)


def read_frequency(value: Any) -> TrainFreq:
    """
    :param value: the setting ``train_freq``
    :return: how many steps or episodes are between updates
    :raises ValueError: it is neither a number nor a number and its unit
    """
    pair = value if isinstance(value, (list, tuple)) else (value, "step")
    if len(pair) != 2 or pair[1] not in ("step", "episode"):
        raise ValueError(f"train_freq must be a number of steps, or such as [1, episode], not {value!r}.")
    return TrainFreq(read_whole("train_freq", pair[0], 1), TrainFrequencyUnit(pair[1]))
