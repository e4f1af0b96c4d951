"""The students that a search can try: networks, bits, temperatures, and what each would take on a device."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.base.cost import zip_bytes
from sb3_distill.common.utils import unchanged_randomness
from sb3_distill.networks.actor_critic_policies import ACTOR_CRITIC_POLICIES, actor_modules
from sb3_distill.quantization.layers import set_blend
from sb3_distill.quantization.packing import packed_bytes
from sb3_distill.quantization.precision import quantize_student
from sb3_distill.quantization.quantizer import MAX_BITS, MIN_BITS

Params = dict[str, Any]

_BITS = IntDistribution(MIN_BITS, MAX_BITS)
_DEPTHS = IntDistribution(0, 2)
# From the largest to the smallest at the same bits, the pooled one between them
_NETWORKS = ("Net1Policy", "Net2Policy", "Net3Policy", "Net4Policy", "Net5Policy", "MaxPoolCnnPolicy")
# Shares of the temperature that is natural for the teacher
_SHARPNESS = (0.1, 0.3, 1.0)
# Inputs take no bytes. With few bits they only cost return, so the search begins with all of them.
_INPUTS = {"input_bits": MAX_BITS}


def _all_bits(first: int, last: int, hidden: int | None = None) -> Params:
    between = {} if hidden is None else {"hidden_bits": hidden}
    return {"first_bits": first, **between, "last_bits": last, **_INPUTS}


# By the kind of network, the students that are tried before a sampler knows anything, the smallest first
_STARTS: dict[str, list[Params]] = {
    "vector": [
        {"depth": 0, "last_bits": 4, **_INPUTS},
        {"depth": 0, "last_bits": 8, **_INPUTS},
        {"depth": 1, "width_1": 3, **_all_bits(4, 4)},
        {"depth": 1, "width_1": 4, **_all_bits(4, 4)},
        {"depth": 1, "width_1": 6, **_all_bits(6, 6)},
        {"depth": 1, "width_1": 8, **_all_bits(8, 8)},
        {"depth": 1, "width_1": 16, **_all_bits(4, 4)},
        {"depth": 1, "width_1": 16, **_all_bits(8, 8)},
        {"depth": 2, "width_1": 16, "width_2": 16, **_all_bits(8, 8, 4)},
        {"depth": 1, "width_1": 32, **_all_bits(4, 6)},
        {"depth": 2, "width_1": 32, "width_2": 32, **_all_bits(4, 8, 4)},
        {"depth": 2, "width_1": 64, "width_2": 64, **_all_bits(8, 8, 8)},
        {"depth": 2, "width_1": 96, "width_2": 96, **_all_bits(8, 8, 4)},
    ],
    "frames": [
        {"network": network, **_all_bits(8, 8, bits)}
        for bits in (3, 4, 8)
        for network in ("Net5Policy", "MaxPoolCnnPolicy", "Net3Policy", "Net2Policy")
    ],
    "grid": [
        {"channels": channels, "units": units, "pool": pool, **_all_bits(bits, 8, bits)}
        for bits in (4, 8)
        for channels, units, pool in ((4, 16, "max"), (4, 16, "none"), (8, 32, "none"), (16, 64, "none"))
    ],
}


@dataclass(frozen=True)
class Space:
    """
    What a search can choose from.

    :param kind: "vector", "frames" (as those of Atari games) or "grid" (as those of MinAtar)
    :param observation_space: what a student observes
    :param action_space: its actions
    :param temperature: the temperature that is natural for a teacher of discrete actions: 1 for a distribution, the
        spread of its Q-values for others; None: actions are continuous
    :param is_normalized: whether students see normalized observations
    """

    kind: str
    observation_space: spaces.Space
    action_space: spaces.Space
    temperature: float | None
    is_normalized: bool = False

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna may choose, by name."""
        own: dict[str, dict[str, BaseDistribution]] = {
            "vector": {
                "depth": _DEPTHS,
                "width_1": IntDistribution(1, 128, log=True),
                "width_2": IntDistribution(1, 128, log=True),
            },
            "frames": {"network": CategoricalDistribution(_NETWORKS)},
            "grid": {
                "channels": IntDistribution(1, 32, log=True),
                "units": IntDistribution(4, 128, log=True),
                "pool": CategoricalDistribution(("none", "max")),
            },
        }
        bits = dict.fromkeys(("first_bits", "hidden_bits", "last_bits"), _BITS)
        sharpness = {} if self.temperature is None else {"sharpness": CategoricalDistribution(_SHARPNESS)}
        return {**own[self.kind], **bits, "input_bits": IntDistribution(4, MAX_BITS, step=2), **sharpness}

    def needed(self, params: Mapping[str, Any]) -> Params:
        """
        :param params: a choice of everything
        :return: the choice without what its network has no use for
        """
        least_depth = {"width_1": 1, "width_2": 2, "first_bits": 1, "hidden_bits": 2}
        depth = params.get("depth", 2)
        return {name: value for name, value in params.items() if depth >= least_depth.get(name, 0)}

    @property
    def starts(self) -> list[Params]:
        """The students that are tried first, the smallest first."""
        sharpness = {} if self.temperature is None else {"sharpness": 0.3}
        points = [{**point, **sharpness} for point in _STARTS[self.kind]]
        return sorted(points, key=self.n_bytes)

    @property
    def smallest(self) -> Params:
        """The smallest student that can be chosen."""
        choices: dict[str, Sequence[Any]] = {
            name: each.choices if isinstance(each, CategoricalDistribution) else (each.low,)  # type: ignore[attr-defined]
            for name, each in self.distributions.items()
            if name != "sharpness"
        }
        if "depth" in choices:
            # Without a hidden layer, the last one is as wide as the observation.
            choices["depth"] = range(_DEPTHS.low, _DEPTHS.high + 1)
        sharpness = {} if self.temperature is None else {"sharpness": 0.3}
        points = (dict(zip(choices, point, strict=True)) for point in itertools.product(*choices.values()))
        return min(({**self.needed(point), **sharpness} for point in points), key=self.n_bytes)

    @property
    def largest(self) -> Params:
        """The student with the most weights that can be chosen."""
        return {
            name: each.choices[0] if isinstance(each, CategoricalDistribution) else each.high  # type: ignore[attr-defined]
            for name, each in self.distributions.items()
        }

    def entries(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param params: a choice
        :return: the settings of this student in ``QPD``
        """
        bits = {
            "first_layer_bits": {
                "weight": params.get("first_bits", params["last_bits"]),
                "input": params["input_bits"],
            },
            "last_layer_bits": {"weight": params["last_bits"], "input": params["input_bits"]},
            "weight_bits": params.get("hidden_bits", params["last_bits"]),
            "activation_bits": params["input_bits"],
        }
        if self.kind == "vector" and params["depth"] == 0:
            bits["first_layer_bits"] = bits["last_layer_bits"]
        temperature = {} if self.temperature is None else {"temperature": self.temperature * params["sharpness"]}
        return {"policy": self._policy(params), "policy_kwargs": self._policy_kwargs(params), **bits, **temperature}

    def _policy(self, params: Mapping[str, Any]) -> str:
        if isinstance(self.observation_space, spaces.Dict):
            return "MultiInputPolicy"
        return {"vector": "MlpPolicy", "grid": "GridCnnPolicy"}.get(self.kind) or str(params["network"])

    def _policy_kwargs(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if self.kind == "frames":
            return {}
        if self.kind == "grid":
            pool = None if params["pool"] == "none" else params["pool"]
            extractor = {"channels": params["channels"], "features_dim": params["units"], "pool": pool}
            return {"features_extractor_kwargs": extractor}
        widths = [params[f"width_{layer}"] for layer in range(1, params["depth"] + 1)]
        # A critic that is not taught; ReLU needs no table on a device.
        return {"net_arch": {"pi": widths, "vf": []}, "activation_fn": nn.ReLU}

    def n_bytes(self, params: Mapping[str, Any]) -> int:
        """
        :param params: a choice
        :return: bytes of what acts, before anything is trained
        """
        entries = self.entries(params)
        entries.pop("temperature", None)
        policy = self._make_policy(entries.pop("policy"), entries.pop("policy_kwargs"))
        quantize_student(policy, **entries)
        set_blend(policy, 1.0)
        shape = self.observation_space.shape or ()
        statistics = [(np.zeros(shape), np.ones(shape))] if self.is_normalized else []
        return packed_bytes(actor_modules(policy), statistics)

    def file_bytes(self, params: Mapping[str, Any]) -> int:
        """
        :param params: a choice
        :return: about how many bytes its zip has
        """
        entries = self.entries(params)
        policy = self._make_policy(entries["policy"], entries["policy_kwargs"])
        return zip_bytes(policy.parameters())

    def _make_policy(self, policy: str, policy_kwargs: Mapping[str, Any]) -> ActorCriticPolicy:
        with unchanged_randomness():
            return ACTOR_CRITIC_POLICIES[policy](
                self.observation_space, self.action_space, lambda _: 0.0, **policy_kwargs
            )

    def describe(self, params: Mapping[str, Any]) -> str:
        """
        :param params: a choice
        :return: its network, in words
        """
        if self.kind == "frames":
            return str(params["network"]).removesuffix("Policy")
        if self.kind == "grid":
            return f"{params['channels']} maps, {params['units']} units{'' if params['pool'] == 'none' else ', pool'}"
        widths = [str(params[f"width_{layer}"]) for layer in range(1, params["depth"] + 1)]
        return f"{'-'.join(widths)} units" if widths else "linear"


def weight_bits_text(params: Mapping[str, Any]) -> str:
    """
    :param params: a choice
    :return: bits of the weights, layer by layer
    """
    names = ("first_bits", "hidden_bits", "last_bits")
    return "-".join(str(params[name]) for name in names if name in params)


def check_teacher(teacher: Teacher) -> None:
    """
    :param teacher: the agent that is compressed
    :raises ValueError: its actions are none that a student of ``QPD`` has
    """
    if not isinstance(teacher.action_space, (spaces.Discrete, spaces.Box)):
        raise ValueError(
            f"{teacher.source} has the actions {teacher.action_space}: compress takes Discrete and Box, as --algo qpd "
            "does."
        )


def kind_of(observations: spaces.Space) -> str:
    """
    :param observations: what students observe
    :return: their kind, see ``Space``
    :raises ValueError: no student on a device could take them
    """
    if isinstance(observations, spaces.Dict) and all(map(_is_vector, observations.spaces.values())):
        return "vector"
    if not isinstance(observations, spaces.Box) or len(observations.shape) not in (1, 2, 3):
        raise ValueError(
            f"The students would observe {observations}: compress takes vectors, matrices, frames and grids. Of Dict "
            "observations it takes one of these, or several vectors: name the keys that the students see with "
            "--student-keys (in Python, student_keys=)."
        )
    if len(observations.shape) < 3:
        # Of a matrix, MlpPolicy sees the entries in a row.
        return "vector"
    return "frames" if is_image_space(observations) and min(observations.shape[1:]) >= 36 else "grid"


def _is_vector(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)


def front_of(scored: Sequence[tuple[int, float]]) -> list[int]:
    """
    :param scored: bytes and per cent of students
    :return: indices of those than which no other is both as small and as good, from the smallest
    """
    order = sorted(range(len(scored)), key=lambda index: (scored[index][0], -scored[index][1]))
    front, best = [], -math.inf
    for index in order:
        if scored[index][1] > best:
            front.append(index)
            best = scored[index][1]
    return front
