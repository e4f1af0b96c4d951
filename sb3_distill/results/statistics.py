"""Statistics of scores: interquartile means, intervals, per cent of a teacher."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

# Scores below 1% count as 1% in geometric means: a single score of 0 would make the mean 0.
LEAST_PERCENT = 1.0
# Name of the game or the task in rows with the geometric mean over all of them
GEOMETRIC_MEAN = "geometric mean"
# The definitions of the per cent of the teacher, with their formulas. A third one is the papers': `quotient_percent`.
SIGNED_QUOTIENT, NORMALIZED = "signed quotient", "normalized"
FORMULAS = {
    SIGNED_QUOTIENT: "100 + 100 (score - teacher) / |teacher|",
    NORMALIZED: "100 (score - random) / (teacher - random), where random is a random player's score",
}
# With fewer different episodes, a bootstrap interval is too narrow: even the range of n values contains their median
# with a probability of 1 - 2^(1-n) only, which is below 95% for n < 6.
LEAST_DISTINCT = 6
# Number of bootstrap samples
_N_RESAMPLES = 2_000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """
    Summary statistics of returns.

    :param mean: mean
    :param std: sample standard deviation
    :param median: median
    :param iqm: interquartile mean: the mean of the middle half of the returns
    :param mean_interval: 95% bootstrap confidence interval of the mean; empty for fewer than 6 different episodes
    :param iqm_interval: 95% bootstrap confidence interval of the interquartile mean; likewise
    :param n_distinct: number of different episodes
    """

    mean: float
    std: float
    median: float
    iqm: float
    mean_interval: Interval | tuple[()]
    iqm_interval: Interval | tuple[()]
    n_distinct: int


def sample_std(values: Sequence[float]) -> float:
    """
    :param values: a sample
    :return: the standard deviation of what it was drawn from (divisor n - 1); NaN for a single value, which does not
        tell
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def count_copies(episodes: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """
    :param episodes: what tells episodes apart: equal entries are the same episode, played again
    :return: the index of the first copy of each different episode, and the number of its copies
    """
    first: dict[Hashable, int] = {}
    for index, episode in enumerate(episodes):
        first.setdefault(episode, index)
    copies = Counter(episodes)
    return np.array(list(first.values())), np.array([copies[episode] for episode in first])


def summarize(returns: Sequence[float], traces: Sequence[Hashable] = ()) -> Summary:
    """
    Compute the statistics of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", with ``rliable``. The bootstrap draws different episodes, each with all its copies: an episode that was
    played twice is no new evidence.

    :param returns: one number per episode
    :param traces: what tells episodes apart; empty: all are different
    :return: the summary
    """
    # Imported here because it is slow to import
    from rliable import library, metrics

    values = np.asarray(returns, dtype=np.float64)
    first, copies = count_copies(traces or range(len(values)))
    intervals: list[Interval] = []
    if len(first) >= LEAST_DISTINCT:
        # rliable accepts a random state, but draws from NumPy's global generator nevertheless.
        state = np.random.get_state()
        np.random.seed(0)

        def aggregate(drawn: np.ndarray) -> np.ndarray:
            which = drawn[:, 0].astype(int)
            played = np.repeat(values[first[which]], copies[which])[:, None]
            return np.array([metrics.aggregate_mean(played), metrics.aggregate_iqm(played)])

        try:
            _, bounds = library.get_interval_estimates(
                {"": np.arange(len(first), dtype=np.float64)[:, None]}, aggregate, reps=_N_RESAMPLES
            )
        finally:
            np.random.set_state(state)
        intervals = [(float(low), float(high)) for low, high in bounds[""].T]
    return Summary(
        mean=float(values.mean()),
        std=sample_std(returns),
        median=float(np.median(values)),
        iqm=float(metrics.aggregate_iqm(values[:, None])),
        mean_interval=intervals[0] if intervals else (),
        iqm_interval=intervals[1] if intervals else (),
        n_distinct=len(first),
    )


def geometric_mean(percents: Sequence[float]) -> float:
    """
    :param percents: scores as percentages of the teachers'; scores below 1% count as 1%, and NaN (not defined) is left
        out
    :return: their geometric mean, NaN if no score is left
    """
    known = [percent for percent in percents if not np.isnan(percent)]
    return float(np.exp(np.mean(np.log(np.maximum(known, LEAST_PERCENT))))) if known else float("nan")


def percent_of_teacher(score: float, teacher_score: float) -> float:
    """
    The signed quotient: ``100 + 100 (score - teacher) / |teacher|``.

    For a teacher with a positive score, this equals ``100 score / teacher`` of the papers. For one with a negative
    score (Acrobot, MountainCar), it still grows with the score, whereas the quotient would be 200% for twice the cost.

    :param score: the student's mean episode return
    :param teacher_score: the teacher's mean episode return
    :return: the percentage, 100 if both are equal; NaN if the teacher's score is 0
    """
    if teacher_score == 0:
        return float("nan")
    return 100.0 + 100.0 * (score - teacher_score) / abs(teacher_score)


def quotient_percent(score: float, teacher_score: float) -> float:
    """
    The papers' quotient: ``100 score / teacher``.

    :param score: the student's mean return
    :param teacher_score: the teacher's mean return
    :return: the percentage; NaN if the teacher's score is not positive, where it would fall as the student improves
    """
    return 100.0 * score / teacher_score if teacher_score > 0 else float("nan")


def normalized_percent(score: float, teacher: float, random: float) -> float:
    """
    The normalized per cent: ``100 (score - random) / (teacher - random)``. Unlike the quotient of two scores, it is
    meaningful for games such as Pong, in which bad players have negative scores.

    :param score: the student's mean return
    :param teacher: the teacher's mean return
    :param random: the mean return of uniformly random actions
    :return: 100 if the student scores like the teacher, 0 if it scores like random actions; NaN if the teacher is not
        better than random actions
    """
    if teacher <= random:
        return float("nan")
    return 100.0 * (score - random) / (teacher - random)
