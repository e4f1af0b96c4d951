"""The size of an actor in bytes, with quantized weights packed into as few bits as they need."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch as th
from torch import nn

from sb3_distill.networks.layers import FrameScaler, count_parameters
from sb3_distill.quantization.layers import describe_transition, quantized_layers


def pack_bits(integers: np.ndarray, bits: int) -> bytes:
    """
    :param integers: integers between 0 and ``2^bits - 1``
    :param bits: number of bits of each integer
    :return: the integers packed without gaps, least significant bit first
    """
    values = np.asarray(integers, dtype=np.uint8).reshape(-1)
    return np.packbits((values[:, None] >> np.arange(bits)) & 1, bitorder="little").tobytes()


def unpack_bits(data: bytes, bits: int, count: int) -> np.ndarray:
    """
    :param data: the result of ``pack_bits``
    :param bits: number of bits of each integer
    :param count: number of integers
    :return: the integers
    """
    planes = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=count * bits, bitorder="little")
    return (planes.reshape(count, bits).astype(np.int64) << np.arange(bits)).sum(axis=1)


@th.no_grad()
def pack_layers(module: nn.Module) -> list[tuple[str, bytes]]:
    """
    :param module: a network with quantized layers
    :return: its stored parts by name: packed weights, float32 step sizes, float32 biases
    """
    parts = []
    for index, layer in enumerate(quantized_layers(module)):
        quantizer = layer.weight_quantizer
        bits = quantizer.bits
        # pack_bits takes no negative integers, so subtract the smallest level.
        integers = layer.weight_integers().cpu().numpy() - quantizer.levels()[0]
        parts.append((f"{index}.weight", pack_bits(integers, bits)))
        parts.append((f"{index}.weight_step", _float_bytes(quantizer.step_sizes())))
        if layer.bias is not None:
            parts.append((f"{index}.bias", _float_bytes(layer.bias)))
        if layer.input_quantizer is not None:
            parts.append((f"{index}.input_step", _float_bytes(layer.input_quantizer.step_sizes())))
    return parts


def _float_bytes(tensor: th.Tensor) -> bytes:
    return tensor.detach().cpu().to(th.float32).numpy().tobytes()


def packed_bytes(acting: Sequence[nn.Module], statistics: Iterable[tuple[np.ndarray, np.ndarray]] = ()) -> int:
    """
    The size of what a device must hold to act: quantized weights count packed, all other numbers as float32. As long as
    a student has not reached its final precision, all of its weights count as float32.

    :param acting: the modules of a policy that compute the action
    :param statistics: mean and scale by which observations are normalized before, for each part of them
    :return: number of bytes
    """
    modules = nn.ModuleList(acting)
    # A mean frame must be stored, whereas a single mean can be merged into the first layer. VecNormalize clips, so that
    # its numbers cannot.
    means = [module.mean for module in modules.modules() if isinstance(module, FrameScaler)]
    n_bytes = sum(4 * mean.numel() for mean in means if mean.numel() > 1)
    n_bytes += sum(4 * (mean.size + scale.size) for mean, scale in statistics)
    if quantized_layers(modules) and not describe_transition(modules):
        return n_bytes + sum(len(data) for _, data in pack_layers(modules))
    return n_bytes + 4 * count_parameters(acting)
