"""Geometric means over games."""

from dataclasses import replace

import numpy as np
import pytest

from sb3_distill.results.games import over_games
from sb3_distill.results.row import Row

ROW = Row(
    env="A",
    agent="a",
    algo="pd",
    n_parameters=100,
    n_bytes=400,
    percent_of_teacher=90.0,
    percent_interval=(80.0, 100.0),
    seed="0",
    labels={"student": "net1", "env": "A"},
)
OTHER = replace(
    ROW, env="B", agent="b", n_parameters=103, n_bytes=412, percent_of_teacher=40.0, percent_interval=(30.0, 50.0)
)


def test_mean_of_each_student_with_the_interval_of_independent_games():
    small = [replace(row, n_parameters=9, labels={"student": "net3"}) for row in (ROW, OTHER)]
    # The second seed has played one game alone.
    first, second = over_games([ROW, *small, replace(ROW, seed="1"), replace(OTHER, labels={"student": "net1"})])
    assert (first.labels["student"], second.labels["student"]) == ("net1", "net3")
    assert (first.env, first.percent_of_teacher) == ("geometric mean", pytest.approx(60.0))
    assert (first.n_parameters, first.n_bytes) == (102, 406)
    below = np.hypot(np.log(90 / 80), np.log(40 / 30)) / 2
    above = np.hypot(np.log(100 / 90), np.log(50 / 40)) / 2
    assert first.percent_interval == pytest.approx((60 * np.exp(-below), 60 * np.exp(above)))


def test_no_interval_where_a_game_has_none():
    (mean,) = over_games([ROW, replace(OTHER, percent_interval=())])
    assert mean.percent_interval == ()


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="nothing tells twin from a in A: name one game with --env"):
        over_games([ROW, OTHER, replace(ROW, agent="twin")])
    with pytest.raises(ValueError, match="No student has results in all of A, B"):
        over_games([ROW, replace(OTHER, labels={"student": "net3"})])
