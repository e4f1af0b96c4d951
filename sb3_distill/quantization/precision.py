"""The precision of a student's layers, and its schedule over the run."""

import math
import numbers
import warnings
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_distill.common.utils import unknown_choice
from sb3_distill.networks.actor_critic_policies import actor_modules
from sb3_distill.quantization.layers import quantize, quantized_layers, quantizers
from sb3_distill.quantization.quantizer import LAYER_KINDS, MAX_BITS, Quantizer, check_bits, has_exact_input

Bits = int | Mapping[str, int] | None
# Of the first or the last layer: one number for both parts, or one for each
LayerBits = int | Mapping[str, int]
PARTS = ("weight", "input")
BITS = ("weight_bits", "activation_bits", "first_layer_bits", "last_layer_bits")
SCHEDULES = ("blend", "bits")


def check_precision(
    weight_bits: Bits, activation_bits: Bits, first_layer_bits: LayerBits, last_layer_bits: LayerBits
) -> None:
    """
    :param weight_bits: see ``QPD``
    :param activation_bits: see ``QPD``
    :param first_layer_bits: see ``QPD``
    :param last_layer_bits: see ``QPD``
    :raises ValueError: a number of bits is out of range, or ``activation_bits`` is given without ``weight_bits``
    """
    if weight_bits is not None:
        check_bits("weight_bits", weight_bits, LAYER_KINDS)
    if activation_bits is not None:
        check_bits("activation_bits", activation_bits, LAYER_KINDS)
        if weight_bits is None:
            raise ValueError(
                f"activation_bits={activation_bits} needs weight_bits too: set it, or set both to None for "
                "full precision (in the Zoo: -params weight_bits:None activation_bits:None)."
            )
    for field, bits in (("first_layer_bits", first_layer_bits), ("last_layer_bits", last_layer_bits)):
        check_bits(field, bits, PARTS)
        if isinstance(bits, Mapping) and set(bits) != set(PARTS):
            raise ValueError(f"{field}={dict(bits)} must name the bits of both, {' and '.join(PARTS)}.")


def check_schedule(schedule: str, full_precision_fraction: float, final_fraction: float) -> None:
    """
    :param schedule: see ``QPD``
    :param full_precision_fraction: see ``QPD``
    :param final_fraction: see ``QPD``
    :raises ValueError: the schedule is unknown, or never reaches the final precision
    """
    if schedule not in SCHEDULES:
        raise ValueError(unknown_choice("quantization_schedule", schedule, SCHEDULES))
    shares = full_precision_fraction, final_fraction
    if not all(isinstance(share, numbers.Real) for share in shares) or not (
        0 <= shares[0] < 1 and 0 < shares[1] <= 1 and sum(shares) <= 1
    ):
        raise ValueError(
            f"The schedule never reaches the final precision: full_precision_fraction={shares[0]!r} and "
            f"final_fraction={shares[1]!r} must be shares of the run, the second above 0, and their sum at most 1."
        )


def share_at(progress: float, full_precision_fraction: float, final_fraction: float) -> float:
    """
    :param progress: of the run, from 0 to 1
    :param full_precision_fraction: see ``QPD``
    :param final_fraction: see ``QPD``
    :return: how far the schedule is in the transition: 0 at its beginning, 1 and more when it is over
    """
    transition = 1.0 - full_precision_fraction - final_fraction
    return 1.0 if transition <= 0 else (progress - full_precision_fraction) / transition


def _of_layer(field: str, bits: Bits, layer: nn.Module) -> int:
    if not isinstance(bits, Mapping):
        return int(bits or MAX_BITS)
    kind = "linear" if isinstance(layer, nn.Linear) else "conv"
    if kind not in bits:
        raise ValueError(f"{field}={dict(bits)} has no entry for the actor's '{kind}' layers: add one.")
    return int(bits[kind])


def _of_part(bits: LayerBits, part: str) -> int:
    return int(bits[part] if isinstance(bits, Mapping) else bits)


def quantize_student(
    policy: ActorCriticPolicy,
    weight_bits: Bits,
    activation_bits: Bits,
    first_layer_bits: LayerBits,
    last_layer_bits: LayerBits,
) -> None:
    """
    Replace the actor's layers by quantized ones, in place.

    :param policy: the student's policy
    :param weight_bits: see ``QPD``
    :param activation_bits: see ``QPD``
    :param first_layer_bits: see ``QPD``
    :param last_layer_bits: see ``QPD``
    :raises ValueError: a mapping of bits has no entry for a kind of layer that the actor has
    """
    exact_input = has_exact_input(policy.observation_space)

    def choose(part: str, position: int, n_layers: int, layer: nn.Module) -> int:
        if position == 0:
            return _of_part(first_layer_bits, part)
        if position == n_layers - 1:
            return _of_part(last_layer_bits, part)
        if part == "weight":
            return _of_layer("weight_bits", weight_bits, layer)
        return _of_layer("activation_bits", activation_bits, layer)

    quantize(
        policy,
        actor_modules(policy),
        lambda *place: choose("weight", *place),
        lambda *place: None if exact_input and place[0] == 0 else choose("input", *place),
    )
    outer = [_of_part(bits, "weight") for bits in (first_layer_bits, last_layer_bits)]
    if len(quantized_layers(policy)) <= 2 and weight_bits not in outer:
        warnings.warn(
            f"The actor has no layer between its first and its last, so weight_bits={weight_bits} applies to none: "
            f"first_layer_bits={first_layer_bits} and last_layer_bits={last_layer_bits} do."
        )


def _precision(schedule: str, share: float, final_bits: int) -> tuple[float, int]:
    """The blend and the bits of a quantizer for one point of the transition."""
    if schedule == "blend":
        return share, final_bits
    # Each number of bits has the same part of the transition, the final one too: its step sizes must be learned before
    # they are frozen. No float's error adds a bit.
    stage = math.ceil((1.0 - share) * (MAX_BITS - final_bits + 1) - 1e-6)
    return 1.0, final_bits + max(stage - 1, 0)


def check_same_bits(policy: nn.Module, state: Mapping[str, Any]) -> None:
    """
    :param policy: a student's policy
    :param state: a state dictionary for it
    :raises ValueError: the state is that of a student with other final bits
    """
    own = {
        f"{name}.final_bits": module.final_bits
        for name, module in policy.named_modules()
        if isinstance(module, Quantizer)
    }
    given = {name: int(state.get(name, bits)) for name, bits in own.items()}
    if given != own:
        raise ValueError(
            f"The layers of this student end at {list(own.values())} bits (weight and input in turn), the parameters "
            f"are of one with {list(given.values())}: make it with the same bits, or read the other one with QPD.load."
        )


def set_precision(policy: nn.Module, schedule: str, share: float) -> None:
    """
    Set the precision of a student for one point of the transition from full to final precision.

    :param policy: a policy with quantized layers
    :param schedule: "bits" or "blend"
    :param share: progress of the transition: 0 at its beginning, 1 at its end
    """
    for layer in quantized_layers(policy):
        for quantizer, set_bits in (
            (layer.weight_quantizer, layer.weight_quantizer.set_bits),
            (layer.input_quantizer, layer.set_input_bits),
        ):
            if quantizer is not None:
                quantizer.blend, bits = _precision(schedule, share, quantizer.final_bits)
                if bits != quantizer.bits:
                    set_bits(bits)


def transition_share(policy: nn.Module, schedule: str, noted: float | None = None) -> float | None:
    """
    How far a student is in the transition, from its parameters: the opposite of ``set_precision``.

    :param policy: a policy with quantized layers
    :param schedule: "bits" or "blend"
    :param noted: the share that is returned if it is one of several with the same precision
    :return: progress of the transition, None before it begins; 1 at the final precision, even if its step sizes still
        learned, unless a noted share says so
    """
    states = [(item.blend, item.bits, item.final_bits) for item in quantizers(policy)]
    if any(blend == 0.0 for blend, _, _ in states):
        return None
    if noted is not None and all(_precision(schedule, noted, final) == (blend, bits) for blend, bits, final in states):
        return noted
    if schedule == "blend" or all(blend == 1.0 and bits == final for blend, bits, final in states):
        return min(blend for blend, _, _ in states)
    return max(1.0 - (bits - final + 1) / (MAX_BITS - final + 1) for _, bits, final in states)
