"""A student against its teacher: intervals over pairs of episodes, over runs, and the verdict."""

import numpy as np
import pytest

from sb3_distill.results.comparison import (
    Pairs,
    geometric_mean_interval,
    percent_bound,
    percent_interval,
    t_interval,
    verdict,
)
from sb3_distill.results.statistics import normalized_percent, percent_of_teacher


def test_percent_by_hand():
    assert Pairs([50.0, 70.0], [100.0, 100.0]).percent == pytest.approx(60)
    assert Pairs([-110.0, -110.0], [-100.0, -100.0]).percent == pytest.approx(percent_of_teacher(-110, -100))
    assert Pairs([-10.0], [20.0], random=-20.0).percent == pytest.approx(normalized_percent(-10, 20, -20))
    assert np.isnan(Pairs([1.0], [0.0]).percent) and np.isnan(Pairs([1.0], [-3.0], random=-3.0).percent)
    with pytest.raises(ValueError, match="3 of the student and 2 of the teacher: play as many of each"):
        Pairs([1.0, 2.0, 3.0], [1.0, 2.0])


def test_interval_is_that_of_the_pairs():
    """What start and luck add to both alike does not count."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(100, 40, 50)
    student = teacher - 2 + rng.normal(0, 1, 50)
    low, high = percent_interval(Pairs(list(student), list(teacher)))
    assert 97 < low < Pairs(list(student), list(teacher)).percent < high < 99
    shuffled = percent_interval(Pairs(list(rng.permutation(student)), list(teacher)))
    assert shuffled[1] - shuffled[0] > 10 * (high - low)
    # The paired t interval of the difference, in per cent of the teacher, by hand
    half = 2.0096 * np.std(student - teacher, ddof=1) / np.sqrt(50) / teacher.mean() * 100
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert percent_interval(Pairs(list(student), list(teacher))) == (low, high)


def test_negative_scores():
    rng = np.random.default_rng(0)
    teacher = rng.normal(-100, 10, 30)
    low, high = percent_interval(Pairs(list(teacher - 10), list(teacher)))
    assert 85 < low < high < 95


def test_interval_covers_the_truth_and_not_much_more():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        teacher = 100 * rng.lognormal(0, 0.8, 12)
        student = 0.9 * teacher + rng.normal(0, 20, 12)
        low, high = percent_interval(Pairs(list(student), list(teacher)), n_resamples=1_000)
        covered.append(low <= 90 <= high)
    assert 0.88 < np.mean(covered) < 0.99


def test_a_one_sided_bound_errs_as_often_as_it_may():
    rng = np.random.default_rng(0)
    above = []
    for _ in range(200):
        teacher = rng.normal(100, 10, 20)
        student = 0.9 * teacher + rng.normal(0, 10, 20)
        pairs = Pairs(list(student), list(teacher))
        bound = percent_bound(pairs, 0.1, n_resamples=1_000)
        above.append(bound > 90)
        assert percent_bound(pairs, 0.01, n_resamples=1_000) < bound < pairs.percent
    assert 0.05 < np.mean(above) < 0.15
    assert percent_bound(pairs, 0.025) == percent_interval(pairs)[0]
    assert percent_bound(Pairs([1.0] * 5, [1.0] * 5), 0.05) is None


def test_repeated_pairs_are_no_evidence():
    rng = np.random.default_rng(0)
    student, teacher = list(rng.normal(90, 10, 10)), list(rng.normal(100, 10, 10))
    traces = list(range(10))
    once = percent_interval(Pairs(student, teacher, traces))
    # Everything ten times: the interval stays, where it would shrink to a third.
    again = percent_interval(Pairs(student * 10, teacher * 10, traces * 10))
    assert again == pytest.approx(once, abs=0.3)
    naive = percent_interval(Pairs(student * 10, teacher * 10))
    assert naive[1] - naive[0] < 0.45 * (once[1] - once[0])
    # The percentage is that of all episodes, copies included, and the interval is around it.
    uneven = Pairs([*student, *student[:1] * 30], [*teacher, *teacher[:1] * 30], [*traces, *[0] * 30])
    low, high = percent_interval(uneven)
    assert uneven.n_distinct == 10 and low < uneven.percent < high
    # Of a pair, both must repeat.
    assert Pairs([1.0] * 4, [2.0] * 4, [("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")]).n_distinct == 3


def test_where_there_is_no_interval():
    five, six = ([float(value) for value in range(10, 10 + n)] for n in (5, 6))
    assert percent_interval(Pairs(five, five)) is None and percent_interval(Pairs(six, six)) is not None
    assert percent_interval(Pairs(six * 5, six * 5, [0, 1, 2, 3, 4, 4] * 5)) is None
    # A teacher around 0, and one that is no better than random actions in many samples
    around = list(np.random.default_rng(0).normal(1, 20, 30))
    assert percent_interval(Pairs([5.0] * 30, around)) is None
    assert percent_interval(Pairs([5.0] * 30, around, random=0.5)) is None
    assert percent_interval(Pairs([5.0] * 30, around, random=-50.0)) is not None


def test_verdicts():
    assert [verdict(interval, 5.0) for interval in ((96, 99), (80, 94), (90, 97), None)] == [
        "not worse",
        "worse",
        "undecided",
        "undecided",
    ]
    # On the bound is not above it.
    assert verdict((95.0, 99.0), 5.0) == verdict((90.0, 95.0), 5.0) == "undecided"
    assert verdict((90, 97), 20.0) == "not worse" and verdict((90, 97), 0.0) == "worse"


def test_t_interval_of_few_runs():
    assert t_interval([90.0, 110.0]) == pytest.approx((100 - 127.06, 100 + 127.06), abs=0.01)
    assert t_interval([90.0, 100.0, 110.0]) == pytest.approx((100 - 24.84, 100 + 24.84), abs=0.01)
    assert t_interval([90.0]) is None and t_interval([]) is None


def test_geometric_mean_over_games():
    # 50% of one, 150% of the other: -10 is half of the distance to zero above -20
    games = {"a": [Pairs([5.0] * 6, [10.0] * 6)], "b": [Pairs([-10.0] * 6, [-20.0] * 6)]}
    mean, low, high = geometric_mean_interval(games)
    assert mean == low == high == pytest.approx(np.sqrt(50 * 150))
    spread = {**games, "a": [Pairs([1.0, 9.0] * 3, [10.0] * 6)]}
    mean, low, high = geometric_mean_interval(spread)
    assert low < mean < high
    # Several students of a game count with their mean; a game with a teacher that scores 0 does not.
    two = {**games, "a": [Pairs([2.0] * 6, [10.0] * 6), Pairs([8.0] * 6, [10.0] * 6)]}
    assert geometric_mean_interval(two) == pytest.approx(geometric_mean_interval(games))
    none = {**games, "c": [Pairs([1.0] * 6, [0.0] * 6)]}
    assert geometric_mean_interval(none) == pytest.approx(geometric_mean_interval(games))
    assert np.isnan(geometric_mean_interval({"c": none["c"]})).all()
    few = {**games, "a": [Pairs([5.0] * 6, [10.0] * 6, [0] * 6)]}
    mean, low, high = geometric_mean_interval(few)
    assert mean == pytest.approx(np.sqrt(50 * 150)) and np.isnan([low, high]).all()
