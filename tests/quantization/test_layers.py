"""Layers that compute with quantized weights and inputs."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_distill.networks.actor_critic_policies import ActorCriticMultiInputPolicy
from sb3_distill.quantization.layers import QuantizedConv2d, QuantizedLinear, calibrate, set_blend
from sb3_distill.quantization.precision import BITS, quantize_student, set_precision


def test_entries_of_different_scales_have_steps_of_their_own():
    x = th.randn(200, 3) * th.tensor([0.01, 1.0, 100.0])
    layer = QuantizedLinear(nn.Linear(3, 2), 8, 8, step_per_entry=True)
    quantizer = layer.input_quantizer
    assert quantizer is not None
    quantizer.fit(x)
    quantizer.blend = 1.0
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


@pytest.mark.parametrize("net_arch", [[], [16]])
def test_parts_of_a_dict_have_steps_of_their_own(net_arch):
    th.manual_seed(0)
    image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    space = spaces.Dict({"image": image, "vector": spaces.Box(-1000, 1000, (2,))})
    policy = ActorCriticMultiInputPolicy(space, spaces.Discrete(3), lambda _: 1e-3, net_arch=net_arch)
    first = next(module for module in policy.modules() if getattr(module, "in_features", 0) == policy.features_dim)
    with th.no_grad():
        # So that the vector says as much as the image does
        first.weight[:, -2:] /= 1000
    black, white = (th.full((1, *image.shape), value, dtype=th.uint8) for value in (0, 255))
    images = th.cat([black, white]).repeat(32, 1, 1, 1)
    observations = {"image": images, "vector": 1000 * (2 * th.rand(64, 2) - 1)}
    quantize_student(policy, **dict.fromkeys(BITS, 4))
    nothing = th.zeros(2, 2)
    with th.no_grad():
        full = policy.answer({"image": images[:2], "vector": nothing}).log_probs
        calibrate(policy, lambda: policy.answer(observations))
        set_precision(policy, "bits", 1.0)
        few = policy.answer({"image": images[:2], "vector": nothing}).log_probs
    assert th.allclose(few[1] - few[0], full[1] - full[0], rtol=0.5) and not th.allclose(few[0], few[1])


def first_layer(scales: th.Tensor) -> tuple[QuantizedLinear, th.Tensor]:
    """A layer of few bits, whose entries are multiplied by these numbers and its weights divided; and its input."""
    th.manual_seed(0)
    layer, x = nn.Linear(4, 5), th.randn(64, 4) * scales
    with th.no_grad():
        layer.weight.div_(scales)
    quantized = QuantizedLinear(layer, 3, 6, step_per_entry=True)
    calibrate(quantized, lambda: quantized(x))
    set_blend(quantized, 1.0)
    return quantized, x


def test_units_of_entries_do_not_matter():
    """Positions in metres or in millimetres: the same levels, and the same integers as weights."""
    plain, x = first_layer(th.ones(4))
    scaled, larger = first_layer(2.0 ** th.tensor([-10, 0, 3, 12]))
    assert th.equal(plain(x), scaled(larger)) and len(plain(x).unique()) > 50
    for layer, inputs in ((plain, x), (scaled, larger)):
        weight = layer.weight_quantizer.to_integers(layer.weight_to_round())
        sums = layer.input_quantizer.to_integers(inputs) @ weight.T
        # One factor for each output, none for the entries
        assert th.allclose(sums * layer.weight_quantizer.step_sizes() + layer.bias, layer(inputs), atol=1e-5)


def test_fewer_bits_of_the_input_leave_the_weight_as_it_is():
    layer, _ = first_layer(th.tensor([1.0, 10, 100, 1000]))
    before = layer.quantized_weight().detach().clone()
    layer.set_input_bits(3)
    assert th.allclose(before, layer.quantized_weight(), rtol=1e-5) and layer.input_quantizer.bits == 3


def test_layers_of_another_rounding_are_refused():
    layer, _ = first_layer(th.ones(4))
    state = layer.state_dict()
    layer.load_state_dict(state)
    del state["rounds_contributions"]
    with pytest.raises(RuntimeError, match=r"of format 1, .* than format 2: train the student again"):
        layer.load_state_dict(state)


def test_outputs_without_weights_can_come_to_life():
    """In whatever unit the entries are: weights that reach 1 are rounded, and not clipped to almost 0."""
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    quantized, x = QuantizedLinear(layer, 8, 8, step_per_entry=True), 0.01 * th.randn(64, 3)
    calibrate(quantized, lambda: quantized(x))
    set_blend(quantized, 1.0)
    with th.no_grad():
        quantized.weight[0, 0] = 0.5
    assert th.allclose(quantized.quantized_weight()[0, 0], th.tensor(0.5), atol=0.02)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_observations_of_any_unit_are_rounded_alike(scale):
    layer, x = first_layer(th.full((4,), scale))
    plain, y = first_layer(th.ones(4))
    assert th.isclose(layer(x), plain(y), atol=1e-4).float().mean() > 0.98


def test_gradients_reach_weights_and_steps_in_the_transition():
    layer, x = first_layer(th.tensor([1.0, 10, 100, 1000]))
    for blend in (0.5, 1.0):
        set_blend(layer, blend)
        layer.zero_grad()
        layer(x).square().mean().backward()
        assert all(part.grad.abs().sum() > 0 for part in (layer.weight, layer.weight_quantizer.step))
        assert layer.input_quantizer.step.grad.abs().sum() > 0
