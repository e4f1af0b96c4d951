"""RMSProp with a maximum rate, against values computed by hand."""

import pytest
import torch as th

from sb3_distill.networks.rmsprop import CappedRMSprop


def steps(gradients, **kwargs):
    """The values of a parameter that begins at zero, after each of the gradients."""
    parameter = th.nn.Parameter(th.zeros((), dtype=th.float64))
    optimizer = CappedRMSprop([parameter], **kwargs)
    values = []
    for gradient in gradients:
        parameter.grad = th.tensor(gradient, dtype=th.float64)
        optimizer.step()
        values.append(parameter.item())
    return values


def test_the_rate_is_divided_by_the_root_mean_square():
    # Mean squares 0.5 * 4 = 2 and 0.5 * 2 + 0.5 * 16 = 9
    first, second = steps([2.0, -4.0], lr=0.1, alpha=0.5, eps=1e-12)
    assert first == pytest.approx(-0.1 * 2 / 2**0.5)
    assert second == pytest.approx(first + 0.1 * 4 / 3)


def test_the_maximum_caps_the_divided_rate_and_not_the_update():
    # 0.1 / sqrt(2) = 0.0707 and 0.1 / 3 = 0.0333: the maximum of 0.05 changes the first alone.
    first, second = steps([2.0, -4.0], lr=0.1, alpha=0.5, eps=1e-12, max_rate=0.05)
    assert first == pytest.approx(-0.05 * 2)
    assert second == pytest.approx(first + 0.1 * 4 / 3)
    # Of a gradient near zero, the rate would have no bound.
    assert steps([1e-9], lr=0.1, eps=1e-30, max_rate=0.05) == [pytest.approx(-0.05 * 1e-9)]


def test_centered_is_the_rmsprop_of_mnih_et_al():
    # Squares 2 and 9, means 1 and -1.5: variances 1 and 6.75, each plus 0.01 under the root
    first, second = steps([2.0, -4.0], lr=0.1, alpha=0.5, eps=0.01, centered=True)
    assert first == pytest.approx(-0.1 * 2 / 1.01**0.5)
    assert second == pytest.approx(first + 0.1 * 4 / 6.76**0.5)


def test_without_a_maximum_it_is_pytorchs():
    th.manual_seed(0)
    ours, theirs = (th.nn.Parameter(th.linspace(-1, 1, 6)) for _ in range(2))
    optimizers = (
        CappedRMSprop([ours], lr=0.01, alpha=0.9, eps=1e-16),
        th.optim.RMSprop([theirs], lr=0.01, alpha=0.9, eps=1e-8),
    )
    for _ in range(5):
        ours.grad = th.randn(6)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert th.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kwargs", [{"lr": -1}, {"alpha": 1.0}, {"eps": 0.0}, {"max_rate": 0.0}, {"lr": float("nan")}])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))} must be .*, not"):
        CappedRMSprop([th.nn.Parameter(th.zeros(1))], **kwargs)
