"""Tables of studies: what is averaged, and what a paper's number stands beside."""

from dataclasses import replace

import pytest

from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN, NORMALIZED, SIGNED_QUOTIENT
from sb3_distill.study.reporting.means import geometric_groups
from sb3_distill.study.tables import describe_numbers, group_rows, plot_group_sizes, plot_groups, table_of

ROW = Row("A", "x", "pd", 100, 400, mean=1.0, teacher_mean=1.0, percent_of_teacher=90.0, seed=0, labels={"loss": "kl"})
ONE_GAME = {"env": ["A"], "loss": ["kl", "nll"], "seed": ["0", "1"]}


def test_runs_without_a_percentage_are_not_counted_as_averaged():
    rows = [replace(ROW, percent_of_teacher=None, mean=0.0), replace(ROW, seed=1, max_percent=95.0)]
    groups = group_rows(rows, ONE_GAME, [])
    line = dict(zip(*table_of(groups), strict=True))
    assert line["% of teacher"] == "90.0 (1 of 2)" and line["max %"] == "95.0 (1 of 2)"
    assert line["student's score"] == "0.00, 1.00" and line["seeds"] == "2"
    assert "(1 of 2): only so many of the runs have this number" in describe_numbers(groups, 5.0)
    whole = group_rows([ROW, replace(ROW, seed=1)], ONE_GAME, [])
    assert "of 2)" not in str(table_of(whole)) and "(1 of 2)" not in describe_numbers(whole, 5.0)


@pytest.mark.parametrize("definition, random", [(SIGNED_QUOTIENT, 0.0), (NORMALIZED, 100.0)])
def test_intervals_over_seeds_end_at_the_returns_that_were_seen(definition, random):
    def percent(score):
        return 100 * (score - random) / (500 - random)

    def row(loss, seed, returns):
        mean = sum(returns) / len(returns)
        own = {"percent_of_teacher": percent(mean), "percent_definition": definition, "labels": {"loss": loss}}
        return replace(ROW, mean=mean, teacher_mean=500.0, returns=returns, seed=seed, **own)

    rows = [row("kl", 0, [500.0, 500.0]), row("kl", 1, [500.0, 463.6])]
    rows += [row("nll", 0, [300.0, 500.0]), row("nll", 1, [200.0, 300.0])]
    kl, nll = groups = group_rows(rows, ONE_GAME, [])
    # Student's t, of two runs 18.2 apart: the mean and 12.7 times their half distance
    assert kl.interval == pytest.approx((percent(490.9 - 115.63), percent(490.9 + 115.63)), abs=0.01)
    assert kl.shown_interval == (kl.interval[0], 100.0)
    # The other runs of the game have seen as little as 200.
    assert nll.shown_interval == pytest.approx((percent(200), 100.0))
    lines = [dict(zip(table_of(groups)[0], line, strict=True)) for line in table_of(groups)[1:]]
    assert lines[0]["95% interval"].endswith(" to 100.0") and lines[0]["margin 5%"] == "undecided"
    assert "as far as the returns of episodes went" in describe_numbers(groups, 5.0)
    # Of one run whose episodes are not known, nothing is known of the game.
    unknown = group_rows([*rows, replace(rows[0], returns=(), seed=2)], ONE_GAME, [])
    assert unknown[1].shown_interval == unknown[1].interval


def test_geometric_means_over_seeds_end_at_those_of_what_was_seen():
    seeds = {0: (200.0, 400.0), 1: (100.0, 200.0)}
    rows = [
        replace(
            ROW,
            env=env,
            seed=seed,
            mean=sum(returns) / 2,
            teacher_mean=100.0 * scale,
            percent_of_teacher=sum(returns) / 2 / scale,
            returns=returns,
        )
        for env, scale in (("A", 1.0), ("B", 4.0))
        for seed, returns in seeds.items()
    ]
    (mean,) = geometric_groups(group_rows(rows, {"env": ["A", "B"], "seed": ["0", "1"]}, []), ["A", "B"])
    # 300 and 75%, 150 and 37.5%; single episodes had 400 and 100%, and 100 and 25%
    assert mean.percents == pytest.approx((150.0, 75.0)) and mean.interval[1] > 200
    assert mean.shown_interval == pytest.approx((50.0, 200.0))


@pytest.mark.parametrize(
    "published, stands",
    [
        ({"env": "A", "loss": "kl"}, True),
        # As older results have them
        ({}, False),
        ({"loss": "kl"}, False),
        ({"env": "A"}, False),
        ({"env": "B", "loss": "kl"}, False),
        ({"env": "A", "loss": "nll"}, False),
        ({"env": "A", "loss": "kl", "player": "net1"}, False),
    ],
)
def test_published_numbers_stand_beside_their_own_game_and_network(published, stands):
    (group,) = group_rows([ROW], ONE_GAME, [{**published, "percent": 70.0}])
    assert group.published == (70.0 if stands else None)


@pytest.mark.parametrize("part", ["player", "task"])
def test_published_numbers_of_nobody_in_particular_stand_nowhere(part):
    rows = [replace(ROW, **{part: name}) for name in ("one", "two")]
    published = [{"env": "A", "loss": "kl", "percent": 70.0}]
    assert [group.published for group in group_rows(rows, ONE_GAME, published)] == [None, None]
    published = [{**published[0], part: "two"}]
    assert [group.published for group in group_rows(rows, ONE_GAME, published)] == [None, 70.0]


def test_geometric_means_are_over_games_and_one_definition():
    games = {"env": ["A", "B"], "loss": ["kl"], "seed": ["0"]}
    rows = [replace(ROW, percent_definition=SIGNED_QUOTIENT), replace(ROW, env="B", percent_definition=SIGNED_QUOTIENT)]
    assert len(geometric_groups(group_rows(rows, games, []), ["A", "B"])) == 1
    rows[1] = replace(rows[1], percent_definition=NORMALIZED)
    assert geometric_groups(group_rows(rows, games, []), ["A", "B"]) == []
    # Tasks of multi-task students, and their own geometric means
    tasks = [replace(ROW, env=env, task=task) for env in "AB" for task in ("Pong", GEOMETRIC_MEAN)]
    assert geometric_groups(group_rows(tasks, games, []), ["A", "B"]) == []


@pytest.mark.parametrize("percent, mean", [(-50.0, 10.0), (25.0, 50.0)])
def test_a_geometric_mean_with_a_percentage_below_1_is_explained(percent, mean):
    games = {"env": ["A", "B"], "seed": ["0"]}
    rows = [replace(ROW, percent_of_teacher=100.0), replace(ROW, env="B", percent_of_teacher=percent)]
    groups = group_rows(rows, games, [])
    groups += geometric_groups(groups, ["A", "B"])
    assert groups[-1].percents == pytest.approx((mean,))
    assert ("a percentage below 1 as 1" in describe_numbers(groups, 5.0)) == (percent < 1)


def test_tables_have_the_papers_quotient_beside_another_percentage():
    rows = [replace(ROW, player="small", quotient=94.0), replace(ROW, player="small", quotient=96.5, seed=1)]
    groups = group_rows(rows, ONE_GAME, [])
    line = dict(zip(*table_of(groups), strict=True))
    assert line["% of teacher"] == "90.0, 90.0" and line["quotient %"] == "94.0, 96.5"
    assert "quotient: 100 student / teacher, as the papers have it" in describe_numbers(groups, 5.0)
    assert "quotient %" not in table_of(group_rows([ROW], ONE_GAME, []))[0]


def test_bars_beside_the_papers_numbers_are_quotients():
    tasks = {"Pong": None, "Qbert": 120.0, GEOMETRIC_MEAN: 120.0}
    rows = [
        replace(ROW, task=task, percent_of_teacher=70.0, percent_definition=NORMALIZED, quotient=quotient)
        for task, quotient in tasks.items()
    ]
    published = [{"env": "A", "loss": "kl", "task": GEOMETRIC_MEAN, "percent": 116.9}]
    for theirs, heights, label in (
        ([], [70.0, 70.0, 70.0], "% between a random player\nand the teacher"),
        # Pong, whose teacher has no positive score, has no quotient.
        (published, [120.0, 120.0], "% of the teacher's return"),
    ):
        axes = plot_groups(group_rows(rows, ONE_GAME, theirs)).axes[0]
        assert [bar.get_height() for bar in axes.patches] == heights and axes.get_ylabel() == label


def test_geometric_means_say_which_tasks_they_leave_out():
    percents = {"Pong": 90.0, "Qbert": None, GEOMETRIC_MEAN: 90.0}
    rows = [replace(ROW, task=task, percent_of_teacher=percent) for task, percent in percents.items()]
    assert "No percentage of Qbert, where" in describe_numbers(group_rows(rows, ONE_GAME, []), 5.0)
    assert "No percentage" not in describe_numbers(group_rows(rows[:1], ONE_GAME, []), 5.0)


def test_no_line_joins_sizes_of_different_games():
    grid = {"loss": ["kl", "nll", "mse"], "env": ["A", "B"], "seed": ["0"]}
    rows = [
        replace(ROW, env=env, n_bytes=size, labels={"loss": loss})
        for loss, size in (("kl", 100), ("nll", 200), ("mse", 300))
        for env in "AB"
    ]
    axes = plot_group_sizes(group_rows(rows, grid, [])).axes[0]
    assert [len(line.lines[0].get_xdata()) for line in axes.containers] == [3, 3]
