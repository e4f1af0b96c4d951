"""Small helpers that several modules use."""

import difflib
import importlib.util
import math
import numbers
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import HumanOutputFormat, Logger

Function = TypeVar("Function", bound=Callable)


def unknown_choice(field: str, value: object, choices: Iterable[str]) -> str:
    """
    The error message for an unknown name.

    :param field: the argument's name, e.g. "loss"
    :param value: the unknown name
    :param choices: the known names
    :return: the message, with all choices and, if there is one, a similar name
    """
    choices = list(choices)
    lower_case = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(value).lower(), lower_case, n=1)
    hint = f" Did you mean '{lower_case[close[0]]}'?" if close else ""
    return f"Unknown {field} {value!r}: choose one of {', '.join(choices)}.{hint}"


def counted(number: int, noun: str) -> str:
    """
    :param number: how many there are
    :param noun: what one of them is called
    :return: both, such as "1 cell" and "2,000 cells"
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def setting(name: str, value: str) -> str:
    """
    How a user sets a hyperparameter, for messages that are read in Python and on the Zoo's command line.

    :param name: the argument of the algorithm
    :param value: the value, as it is written in Python, or a word that stands for it
    :return: both ways
    """
    word = value if re.fullmatch(r"[\w.+-]+", value) else f'"{value}"'
    return f"{name}={value} (in the Zoo: -params {name}:{word})"


def missing_extra(extra: str, *modules: str) -> str | None:
    """
    :param extra: one of this package's extras
    :param modules: modules that come with it
    :return: a sentence if one of them is not installed
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{missing[0]} is not installed: pip install 'sb3-distill[{extra}]'." if missing else None


def without_task(obs: Any) -> Any:
    """
    :param obs: observations of several tasks, or the space of them
    :return: what the tasks themselves show: the part under "obs", or a Dict of all parts but the task's index
    """
    parts = {key: obs[key] for key in obs if key != "task"}
    if parts.keys() == {"obs"}:
        return parts["obs"]
    return spaces.Dict(parts) if isinstance(obs, spaces.Dict) else parts


def to_number(value: Any) -> float:
    """
    :param value: a user's input
    :return: the number; NaN if the input is not a number, so that every check of its bounds fails
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def check_device(device: th.device | str) -> None:
    """
    Refuse a GPU that is not available; SB3 would silently train on the CPU where CUDA was asked for.

    :param device: the device that the user asked for
    :raises ValueError: the device is CUDA or MPS, and torch sees none
    """
    kind = th.device("cpu" if device == "auto" else device).type
    is_there = {"cuda": th.cuda.is_available(), "mps": th.backends.mps.is_available()}
    if not is_there.get(kind, True):
        raise ValueError(
            f"device={str(device)!r} was asked for, but torch sees no {kind.upper()} device: use 'cpu' or 'auto'."
        )


def check_probability(field: str, value: Any) -> None:
    """
    :param field: the argument's name
    :param value: the argument's value
    :raises ValueError: the value is not a probability
    """
    if not isinstance(value, numbers.Real) or not 0.0 <= float(value) <= 1.0:
        raise ValueError(f"{field} is a probability and must lie in [0, 1], not {value!r}.")


def check_count(field: str, value: Any, of_zero: str) -> None:
    """
    :param field: the argument's name
    :param value: the argument's value
    :param of_zero: what 0 means, for the message
    :raises ValueError: the value is no whole number, or below 0
    """
    if not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(f"{field} must be a whole number, at least 0 (0: {of_zero}), not {value!r}.")


def has_fast_bfloat16(device: th.device) -> bool:
    """
    :param device: the device on which the network is trained
    :return: whether the device multiplies bfloat16 in hardware
    """
    if device.type == "cuda":
        return th.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (th.cpu._is_avx512_bf16_supported() or th.cpu._is_amx_tile_supported())


def to_device(array: np.ndarray, device: th.device) -> th.Tensor:
    """
    :param array: an array that nobody changes
    :param device: a device
    :return: the array there; a GPU fetches it from pinned memory, and nobody waits for it
    """
    tensor = th.as_tensor(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def compile_or_same(function: Function) -> Function:
    """
    :param function: a function of tensors
    :return: the function, compiled at its first call; the function itself, with a warning, if compiling fails (such as
        without a C++ compiler)
    """
    chosen: Callable = th.compile(function)
    first_call = True

    def call(*args: object) -> object:
        nonlocal chosen, first_call
        if not first_call:
            return chosen(*args)
        first_call = False
        try:
            return chosen(*args)
        except Exception as error:
            # If the function itself is wrong, and not its compilation, this call raises the error again.
            chosen = function
            result = chosen(*args)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
            warnings.warn(
                f"torch.compile failed ({type(error).__name__}: {reason}): training goes on without it, to the same "
                "results but slower. Install what it needs, such as a C++ compiler, or pass "
                f"{setting('compile_update', 'False')}."
            )
            return result

    return call  # type: ignore[return-value]


def show_whole_keys(logger: Logger, keys: Iterable[str]) -> None:
    """
    Make room in printed tables. SB3 cuts keys after 36 letters, and raises an error where two are then the same.

    :param logger: the logger of a run
    :param keys: keys that will be recorded, without the part before the slash
    """
    # SB3 indents them by three spaces.
    longest = 3 + max((len(key) for key in keys), default=0)
    for output in logger.output_formats:
        if isinstance(output, HumanOutputFormat):
            output.max_length = max(output.max_length, longest)


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Restore the states of torch's and NumPy's global generators at the end, so that training students does not
    change the teacher's random numbers."""
    state = np.random.get_state()
    with th.random.fork_rng(devices=[]):
        yield
    np.random.set_state(state)


_VERSIONED = re.compile(r"(?:\w[\w.]*:)?(?P<name>.+)-v(?P<version>\d+)")


def earlier_versions(env_id: str) -> list[str]:
    """
    :param env_id: id of an environment
    :return: the ids that earlier versions of it have, or would have, the latest first
    """
    found = _VERSIONED.fullmatch(env_id)
    # Nobody counts further.
    versions = range(min(int(found["version"]), 100) - 1, -1, -1) if found else ()
    return [f"{found['name']}-v{version}" for version in versions] if found else []
