"""Scores over several tasks."""

import numpy as np
import pytest

from sb3_distill.evaluation.play import Score
from sb3_distill.evaluation.tasks import task_interval
from sb3_distill.results.statistics import normalized_percent
from tests.envs.tasks import IDS


def test_interval_holds_the_mean_and_shrinks_with_more_episodes():
    rng = np.random.default_rng(0)

    def scores(n: int, mean: float) -> dict[str, Score]:
        return {name: Score(list(rng.normal(mean, 5, n)), [1] * n) for name in IDS}

    widths = []
    for n in (10, 1_000):
        mean, low, high = task_interval(scores(n, 30), scores(n, 40), scores(n, 0))
        assert low < mean < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3 and low < 75 < high
    constant = {name: Score([10.0] * 5, [1] * 5) for name in IDS}
    random = {name: Score([0.0] * 5, [1] * 5) for name in IDS}
    assert task_interval(constant, constant, random) == pytest.approx((100, 100, 100))


def test_teachers_that_are_no_better_than_random_give_no_measure():
    assert np.isnan(normalized_percent(-350.0, -250.0, -200.0)) and np.isnan(normalized_percent(1.0, 0.0, 0.0))
    good, bad = Score([10.0] * 5, [1] * 5), Score([0.0] * 5, [1] * 5)
    ours, teachers = dict(zip(IDS, (good, good), strict=True)), dict(zip(IDS, (good, bad), strict=True))
    assert task_interval(ours, teachers, dict.fromkeys(IDS, bad)) == pytest.approx((100, 100, 100))
    assert np.isnan(task_interval(ours, dict.fromkeys(IDS, bad), dict.fromkeys(IDS, bad))).all()
    # A teacher that rarely succeeds is at random's level in some resamples.
    rare = Score([0.0] * 8 + [10.0] * 2, [1] * 10)
    mean, low, high = task_interval({"a": rare}, {"a": rare}, {"a": bad})
    assert mean == pytest.approx(100) and 0 < low < 100 < high
