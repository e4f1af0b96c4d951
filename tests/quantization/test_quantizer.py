"""Step sizes, levels and their gradients."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_distill.quantization.quantizer import Quantizer, has_exact_input


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1_000), bits=st.integers(2, 8), positive=st.booleans(), n_channels=st.sampled_from([1, 4]))
def test_quantized_values_lie_on_the_grid_and_near(seed, bits, positive, n_channels):
    th.manual_seed(seed)
    x = th.randn(4, 6).abs() if positive else th.randn(4, 6)
    quantizer = Quantizer(bits, n_channels)
    quantizer.fit(x)
    quantizer.blend = 1.0
    result = quantizer(x)
    low, high = quantizer.levels()
    assert high - low + 1 == (2**bits if positive else 2**bits - 1)
    integers = quantizer.to_integers(x)
    assert th.equal(integers, integers.round()) and integers.min() >= low and integers.max() <= high
    steps = quantizer.step_sizes().reshape(-1, 1)
    assert th.allclose(result, integers * steps, atol=1e-5)
    # Never worse than rounding everything to zero
    assert (result - x).square().sum() <= x.square().sum() + 1e-5


def test_more_bits_are_closer():
    th.manual_seed(0)
    x, errors = th.randn(8, 32), []
    for bits in range(2, 9):
        quantizer = Quantizer(bits, 8)
        quantizer.fit(x)
        quantizer.blend = 1.0
        errors.append((quantizer(x) - x).square().mean().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3


def test_entries_that_were_idle_can_come_to_life():
    quantizer = Quantizer(8, 2, axis=1)
    quantizer.fit(th.tensor([[0.0, 3.0], [0.0, -1.0]]))
    quantizer.blend = 1.0
    assert th.allclose(quantizer(th.tensor([[0.5, 2.0]])), th.tensor([[0.5, 2.0]]), atol=0.02)


def test_blend_goes_from_full_to_quantized():
    x, quantizer = th.randn(3, 5), Quantizer(2, 3)
    quantizer.fit(x)
    assert th.equal(quantizer(x), x)
    quantizer.blend = 1.0
    quantized = quantizer(x)
    quantizer.blend = 0.25
    assert th.allclose(quantizer(x), x + 0.25 * (quantized - x))


def test_gradients_are_those_of_the_paper():
    """Esser et al. 2020, Eq. 3, computed value by value; the step is trained as a multiple of its first size."""
    quantizer = Quantizer(3)
    quantizer.blend = 1.0
    quantizer.unit.fill_(0.5)
    x = th.tensor([0.1, 0.7, -1.2, 3.0, -9.0], requires_grad=True)
    quantizer(x).sum().backward()
    low, high = quantizer.levels()
    ratio = (x / 0.5).detach()
    expected = th.where(ratio <= low, low, th.where(ratio >= high, high, ratio.round() - ratio)).sum()
    assert th.allclose(quantizer.step.grad, 0.5 * expected)
    assert th.equal(x.grad, ((ratio > low) & (ratio < high)).float())


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("axis", [0, 1], ids=["weights", "entries of an observation"])
def test_step_sizes_learn_in_proportion_to_their_size(bits, axis):
    scales = th.tensor([0.001, 1.0, 1000.0])
    x = th.randn(3, 50, generator=th.Generator().manual_seed(0)) * scales.reshape(-1, 1)
    x = x if axis == 0 else x.T
    quantizer = Quantizer(8, 3, axis=axis, signed=True)
    quantizer.fit(x)
    quantizer.blend = 1.0
    quantizer.set_bits(bits)
    optimizer = th.optim.Adam([quantizer.step], lr=0.01, eps=0.0)
    before = quantizer.step_sizes().detach().clone()
    quantizer(x).square().sum().backward()
    optimizer.step()
    change = (quantizer.step_sizes() / before - 1).abs()
    assert th.allclose(change, th.full((3,), 0.01), rtol=1e-3)


@pytest.mark.parametrize(
    ("space", "exact"),
    [
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), True),
        (spaces.Box(0, 1, (10, 10, 4), bool), True),
        (spaces.Discrete(5), True),
        (spaces.Box(-1, 1, (4,)), False),
        (spaces.Dict({"a": spaces.Box(0, 255, (2,), np.uint8)}), False),
    ],
)
def test_which_observations_are_exact(space, exact):
    assert has_exact_input(space) == exact
