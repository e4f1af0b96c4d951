"""Actions that are drawn from answers."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_distill.common.answers import Answers, Gaussian, scale_actions, unscale_actions

BOUNDS = spaces.Box(np.array([-1.0, 0.0, -np.inf], np.float32), np.array([3.0, 0.5, np.inf], np.float32))


def generators(n, seed=0):
    return [np.random.default_rng([seed, row]) for row in range(n)]


def test_discrete_actions_have_their_probabilities():
    probabilities = np.array([0.0, 0.5, 0.2, 0.0, 0.3, 0.0])
    with np.errstate(divide="ignore"):
        answers = Answers(log_probs=np.log(np.tile(probabilities, (20_000, 1)).astype(np.float32)))
    counts = np.bincount(answers.sample(generators(20_000)), minlength=6)
    assert counts[probabilities == 0].sum() == 0
    # Four standard errors
    assert np.all(np.abs(counts / 20_000 - probabilities) <= 4 * np.sqrt(probabilities * (1 - probabilities) / 20_000))


def test_gaussian_actions_have_their_mean_and_deviation():
    mean, std = np.array([[-1.0, 5.0]], np.float32), np.array([[0.1, 3.0]], np.float32)
    actions = Answers(gaussian=Gaussian(mean.repeat(5_000, 0), std.repeat(5_000, 0))).sample(generators(5_000))
    assert actions.dtype == np.float32
    standard = (actions - mean) / std
    # Four standard errors of the means, the second and the mixed moments, and of the share beyond one deviation
    assert np.all(np.abs(standard.mean(axis=0)) < 4 / np.sqrt(5_000))
    assert np.all(np.abs(standard.T @ standard / 5_000 - np.eye(2)) < 4 * np.sqrt(2 / 5_000))
    assert np.all(np.abs((np.abs(standard) > 1).mean(axis=0) - 0.3173) < 4 * np.sqrt(0.3173 * 0.6827 / 5_000))


def test_q_values_are_answered_greedily():
    assert Answers(q_values=th.tensor([[1.0, 3.0], [4.0, 2.0]])).sample(generators(2)).tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["discrete", "gaussian"])
def test_a_row_is_drawn_the_same_in_any_batch(kind):
    rng = np.random.default_rng(3)
    if kind == "discrete":
        answers = Answers(log_probs=rng.standard_normal((7, 5)).astype(np.float32))
    else:
        answers = Answers(gaussian=Gaussian(*np.abs(rng.standard_normal((2, 7, 5))).astype(np.float32)))
    alone, together = generators(7), generators(7)
    for _ in range(20):
        rows = rng.permutation(7)
        drawn = answers.map(lambda array, rows=rows: array[rows]).sample([together[row] for row in rows])
        for row, action in zip(rows, drawn, strict=True):
            single = answers.map(lambda array, row=row: array[row : row + 1]).sample([alone[row]])
            assert np.array_equal(single[0], action)


def test_actions_are_scaled_from_their_bounds():
    actions = np.array([[-1.0, 0.0, -7.0], [3.0, 0.5, 7.0], [1.0, 0.25, 0.0]], np.float32)
    scaled = np.array([[-1.0, -1.0, -7.0], [1.0, 1.0, 7.0], [0.0, 0.0, 0.0]], np.float32)
    assert np.allclose(scale_actions(actions, BOUNDS), scaled) and np.allclose(unscale_actions(scaled, BOUNDS), actions)
    assert th.allclose(scale_actions(th.as_tensor(actions), BOUNDS), th.as_tensor(scaled))


def test_the_largest_number_is_no_bound():
    largest = np.finfo(np.float32).max
    low, high = np.array([-largest, -1.0], np.float32), np.array([largest, 3.0], np.float32)
    actions = np.array([[-7.0, 1.0], [0.5, 2.0]], np.float32)
    scaled = np.array([[-7.0, 0.0], [0.5, 0.5]], np.float32)
    assert np.array_equal(scale_actions(actions, spaces.Box(low, high)), scaled)
    assert np.array_equal(unscale_actions(scaled, spaces.Box(low, high)), actions)
    means = Answers(gaussian=Gaussian(th.tensor([[9.0, 9.0]]), th.ones(1, 2)))
    assert means.scaled_actions(spaces.Box(low, high)).tolist() == [[9.0, 1.0]]


def test_means_are_clipped_or_squashed():
    mean = th.tensor([[9.0, 0.25, 9.0]], requires_grad=True)
    clipped = Answers(gaussian=Gaussian(mean, th.ones(1, 3))).scaled_actions(BOUNDS)
    assert clipped.tolist() == [[1.0, 0.0, 9.0]]
    # From beyond its bounds, a mean is led back.
    clipped.sum().backward()
    assert (mean.grad > 0).all()
    squashed = Answers(gaussian=Gaussian(mean, th.ones(1, 3), squashed=True))
    assert th.equal(squashed.scaled_actions(BOUNDS), mean.tanh())
    drawn = squashed.sample(generators(1), spaces.Box(-2, 2, (3,)))
    assert np.allclose(drawn[0, [0, 2]], 2.0)
    point = Answers(point=np.array([[0.5, -1.0, 4.0]], np.float32))
    assert point.sample(generators(1), BOUNDS).tolist() == [[2.0, 0.0, 4.0]]


@pytest.mark.parametrize(
    "answers",
    [
        Answers(gaussian=Gaussian(th.zeros(2, 3), th.ones(2, 3)), values=th.ones(2)),
        Answers(gaussian=Gaussian(th.zeros(2, 3), th.ones(2, 3), squashed=True)),
        Answers(point=th.zeros(2, 3), values=th.ones(2)),
        Answers(q_values=th.zeros(2, 3)),
    ],
)
def test_their_arrays_make_them_again(answers):
    again = Answers.of_arrays(answers.arrays())
    assert again.arrays().keys() == answers.arrays().keys() and again.is_comparable(answers) == (answers.point is None)
    both = Answers.concatenate([answers, again])
    assert all(len(array) == 4 for array in both.arrays().values()) and both.is_continuous == answers.is_continuous


def test_kinds_exclude_each_other():
    with pytest.raises(ValueError, match="exactly one of q_values, log_probs, gaussian and point"):
        Answers(q_values=np.zeros((1, 2)), point=np.zeros((1, 2)))


@pytest.mark.parametrize(
    "answers",
    [
        Answers(gaussian=Gaussian(th.tensor([[0.5, -3.0]]), th.ones(1, 2))),
        Answers(gaussian=Gaussian(th.tensor([[0.5, -3.0]]), th.ones(1, 2), squashed=True)),
        Answers(point=th.tensor([[0.25, -1.0]])),
    ],
)
def test_greedy_actions_of_arrays_are_those_of_tensors(answers: Answers):
    box = spaces.Box(np.array([-2.0, 0.0], dtype=np.float32), np.array([2.0, 4.0], dtype=np.float32))
    greedy = answers.greedy(box)
    assert (answers.numpy().greedy(box) == greedy).all() and box.contains(greedy[0])
