"""Algorithms whose students learn few bits: their precision falls over the run, and never rises again."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import TensorDict

from sb3_distill.quantization.layers import calibrate, describe_transition, freeze_steps
from sb3_distill.quantization.precision import (
    BITS,
    Bits,
    LayerBits,
    check_precision,
    check_same_bits,
    check_schedule,
    quantize_student,
    set_precision,
    share_at,
    transition_share,
)

SelfQuantizing = TypeVar("SelfQuantizing", bound="QuantizingMixin")


class QuantizingMixin:
    """
    Mixin of SB3 algorithms with an actor-critic student, whose actor has ``weight_bits`` ... at the end of a run. A
    subclass calls ``_quantize`` when it has made the policy, and ``_update_precision`` while it learns.
    """

    policy: Any
    lr_schedule: Any
    _current_progress_remaining: float
    weight_bits: Bits
    activation_bits: Bits
    first_layer_bits: LayerBits
    last_layer_bits: LayerBits
    quantization_schedule: str
    full_precision_fraction: float
    final_fraction: float
    # Progress of the transition to the final precision, from 0 to 1; None before it begins
    transition_share: float | None = None

    def _check_arguments(self) -> None:
        check_precision(**self.bits)
        check_schedule(self.quantization_schedule, self.full_precision_fraction, self.final_fraction)

    def _setup_student(self) -> None:
        """What is made anew when the policy has got other layers."""
        if self.weight_bits is not None:
            self._quantize()

    def _quantize(self) -> None:
        quantize_student(self.policy, **self.bits)
        # The step sizes are new parameters, so the optimizer is built again.
        self.policy.optimizer = self.policy.optimizer_class(
            self.policy.parameters(),
            lr=self.lr_schedule(1),
            **self.policy.optimizer_kwargs,
        )

    @property
    def bits(self) -> dict[str, Any]:
        """The four arguments with numbers of bits, by name."""
        return {name: getattr(self, name) for name in BITS}

    def _update_precision(self, some_observations: Callable[[], Any]) -> bool:
        """
        Set the precision of this moment of the run.

        :param some_observations: returns observations on which the step sizes are chosen when the transition begins
        :return: whether the student has come to its final precision with this call
        """
        progress = 1.0 - self._current_progress_remaining
        if self.transition_share is None:
            if progress < self.full_precision_fraction:
                return False
            observations = some_observations()
            calibrate(self.policy, lambda: self.policy.answer(observations))
            self.transition_share = 0.0
        share = share_at(progress, self.full_precision_fraction, self.final_fraction)
        # If learn() is called again, the student may be ahead of the new schedule: never raise the precision.
        self.transition_share = min(max(share, self.transition_share), 1.0)
        before = describe_transition(self.policy)
        set_precision(self.policy, self.quantization_schedule, self.transition_share)
        if self.transition_share == 1.0:
            freeze_steps(self.policy)
        return bool(before) and not describe_transition(self.policy)

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        Load parameters, and go on at their precision.

        :param load_path_or_dict: as SB3's: a zip-file, or parameters by name (see ``get_parameters``)
        :param exact_match: as SB3's: whether all parameters of the model must be given
        :param device: device on which the parameters are loaded
        :raises ValueError: the parameters are those of a student with other bits
        """
        params: Any = load_path_or_dict
        if not isinstance(params, dict):
            _, params, _ = load_from_zip_file(params, device=device, load_data=False)
        # Before anything is loaded
        check_same_bits(self.policy, params.get("policy", {}))
        super().set_parameters(params, exact_match, device)  # type: ignore[misc]
        if self.weight_bits is None:
            return
        self.transition_share = transition_share(self.policy, self.quantization_schedule, self.transition_share)
        freeze_steps(self.policy, self.transition_share == 1.0)

    @classmethod
    def load(cls: type[SelfQuantizing], path: Any, *args: Any, **kwargs: Any) -> SelfQuantizing:
        """
        Load the model from a zip-file, which is unpickled and so must be one that you trust. With bits (``weight_bits``
        ...), a student at full precision is quantized by the next ``learn``.

        :param path: path to the file (or a file-like)
        :param args: as SB3's ``load``: env, device, custom_objects
        :param kwargs: extra arguments to change the model when loading
        :return: new model instance with loaded parameters
        :raises ValueError: bits are out of range, or differ from those of a student that is quantized already, or the
            model has several students
        """
        bits = {name: kwargs.pop(name) for name in BITS if name in kwargs}
        model = super().load(path, *args, **kwargs)  # type: ignore[misc]
        changed = {name: value for name, value in bits.items() if value != model.bits[name]}
        check_new_bits(model.bits, changed)
        further = list(getattr(model, "students", None) or ())
        if changed and further:
            raise ValueError(
                f"{', '.join(changed)} would be those of one student, and this model has further ones: "
                f"{', '.join(further)}. Load it without bits, and save each by itself (student_model(NAME).save(path); "
                "the first one once the others are dropped, drop_student). Load those with bits."
            )
        vars(model).update(changed)
        model._check_arguments()
        if changed and model.weight_bits is not None:
            model._setup_student()
        return model


def check_new_bits(bits: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """
    :param bits: numbers of bits of a student that is loaded
    :param changed: those that it is to have instead
    :raises ValueError: the student is quantized already
    """
    if changed and bits["weight_bits"] is not None:
        own = ", ".join(f"{name}={value}" for name, value in bits.items())
        raise ValueError(
            f"This student is quantized already ({own}), so {', '.join(changed)} cannot change: load a student at full "
            "precision with other bits, or distill a new one."
        )
