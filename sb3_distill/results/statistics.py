"""Statistics of scores: interquartile means, bootstrap intervals, geometric means over games."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Scores below 1% count as 1% in geometric means: a single score of 0 would make the mean 0.
LEAST_PERCENT = 1.0
# Name of the game or the task in rows with the geometric mean over all of them
GEOMETRIC_MEAN = "geometric mean"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """
    Summary statistics of returns.

    :param mean: mean
    :param std: standard deviation
    :param median: median
    :param iqm: interquartile mean: the mean of the middle half of the returns
    :param mean_interval: 95% bootstrap confidence interval of the mean
    :param iqm_interval: 95% bootstrap confidence interval of the interquartile mean
    """

    mean: float
    std: float
    median: float
    iqm: float
    mean_interval: Interval
    iqm_interval: Interval


def summarize(returns: Sequence[float], n_resamples: int = 2_000, seed: int = 0) -> Summary:
    """
    Compute the statistics of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", with ``rliable``.

    :param returns: one number per episode or run
    :param n_resamples: number of bootstrap samples
    :param seed: seed of the resampling
    :return: the summary; for a single return, both ends of the intervals are this return
    """
    # Imported here because it is slow to import
    from rliable import library, metrics

    values = np.asarray(returns, dtype=np.float64)
    points = np.array([metrics.aggregate_mean(values[:, None]), metrics.aggregate_iqm(values[:, None])])
    bounds = np.stack([points, points])
    if len(values) > 1:
        # rliable accepts a random state, but draws from NumPy's global generator nevertheless.
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            _, intervals = library.get_interval_estimates(
                {"": values[:, None]},
                lambda scores: np.array([metrics.aggregate_mean(scores), metrics.aggregate_iqm(scores)]),
                reps=n_resamples,
            )
        finally:
            np.random.set_state(state)
        bounds = intervals[""]
    return Summary(
        float(values.mean()),
        float(values.std()),
        float(np.median(values)),
        float(points[1]),
        (float(bounds[0, 0]), float(bounds[1, 0])),
        (float(bounds[0, 1]), float(bounds[1, 1])),
    )


def geometric_mean(percents: Sequence[float]) -> float:
    """
    :param percents: scores as percentages of the teachers'; scores below 1% count as 1%, and NaN (not defined) is left
        out
    :return: their geometric mean, NaN if no score is left
    """
    known = [percent for percent in percents if not np.isnan(percent)]
    return float(np.exp(np.mean(np.log(np.maximum(known, LEAST_PERCENT))))) if known else float("nan")


def geometric_mean_interval(
    returns: Mapping[str, Sequence[float]],
    teachers: Mapping[str, Sequence[float]],
    percent: Callable[[str, float, float], float] = lambda game, score, teacher: percent_of_teacher(score, teacher),
    n_resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """
    The geometric mean over games with its 95% bootstrap interval (Rusu et al. 2015, figure 3). The episodes of student
    and teacher are resampled with replacement, separately for each game.

    :param returns: the student's returns, by game
    :param teachers: the teachers' returns, by game
    :param percent: function of a game, the student's mean return and the teacher's: the student's percentage
    :param n_resamples: number of bootstrap samples
    :param seed: seed of the resampling
    :return: the geometric mean, and the bounds of its interval; games, and single resamples, for which ``percent``
        returns NaN are left out
    """
    rng = np.random.default_rng(seed)

    def resampled_means(values: Sequence[float]) -> np.ndarray:
        array = np.asarray(values)
        return array[rng.integers(len(array), size=(n_resamples, len(array)))].mean(axis=1)

    percents = [percent(game, float(np.mean(returns[game])), float(np.mean(teachers[game]))) for game in returns]
    known = [game for game, value in zip(returns, percents, strict=True) if not np.isnan(value)]
    if not known:
        return (float("nan"),) * 3
    resampled = np.array(
        [
            [
                percent(game, score, teacher)
                for score, teacher in zip(resampled_means(returns[game]), resampled_means(teachers[game]), strict=True)
            ]
            for game in known
        ]
    )
    means = np.exp(np.log(np.maximum(resampled, LEAST_PERCENT)).mean(axis=0))
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return geometric_mean(percents), float(low), float(high)


def percent_of_teacher(score: float, teacher_score: float) -> float:
    """
    A score as a percentage of the teacher's: ``100 + 100 (score - teacher) / |teacher|``.

    For a teacher with a positive score, this equals ``100 score / teacher`` of the papers. For one with a negative
    score (Acrobot, MountainCar), it still grows with the score, whereas the quotient would be 200% for twice the cost.

    :param score: the student's mean episode return
    :param teacher_score: the teacher's mean episode return
    :return: the percentage, 100 if both are equal; NaN if the teacher's score is 0
    """
    if teacher_score == 0:
        return float("nan")
    return 100.0 + 100.0 * (score - teacher_score) / abs(teacher_score)


def normalized_percent(score: float, teacher: float, random: float) -> float:
    """
    ``100 (score - random) / (teacher - random)``. Unlike the quotient of two scores, it is meaningful for games such as
    Pong, in which bad players have negative scores.

    :param score: the student's mean return
    :param teacher: the teacher's mean return
    :param random: the mean return of uniformly random actions
    :return: 100 if the student scores like the teacher, 0 if it scores like random actions; NaN if the teacher is not
        better than random actions
    """
    if teacher <= random:
        return float("nan")
    return 100.0 * (score - random) / (teacher - random)
