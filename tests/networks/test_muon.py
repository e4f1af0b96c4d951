"""Muon: orthogonal updates of matrices and filters, Adam's of vectors."""

import copy

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sb3_distill.networks.muon import Muon, orthogonalize


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]))
def test_singular_values_come_near_one(m, n, seed, scale):
    matrix = scale * th.randn(m, n, dtype=th.float64, generator=th.Generator().manual_seed(seed))
    values = th.linalg.svdvals(matrix)
    found = th.linalg.svdvals(orthogonalize(matrix))
    # Those that are less than a thousandth of the largest have farther to go.
    large = values > 1e-3 * values[0] * min(m, n) ** 0.5
    assert (found < 1.3).all() and (found[large] > 0.3).all()


def test_zeros_stay_zeros():
    assert th.equal(orthogonalize(th.zeros(3, 5)), th.zeros(3, 5))


def step(module, **kwargs):
    optimizer = Muon(module.parameters(), **kwargs)
    before = copy.deepcopy(module.state_dict())
    th.manual_seed(0)
    for parameter in module.parameters():
        # The same numbers, whatever the memory format
        parameter.grad = th.empty_like(parameter).copy_(th.randn(parameter.shape))
    optimizer.step()
    return {name: value - before[name] for name, value in module.state_dict().items()}


@pytest.mark.parametrize("layer", [nn.Linear(64, 16), nn.Linear(16, 64), nn.Conv2d(4, 16, 8), nn.Conv2d(16, 32, 3)])
def test_updates_have_the_size_of_the_rate(layer):
    moved = step(layer, lr=0.01)
    assert pytest.approx(moved["weight"].square().mean().sqrt().item(), rel=0.3) == 0.01
    # Adam's first update is the rate with the sign of the gradient.
    assert th.allclose(moved["bias"].abs(), th.full_like(moved["bias"], 0.01), rtol=1e-3)


def test_filters_are_rows_of_a_matrix_whatever_the_memory_format():
    layers = [nn.Conv2d(4, 16, 8, bias=False) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    layers[1].to(memory_format=th.channels_last)
    first, second = (step(layer, lr=0.01)["weight"] for layer in layers)
    assert th.allclose(first, second, atol=1e-8)
    flat = nn.Linear(4 * 64, 16, bias=False)
    flat.weight.data = layers[0].weight.data.flatten(1)
    assert th.allclose(step(flat, lr=0.01)["weight"].view_as(first), first, atol=1e-7)


def test_vectors_are_updated_by_adam():
    ours, theirs = (nn.Parameter(th.linspace(-1, 1, 7, dtype=th.float64)) for _ in range(2))
    muon, adam = Muon([ours], lr=0.01), th.optim.Adam([theirs], lr=0.01)
    for number in range(20):
        for parameter, optimizer in ((ours, muon), (theirs, adam)):
            optimizer.zero_grad()
            ((parameter - number % 3).pow(2) * th.arange(1, 8)).sum().backward()
            optimizer.step()
    assert th.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def train(model, optimizer, n_steps):
    for number in range(n_steps):
        optimizer.zero_grad()
        model(th.full((2, 3), float(number))).square().sum().backward()
        optimizer.step()


def test_it_goes_on_from_its_state():
    th.manual_seed(0)
    whole = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    stopped = copy.deepcopy(whole)
    train(whole, Muon(whole.parameters()), 9)
    optimizer = Muon(stopped.parameters())
    train(stopped, optimizer, 4)
    resumed = Muon(stopped.parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(4, 9):
        resumed.zero_grad()
        stopped(th.full((2, 3), float(number))).square().sum().backward()
        resumed.step()
    assert all(th.equal(*pair) for pair in zip(whole.parameters(), stopped.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"lr": -1.0}, "lr"), ({"lr": float("nan")}, "lr"), ({"momentum": 1.0}, "momentum"), ({"betas": (0, 2)}, "betas")],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message} must be at least 0"):
        Muon([nn.Parameter(th.zeros(2))], **kwargs)
