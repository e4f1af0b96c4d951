"""Scores over several tasks."""

import numpy as np
import pytest

from sb3_distill.evaluation.play import Score
from sb3_distill.evaluation.tasks import format_tasks, pair_tasks, task_interval, task_quotients
from sb3_distill.results.comparison import percent_interval
from sb3_distill.results.statistics import GEOMETRIC_MEAN, normalized_percent
from tests.envs.tasks import IDS


def test_interval_holds_the_mean_and_shrinks_with_more_episodes():
    rng = np.random.default_rng(0)

    def scores(n: int, mean: float) -> dict[str, Score]:
        return {name: Score(list(rng.normal(mean, 5, n))) for name in IDS}

    widths = []
    for n in (10, 1_000):
        mean, low, high = task_interval(scores(n, 30), scores(n, 40), scores(n, 0))
        assert low < mean < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3 and low < 75 < high
    constant = {name: Score([10.0] * 6) for name in IDS}
    random = {name: Score([0.0] * 6) for name in IDS}
    assert task_interval(constant, constant, random) == pytest.approx((100, 100, 100))


def test_teachers_that_are_no_better_than_random_give_no_measure():
    assert np.isnan(normalized_percent(-350.0, -250.0, -200.0)) and np.isnan(normalized_percent(1.0, 0.0, 0.0))
    good, bad = Score([10.0] * 6), Score([0.0] * 6)
    ours, teachers = dict(zip(IDS, (good, good), strict=True)), dict(zip(IDS, (good, bad), strict=True))
    assert task_interval(ours, teachers, dict.fromkeys(IDS, bad)) == pytest.approx((100, 100, 100))
    assert np.isnan(task_interval(ours, dict.fromkeys(IDS, bad), dict.fromkeys(IDS, bad))).all()
    lines = format_tasks(ours, teachers, dict.fromkeys(IDS, bad)).splitlines()
    assert lines[3].startswith(f"geometric mean, without {IDS[1]}")
    # A teacher that rarely succeeds is at random's level in many samples: it gives no interval.
    rare = Score([0.0] * 8 + [10.0] * 2)
    mean, low, high = task_interval({"a": Score([1.0] * 10)}, {"a": rare}, {"a": bad})
    assert mean == pytest.approx(50) and np.isnan([low, high]).all()


def test_tables_name_their_per_cent():
    rng = np.random.default_rng(0)
    scores = [{name: Score(list(rng.normal(mean, 1, 10))) for name in IDS} for mean in (30, 40, 0)]
    header, *lines, formula, quotient = format_tasks(*scores).splitlines()
    assert "normalized % (95%)" in header and formula.startswith("normalized %: 100 (score - random) / (teacher")
    assert header.endswith("quotient %") and quotient.startswith("quotient %: 100 score / teacher")
    low, high = percent_interval(pair_tasks(*scores)[IDS[0]])
    assert lines[0].startswith(IDS[0]) and f"({low:.1f} to {high:.1f})" in lines[0] and low < 75 < high
    single = [{IDS[0]: Score([value])} for value in (3.0, 4.0, 0.0)]
    assert format_tasks(*single).splitlines()[1].split() == [IDS[0], "0.00", "4.00", "3.00", "75.0", "75.0"]


def test_quotients_of_several_tasks_are_those_of_the_paper():
    def of(*means: float) -> dict[str, Score]:
        return {name: Score([mean]) for name, mean in zip("abc", means, strict=True)}

    # A teacher below 0 has none; a student below 0 counts as 1% in the geometric mean.
    quotients = task_quotients(of(9.0, 20.0, -5.0), of(10.0, 10.0, -10.0))
    assert quotients == {"a": 90.0, "b": 200.0, "c": None, GEOMETRIC_MEAN: pytest.approx((90 * 200) ** 0.5)}
    assert task_quotients(of(-3.0, 1.0, 1.0), of(1.0, 1.0, 1.0))[GEOMETRIC_MEAN] == pytest.approx(100 ** (2 / 3))
    assert set(task_quotients(of(1.0, 1.0, 1.0), of(-1.0, 0.0, -1.0)).values()) == {None}
