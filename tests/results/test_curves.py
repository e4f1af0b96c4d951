"""Learning curves of a teacher and its students."""

import numpy as np
import pytest

from sb3_distill.results.curves import format_summary, read_curves, summarize_players, write_csv


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


def test_curves_of_a_real_time_run_have_the_best_so_far_and_the_bounds_of_single_episodes(tmp_path):
    scores = [("teacher", 3.0), ("small", 1.0), ("teacher", 2.0), ("small", 4.0)]
    evaluations = [
        {
            "n_updates": index // 2,
            "n_timesteps": 100 * (index // 2),
            "player": name,
            "mean_reward": score,
            "std_reward": 1.0,
            "min_reward": score - 2,
            "max_reward": score + 2,
            "n_episodes": 5,
        }
        for index, (name, score) in enumerate(scores)
    ]
    write_csv(evaluations, tmp_path / "learning_curves.csv")
    curves = read_curves(tmp_path)
    assert {name: curve.returns.tolist() for name, curve in curves.items()} == {
        "teacher, best so far": [3.0, 3.0],
        "teacher": [3.0, 2.0],
        "small": [1.0, 4.0],
    }
    assert curves["small"].seen == (-1.0, 6.0) and curves["small"].steps.tolist() == [0.0, 100.0]
    # As earlier versions wrote it
    later = {"min_reward", "max_reward"}
    earlier = [{name: value for name, value in entry.items() if name not in later} for entry in evaluations]
    write_csv(earlier, tmp_path / "learning_curves.csv")
    assert read_curves(tmp_path)["small"].seen == (-np.inf, np.inf)
