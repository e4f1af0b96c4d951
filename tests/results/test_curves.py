"""Learning curves of a teacher and its students."""

import numpy as np
import pytest

from sb3_distill.results.curves import format_summary, summarize_players


def test_summary_is_that_of_the_paper():
    curves = {"teacher": [1.0, 5.0, 4.0] + [2.0] * 8 + [4.0], "a": [0.0, 4.0, 8.0] + [1.0] * 9}
    evaluations = [
        {"player": name, "mean_reward": curves[name][point], "n_updates": point}
        for point in range(12)
        for name in curves
    ]
    teacher, student = summarize_players(evaluations)
    assert teacher.max == 5 and teacher.last == pytest.approx((4 + 2 * 8 + 4) / 10)
    assert student.max_percent == pytest.approx(160) and student.last == pytest.approx((8 + 9) / 10)
    assert student.last_percent == pytest.approx(100 * 1.7 / 2.4)
    # The paper's mean is that of percentages, each of the teacher's score in the same evaluation.
    assert student.last_quotient == pytest.approx((100 * 8 / 4 + 8 * 100 * 1 / 2 + 100 * 1 / 4) / 10)
    assert student.last_std == pytest.approx(np.std([8.0] + [1.0] * 9, ddof=1))


def test_a_teacher_below_zero_has_no_quotient():
    scores = [("teacher", 10.0), ("a", 5.0), ("teacher", -10.0), ("a", -5.0)]
    evaluations = [{"player": name, "mean_reward": score, "n_updates": 0} for name, score in scores]
    assert np.isnan(summarize_players(evaluations)[1].last_quotient)
    header, _, line, _, note = format_summary(evaluations).splitlines()
    assert "mean of %" in header and " - " in line and "100 score / teacher" in note
