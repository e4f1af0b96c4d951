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
    first, second = over_games([OTHER, *small, replace(ROW, seed="1"), ROW], ["A", "B"])
    assert (first.labels["student"], second.labels["student"]) == ("net1", "net3")
    assert (first.env, first.percent_of_teacher) == ("geometric mean", pytest.approx(60.0))
    assert (first.n_parameters, first.n_bytes) == (102, 406)
    below = np.hypot(np.log(90 / 80), np.log(40 / 30)) / 2
    above = np.hypot(np.log(100 / 90), np.log(50 / 40)) / 2
    assert first.percent_interval == pytest.approx((60 * np.exp(-below), 60 * np.exp(above)))


def test_no_interval_where_a_game_has_none():
    (mean,) = over_games([ROW, replace(OTHER, percent_interval=())], ["A", "B"])
    assert mean.percent_interval == ()


NOTHING = {"labels": {}, "settings": {}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, OTHER, replace(ROW, agent="twin")], "nothing tells twin from a in A: name one game with --env"),
        ([ROW, replace(OTHER, labels={"student": "net3"})], "No student has results in all of A, B"),
        ([ROW], "No student has results in all of A, B"),
        ([ROW, replace(OTHER, conditions={"epsilon": 0.1})], "No student .* scored in the same way"),
        ([ROW, replace(OTHER, percent_definition="normalized")], "No student .* scored in the same way"),
        ([ROW, replace(OTHER, percent_of_teacher=float("nan"))], "b has no percentage of its teacher in B"),
        ([replace(ROW, **NOTHING), replace(OTHER, **NOTHING)], "nothing says what a has in common with students of"),
    ],
)
def test_what_does_not_belong_together_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        over_games(rows, ["A", "B"])


def test_games_may_have_starts_of_their_own():
    (mean,) = over_games([replace(ROW, starts_sha256="x"), replace(OTHER, starts_sha256="y")], ["A", "B"])
    assert mean.starts_sha256 is None and "env" not in mean.labels
