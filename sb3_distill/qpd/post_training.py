"""Post-training quantization, the baseline of quantization-aware distillation."""

from typing import Any

from sb3_distill.common.quantization import calibrate, quantize, set_blend
from sb3_distill.common.teacher_policies import copy_policy


def quantize_after_training(
    policy: Any, weight_bits: int, activation_bits: int, observations: Any, exact_input: bool = False
) -> Any:
    """
    Post-training quantization: the baseline that training with quantization must beat. Step sizes are those with the
    least squared error on the weights and on what the policy has seen; nothing is trained.

    :param policy: a student of any algorithm here, which is left as it is
    :param weight_bits: precision of all weights
    :param activation_bits: precision of the inputs of all layers
    :param observations: observations of the student's own episodes, as tensors
    :param exact_input: whether the first layer's input is exact already (bytes)
    :return: a quantized copy of the policy
    """
    quantized = copy_policy(policy)
    quantize(
        quantized,
        quantized.actor_modules(),
        lambda position, n_layers, layer: weight_bits,
        lambda position, n_layers, layer: None if exact_input and position == 0 else activation_bits,
    )
    calibrate(quantized, lambda: quantized.outputs(observations))
    set_blend(quantized, 1.0)
    return quantized
