"""Students that begin with filters of their teacher."""

import torch as th
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.agents.files import AgentError
from sb3_distill.networks.extractors import GridCNN, StudentCNN
from sb3_distill.networks.layers import FrameScaler, Scale


@th.no_grad()
def inherit_filters(policy: nn.Module, teacher: Teacher) -> bool:
    """
    Give the convolutions of a student the filters of its teacher: of each layer those with the largest norm (Li et al.
    2017, arXiv 1608.08710, keep them by this rule when they prune a network), as many as the student has. The layers
    after them keep their random weights.

    :param policy: the student, whose pixel statistics are known (see ``FrameScaler``)
    :param teacher: its teacher
    :return: whether it has inherited any. It has not if the two have no convolutions of the same shape.
    """
    try:
        layers = chain_of(teacher)
    except AgentError:
        return False
    theirs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    found = False
    for extractor in policy.modules():
        if isinstance(extractor, (StudentCNN, GridCNN)):
            own = [layer for layer in extractor.cnn if isinstance(layer, nn.Conv2d)]
            if all(_has_room(*pair) for pair in zip(own, theirs, strict=False)) and len(own) == len(theirs) > 0:
                _copy_largest(own, theirs)
                # The same function of the pixels
                scale, mean = _scaling_of(layers)
                own_scale, own_mean = _scaling_of(list(extractor.children()))
                first = own[0]
                assert first.bias is not None
                first.bias.add_(first.weight.sum(dim=(1, 2, 3)) * (own_mean - mean) / scale)
                first.weight.mul_(own_scale / scale)
                found = True
    return found


def _has_room(own: nn.Conv2d, theirs: nn.Conv2d) -> bool:
    """Whether the filters of one layer can stand in another one, which has no more of them."""
    shape = own.kernel_size, own.stride, own.padding
    return shape == (theirs.kernel_size, theirs.stride, theirs.padding) and (
        own.out_channels <= theirs.out_channels and own.in_channels <= theirs.in_channels
    )


def _copy_largest(own: list[nn.Conv2d], theirs: list[nn.Conv2d]) -> None:
    kept = th.arange(own[0].in_channels)
    for layer, source in zip(own, theirs, strict=True):
        weight = source.weight[:, kept.to(source.weight.device)]
        norms = weight.flatten(1).norm(dim=1)
        kept = norms.topk(layer.out_channels).indices.sort().values.cpu()
        layer.weight.copy_(weight[kept])
        if layer.bias is not None:
            layer.bias.copy_(th.zeros_like(layer.bias) if source.bias is None else source.bias[kept])


def _scaling_of(layers: list[nn.Module]) -> tuple[float, float]:
    """What pixels are divided by, and what is subtracted from them before."""
    for layer in layers:
        if isinstance(layer, Scale):
            return layer.divisor, 0.0
        if isinstance(layer, FrameScaler):
            return float(layer.scale), float(layer.mean.mean())
    return 1.0, 0.0
