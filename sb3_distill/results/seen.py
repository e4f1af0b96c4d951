"""The returns that were seen in a game: beyond them, an interval says nothing."""

from collections.abc import Sequence

import numpy as np

from sb3_distill.results.row import Row
from sb3_distill.results.statistics import Interval

# Where no bounds are known
UNKNOWN: Interval = (-np.inf, np.inf)


def seen_returns(rows: Sequence[Row]) -> dict[tuple[str, str | None], Interval]:
    """
    :param rows: rows of results
    :return: by environment and task, the lowest and the highest return of an episode, or a teacher's mean return;
        infinite where a row does not say its episodes
    """
    seen: dict[tuple[str, str | None], Interval] = {}
    for row in rows:
        returns = [*row.returns, *(() if row.teacher_mean is None else (row.teacher_mean,))]
        low, high = (min(returns), max(returns)) if row.returns else UNKNOWN
        lowest, highest = seen.get((row.env, row.task), (low, high))
        seen[row.env, row.task] = min(low, lowest), max(high, highest)
    return seen


def seen_percents(rows: Sequence[Row], returns: Interval) -> Interval:
    """
    :param rows: rows of one game
    :param returns: the lowest and the highest return in it
    :return: the percentages that these would be, of the rows' teachers; infinite where all score like their teachers,
        and there is nothing to be cut
    """
    bounds = []
    for row in rows:
        if row.percent_of_teacher is None or row.mean is None or row.teacher_mean is None:
            continue
        # Percentages of either definition are linear in the score, and 100 at the teacher's.
        if row.mean != row.teacher_mean:
            slope = (row.percent_of_teacher - 100.0) / (row.mean - row.teacher_mean)
            bounds.append([100.0 + slope * (end - row.teacher_mean) for end in returns])
    return (min(low for low, _ in bounds), max(high for _, high in bounds)) if bounds else UNKNOWN
