"""Geometric means over games of single results, which become results of their own."""

from collections.abc import Mapping, Sequence

import numpy as np

from sb3_distill.results.likeness import conditions_of
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN, LEAST_PERCENT, Interval, geometric_mean

# How a game was played, which differs between games
_OF_GAME = ("starts_sha256", "env_kwargs", "starts_from", "native", "teacher")


def over_games(rows: Sequence[Row], games: Sequence[str]) -> list[Row]:
    """
    :param rows: results of students in several games, each with a percentage of its teacher's score
    :param games: the games
    :return: for each student with a result in every game, which is told from others by its algorithm, its seed and its
        labels in a study, the geometric mean of its percentages (Rusu et al. 2015, figure 3), with the means of its
        sizes, which differ a little where games have other actions
    :raises ValueError: nothing tells which results belong together, or no student has results in all games
    """
    advice = "name one game with --env"
    students: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        if not row.labels and not row.settings:
            raise ValueError(
                f"These results are of several games, and nothing says what {row.agent} has in common with students of "
                f"the others: {advice}, or draw the results of a study (`evaluate` prints geometric means itself)."
            )
        if row.percent_of_teacher is None or np.isnan(row.percent_of_teacher):
            raise ValueError(f"{row.agent} has no percentage of its teacher in {row.env}: {advice}.")
        by_game = students.setdefault(_key(row), {})
        if by_game.setdefault(row.env, row) is not row:
            raise ValueError(
                f"These results are of several games, and nothing tells {row.agent} from {by_game[row.env].agent} in "
                f"{row.env}: {advice}."
            )
    complete = [by_game for by_game in students.values() if by_game.keys() == set(games)]
    if not complete:
        raise ValueError(
            f"No student has results in all of {', '.join(games)} that were scored in the same way: {advice}."
        )
    return [_mean_row([by_game[game] for game in games]) for by_game in complete]


def _key(row: Row) -> tuple[object, ...]:
    labels = sorted((name, str(value)) for name, value in row.labels.items() if name != "env")
    scored = sorted((name, str(value)) for name, value in conditions_of(row).items() if name not in _OF_GAME)
    return row.algo, row.player, str(row.seed), *labels, *scored


def _mean_row(rows: Sequence[Row]) -> Row:
    """The mean of one student's results."""
    percents = [row.percent_of_teacher for row in rows if row.percent_of_teacher is not None]
    intervals = [tuple(row.percent_interval) for row in rows]
    conditions: Mapping[str, object] = {n: value for n, value in rows[0].conditions.items() if n not in _OF_GAME}
    return Row(
        env=GEOMETRIC_MEAN,
        agent=" ".join(row.agent for row in rows),
        algo=rows[0].algo,
        n_parameters=round(float(np.mean([row.n_parameters for row in rows]))),
        n_bytes=round(float(np.mean([row.n_bytes for row in rows]))),
        player=rows[0].player,
        percent_of_teacher=geometric_mean(percents),
        percent_definition=rows[0].percent_definition,
        percent_interval=_interval(percents, intervals) if all(intervals) else (),
        seed=rows[0].seed,
        labels={name: value for name, value in rows[0].labels.items() if name != "env"},
        conditions=dict(conditions),
        settings=rows[0].settings,
    )


def _interval(percents: Sequence[float], intervals: Sequence[Sequence[float]]) -> Interval:
    """Of the geometric mean: games are independent, so the widths of their intervals, as logarithms, add as squares."""
    ends = [(low, percent, high) for percent, (low, high) in zip(percents, intervals, strict=True)]
    logs = np.log(np.maximum(ends, LEAST_PERCENT))
    below, above = (np.sqrt(np.square(np.diff(pair)).sum()) / len(logs) for pair in (logs[:, :2], logs[:, 1:]))
    middle = logs[:, 1].mean()
    return float(np.exp(middle - below)), float(np.exp(middle + above))
