"""What a study file may hand to the Zoo, whose command line evaluates it: literals, and classes of a list by name."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.classes import CLASSES
from sb3_distill.agents.rebuild.weights import ACTIVATIONS, read_activation
from sb3_distill.common.arguments import read_literal
from sb3_distill.envs.imports import check_env_id, check_env_kwargs, find_wrapper
from sb3_distill.envs.recipe import read_wrappers
from sb3_distill.study.cell import Cell, StudyError

# By the argument that takes a class of `CLASSES`, where the Zoo finds it; activations are those of `read_activation`
_ZOO_MODULES = {
    "optimizer_class": "th.optim",
    "features_extractor_class": "sb3.common.torch_layers",
    "replay_buffer_class": "sb3.common.buffers",
}
_MODULES = (
    "",
    "torch.optim",
    "sb3_distill",
    *_ZOO_MODULES.values(),
    *(f"stable_baselines3.common.{n}" for n in ("torch_layers", "buffers")),
)
# The Zoo evaluates these where they are text.
_EVALUATED = ("policy_kwargs", "normalize", "replay_buffer_kwargs", "replay_buffer_class", "monitor_kwargs")
_IMPORTED = {"env_wrapper": gym.Wrapper, "callback": BaseCallback}


def check_values(where: str, cell: Cell) -> None:
    """
    :param where: path of the study file, for the message
    :param cell: a cell of it
    :raises StudyError: a setting is neither YAML nor a literal of Python, or names what is not imported or not known
    """
    try:
        check_env_id(cell.env, where)
        check_env_kwargs(cell.env_kwargs, where)
        for name in cell.env_kwargs:
            if not isinstance(name, str) or not name.isidentifier():
                raise StudyError(f"{where}: env_kwargs has the name {name!r}, which is no name of an argument.")
        for name, base in _IMPORTED.items():
            for entry in read_wrappers(cell.hyperparams.get(name), f"{where}: {name}"):
                find_wrapper(entry.name, base, f"{where}: {name}", renamed=False)
        for name, value in {**cell.hyperparams, **{f"env_kwargs.{n}": v for n, v in cell.env_kwargs.items()}}.items():
            as_argument(name, value)
    except StudyError as error:
        raise StudyError(str(error) if where in str(error) else f"{where}: {error}") from error
    except (ValueError, TypeError) as error:
        raise StudyError(str(error)) from error


def as_argument(name: str, value: Any) -> str:
    """
    :param name: a setting
    :param value: its value in the study file
    :return: text that the Zoo's command line can evaluate: literals, and names of classes from our own list
    :raises StudyError: the value is anything else
    """
    key = name.rpartition(".")[2]
    if name in _EVALUATED and isinstance(value, str):
        value = _parse(name, value)
        if isinstance(value, str) and key not in _ZOO_MODULES:
            # The Zoo would evaluate it once more.
            raise StudyError(f"{name} must be a mapping, a number or true or false, not the text {value!r:.80}.")
    return _text(name, key, value)


def _text(where: str, key: Any, value: Any) -> str:
    if isinstance(value, str) and key == "activation_fn":
        try:
            return f"nn.{read_activation(value, nn.ReLU).__name__}"
        except AgentError as error:
            raise StudyError(f"{where} names {value!r}; known are nn.{', nn.'.join(ACTIVATIONS)}.") from error
    if isinstance(value, str) and key in _ZOO_MODULES:
        module, _, short = value.rpartition(".")
        if short not in CLASSES[key] or module not in _MODULES:
            raise StudyError(f"{where} names {value!r}; known are {', '.join(CLASSES[key])}.")
        ours = CLASSES[key][short].__module__.startswith("sb3_distill.")
        return f"{'sb3_distill' if ours else _ZOO_MODULES[key]}.{short}"
    if isinstance(value, Mapping):
        for name in value:
            if name is not None and not isinstance(name, (str, int, float)):
                raise StudyError(f"{where} has a key that is no text or number: {name!r}.")
        entries = (f"{name!r}: {_text(f'{where}.{name}', name, entry)}" for name, entry in value.items())
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, (list, tuple)):
        entries = (_text(where, None, entry) for entry in value)
        return f"[{', '.join(entries)}]" if isinstance(value, list) else f"({''.join(f'{e}, ' for e in entries)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    raise StudyError(
        f"{where} is {value!r}, of the type {type(value).__name__}: use numbers, text, lists and mappings."
    )


def _parse(name: str, text: str) -> Any:
    """A value such as ``"dict(net_arch=[64], activation_fn=nn.ReLU)"``, with names of classes as text."""
    try:
        return read_literal(text, names=True)
    except ValueError as error:
        raise StudyError(
            f"{name} must be a mapping such as {{net_arch: [64], activation_fn: nn.ReLU}}, not {text!r:.80}: text is "
            "not evaluated."
        ) from error
