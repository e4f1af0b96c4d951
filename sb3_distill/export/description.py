"""The content of ``policy.json``, which describes an exported agent."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sb3_distill.reading.arrays import check_dtype
from sb3_distill.reading.limits import MAX_SPACE_ELEMENTS, ReadError, check_size
from sb3_distill.reading.schema import read_fields

# Version of the content of policy.json; files of the first versions do not say it
FORMAT = 1
# Versions of ONNX's operators: the first one with 4-bit integers, and the oldest that has all the others
OPSET, OLDEST_OPSET = 21, 18


@dataclass(frozen=True)
class ObservationFormat:
    """
    What an exported policy takes.

    :param shape: shape of one observation
    :param dtype: its type
    :param low: the lowest value, or one for every entry; None where there is none
    :param high: the highest value likewise
    :param parts: of an agent with Dict observations the keys, in the order in which their parts stand in a row, and the
        number of entries of each; None for others
    """

    shape: list[int]
    dtype: str
    low: Any
    high: Any
    parts: dict[str, int] | None = None


@dataclass(frozen=True)
class ExportedFile:
    """
    One ONNX file, ``policy.c``, or the page for a browser.

    :param bytes: its size; of C that of the constants which the policy needs
    :param disagreement: share of the observations at which it chooses another action than the agent
    """

    bytes: int
    disagreement: float


@dataclass(frozen=True)
class Description:
    """
    An exported agent and its files.

    :param source: where the agent is
    :param sha256: its hash
    :param algo: its algorithm
    :param env_id: the environment that checked the files
    :param env_kwargs: arguments of this environment
    :param env_wrapper: its wrappers, as the Zoo's configurations name them
    :param vec_env_wrapper: the wrappers of the vector environment likewise
    :param observation: the input of the files
    :param frame_stack: number of stacked frames
    :param n_parameters: the agent's parameters
    :param macs: multiply-accumulate operations of one decision
    :param opset: version of ONNX's operators
    :param action: ``n`` and, where the environment has them, ``labels`` of discrete actions; ``shape``, ``low`` and
        ``high`` of continuous ones
    :param n_observations: observations that the files were checked on
    :param n_episodes: whole episodes that these observations are from, none of which a step size was chosen on
    :param checked_against: the agent whose actions the files were compared with: as SB3 runs it, or as it was rebuilt
        from its weights, with spaces that are those of the environment
    :param files: the files that were written, by their names
    :param outputs: what an agent with discrete actions answers: "q_values" or "logits"; None: they are continuous
    :param needs_masks: whether the agent was trained with action masks, and plays within them
    """

    source: str
    sha256: str
    algo: str
    env_id: str
    env_kwargs: dict[str, Any]
    env_wrapper: list[Any]
    vec_env_wrapper: list[Any]
    observation: ObservationFormat
    frame_stack: int
    n_parameters: int
    macs: int
    opset: int
    action: dict[str, Any]
    n_observations: int
    n_episodes: int
    checked_against: str
    files: dict[str, ExportedFile]
    needs_masks: bool = False
    outputs: str | None = None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Description":
        """
        :param content: the content of ``policy.json``, with all fields
        :return: the description
        :raises ValueError: an entry is missing, or not what it should be
        """
        if not isinstance(content, Mapping):
            raise ReadError(f"it is no mapping, but {type(content).__name__}")
        names = {entry.name for entry in fields(cls)}
        description = read_fields(cls, {name: content[name] for name in content if name in names}, "policy.json")
        observation = description.observation
        try:
            check_dtype("the observation", np.dtype(observation.dtype))
        except TypeError as error:
            raise ReadError(f"{observation.dtype!r} is no type of an observation") from error
        if min(observation.shape, default=0) < 0:
            raise ReadError(f"{observation.shape} is no shape of an observation")
        if description.frame_stack < 1:
            raise ReadError(f"frame_stack must be at least 1, not {description.frame_stack}")
        check_size("the observation", math.prod(observation.shape), MAX_SPACE_ELEMENTS, "elements")
        return description
