"""Actions that are drawn from answers."""

import numpy as np
import pytest
import torch as th

from sb3_distill.common.answers import Answers, Gaussian


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
