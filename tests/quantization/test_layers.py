"""Layers that compute with quantized weights and inputs."""

import torch as th
from torch import nn

from sb3_distill.quantization.layers import QuantizedConv2d, QuantizedLinear


def test_entries_of_different_scales_have_steps_of_their_own():
    x = th.randn(200, 3) * th.tensor([0.01, 1.0, 100.0])
    layer = QuantizedLinear(nn.Linear(3, 2), 8, 8, is_first=True)
    quantizer = layer.input_quantizer
    assert quantizer is not None
    quantizer.fit(x)
    quantizer.blend.fill_(1.0)
    errors = (quantizer(x) - x).square().mean(dim=0).sqrt() / x.std(dim=0)
    assert (errors < 0.02).all()
    sizes = quantizer.step_sizes()
    assert sizes[0] < sizes[1] < sizes[2]


def test_weights_may_change_their_sign():
    layer = QuantizedLinear(nn.Linear(3, 2), 4, None)
    layer.weight.data.abs_()
    layer.weight_quantizer.fit(layer.weight)
    assert layer.weight_quantizer.levels() == (-7, 7)


def test_convolutions_keep_their_geometry():
    th.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, padding_mode="circular")
    x = th.randn(2, 4, 11, 11)
    assert th.equal(QuantizedConv2d(plain, 8, None)(x), plain(x))
