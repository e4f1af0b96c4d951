"""Geometric means over games of single results, which become results of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sb3_distill.results.row import Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN, LEAST_PERCENT, Interval, geometric_mean


def over_games(rows: Sequence[Row]) -> list[Row]:
    """
    :param rows: results of students in several games
    :return: for each student with a result in every game, which is told from others by its algorithm, its seed and its
        labels in a study, the geometric mean of its percentages (Rusu et al. 2015, figure 3), with the means of its
        sizes, which differ a little where games have other actions
    :raises ValueError: a game has two results of one student, or no student has results in all games
    """
    games = list(dict.fromkeys(row.env for row in rows))
    students: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        labels = sorted((name, str(value)) for name, value in row.labels.items() if name != "env")
        key = (row.algo, row.player, row.percent_definition, str(row.seed), *labels)
        by_game = students.setdefault(key, {})
        if by_game.setdefault(row.env, row) is not row:
            raise ValueError(
                f"These results are of several games, and nothing tells {row.agent} from {by_game[row.env].agent} in "
                f"{row.env}: name one game with --env, or draw the results of a study, whose labels do."
            )
    complete = [by_game for by_game in students.values() if by_game.keys() == set(games)]
    if not complete:
        raise ValueError(f"No student has results in all of {', '.join(games)}: choose a game with --env.")
    return [_mean_row(by_game) for by_game in complete]


def _mean_row(by_game: Mapping[str, Row]) -> Row:
    rows = list(by_game.values())
    percents = [row.percent_of_teacher for row in rows if row.percent_of_teacher is not None]
    intervals = [tuple(row.percent_interval) for row in rows]
    return replace(
        rows[0],
        env=GEOMETRIC_MEAN,
        n_parameters=round(float(np.mean([row.n_parameters for row in rows]))),
        n_bytes=round(float(np.mean([row.n_bytes for row in rows]))),
        mean=None,
        mean_interval=(),
        teacher_mean=None,
        percent_of_teacher=geometric_mean(percents),
        percent_interval=_interval(percents, intervals) if all(intervals) else (),
    )


def _interval(percents: Sequence[float], intervals: Sequence[Sequence[float]]) -> Interval:
    """Of the geometric mean: games are independent, so the widths of their intervals, as logarithms, add as squares."""
    logs = np.log(
        np.maximum(
            [(low, percent, high) for percent, (low, high) in zip(percents, intervals, strict=True)], LEAST_PERCENT
        )
    )
    below, above = (np.sqrt(np.square(np.diff(pair)).sum()) / len(logs) for pair in (logs[:, :2], logs[:, 1:]))
    middle = logs[:, 1].mean()
    return float(np.exp(middle - below)), float(np.exp(middle + above))
