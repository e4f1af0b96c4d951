"""Interquartile means, intervals, geometric means, percent of a teacher."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_distill.evaluation.play import Score
from sb3_distill.results.statistics import (
    geometric_mean,
    normalized_percent,
    percent_of_teacher,
    summarize,
)


def test_summary_by_hand():
    # The middle half of 0..7 is 2..5
    summary = summarize([7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (summary.mean, summary.median, summary.iqm) == (3.5, 3.5, 3.5)
    assert summary.std == pytest.approx(np.sqrt(6)) == Score(list(range(8))).std
    # One outlier moves the mean alone
    outlier = summarize([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1_000.0])
    assert outlier.iqm == 3.5 and outlier.mean > 100
    assert summary.iqm_interval[0] < 3.5 < summary.iqm_interval[1]


def test_intervals_narrow_with_more_episodes_and_repeat():
    rng = np.random.default_rng(0)
    few, many = (summarize(list(rng.normal(10, 2, n))) for n in (10, 1_000))
    assert np.diff(many.mean_interval)[0] < np.diff(few.mean_interval)[0] / 3
    values = list(rng.normal(size=30))
    drawn_next = np.random.get_state()[1].tolist()
    assert summarize(values) == summarize(values)
    assert np.random.get_state()[1].tolist() == drawn_next


def test_one_or_a_few_episodes_tell_no_spread():
    one = summarize([4.0])
    assert one.mean == one.iqm == 4 and np.isnan(one.std) and np.isnan(Score([4.0]).std)
    assert one.iqm_interval == one.mean_interval == summarize([1.0, 2.0, 3.0, 4.0, 5.0]).mean_interval == ()


def test_repeated_episodes_do_not_narrow_intervals():
    values = list(np.random.default_rng(0).normal(10, 2, 12))
    once, again = summarize(values), summarize(values * 9, list("abcdefghijkl") * 9)
    assert again.mean == pytest.approx(once.mean) and again.n_distinct == once.n_distinct == 12
    assert again.mean_interval == pytest.approx(once.mean_interval)
    assert np.diff(summarize(values * 9).mean_interval)[0] < 0.5 * np.diff(once.mean_interval)[0]
    # Copies count in the mean, so they count around it.
    uneven = summarize([*values, *values[:1] * 20], [*range(12), *[0] * 20])
    assert uneven.mean_interval[0] < uneven.mean < uneven.mean_interval[1] and uneven.n_distinct == 12


@given(st.lists(st.floats(1.0, 1_000.0), min_size=1, max_size=10), st.floats(1.0, 3.0))
def test_geometric_mean_scales_and_lies_within(percents, factor):
    mean = geometric_mean(percents)
    assert min(percents) * (1 - 1e-9) <= mean <= max(percents) * (1 + 1e-9)
    assert geometric_mean([factor * percent for percent in percents]) == pytest.approx(factor * mean)


def test_geometric_mean_of_normalized_scores():
    assert normalized_percent(-10.0, 20.0, -20.0) == pytest.approx(25)
    assert normalized_percent(20.0, 20.0, -20.0) == 100
    assert geometric_mean([25.0, 100.0]) == pytest.approx(50)
    # A task that was not learned counts as one per cent
    assert geometric_mean([-30.0, 100.0]) == pytest.approx(10)


@pytest.mark.parametrize(
    ("score", "teacher", "percent"),
    [(50, 100, 50), (120, 100, 120), (-110, -100, 90), (-80, -100, 120), (-50, 100, -50), (10, -10, 300)],
)
def test_percent_of_the_teacher(score, teacher, percent):
    assert percent_of_teacher(score, teacher) == pytest.approx(percent)
    assert Score([score, score]).percent_of(Score([teacher])) == pytest.approx(percent)


def test_percent_of_a_teacher_that_scores_nothing():
    assert np.isnan(percent_of_teacher(3, 0))
