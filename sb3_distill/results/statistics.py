"""What is said of scores: interquartile means, bootstrap intervals, geometric means over games."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# A game that was not learned at all counts as one per cent: with zero, no other game would matter.
LEAST_PERCENT = 1.0
# Stands for the game or the task in rows of all of them
GEOMETRIC_MEAN = "geometric mean"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """
    Returns in a few numbers.

    :param mean: mean
    :param std: standard deviation
    :param median: median
    :param iqm: interquartile mean, that of the middle half
    :param mean_interval: 95% bootstrap interval of the mean
    :param iqm_interval: 95% bootstrap interval of the interquartile mean
    """

    mean: float
    std: float
    median: float
    iqm: float
    mean_interval: Interval
    iqm_interval: Interval


def summarize(returns: Sequence[float], n_resamples: int = 2_000, seed: int = 0) -> Summary:
    """
    Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", through ``rliable``.

    :param returns: one number per episode or run
    :param n_resamples: number of bootstrap samples
    :param seed: of the resampling
    :return: the summary; intervals of one number are that number
    """
    # Slow to import, and wanted here alone
    from rliable import library, metrics

    values = np.asarray(returns, dtype=np.float64)
    points = np.array([metrics.aggregate_mean(values[:, None]), metrics.aggregate_iqm(values[:, None])])
    bounds = np.stack([points, points])
    if len(values) > 1:
        # rliable takes a random state and draws from numpy's global one all the same.
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
    :param percents: scores in per cent of the teachers', of which those below 1% count as 1%; NaN, where a teacher
        gives no measure, does not count
    :return: their geometric mean, NaN where there is none
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
    The geometric mean over games with its 95% interval (Rusu et al. 2015, figure 3): episodes of student and teacher
    are resampled with replacement, each game by itself.

    :param returns: the student's, by game
    :param teachers: the teachers'
    :param percent: from a game, the student's mean and the teacher's to the student's percentage
    :param n_resamples: number of bootstrap samples
    :param seed: of the resampling
    :return: the geometric mean, and the ends of its interval; games of which ``percent`` says NaN are left out, and so
        are resamples in which it does
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

    For a positive teacher this is the papers' ``100 score / teacher``; for a negative one (Acrobot, MountainCar) it
    still grows with the score, where the plain quotient would call twice the cost 200%.

    :param score: the student's mean episode return
    :param teacher_score: the teacher's
    :return: percentage, 100 where both are equal; NaN where the teacher scored 0
    """
    if teacher_score == 0:
        return float("nan")
    return 100.0 + 100.0 * (score - teacher_score) / abs(teacher_score)


def normalized_percent(score: float, teacher: float, random: float) -> float:
    """
    ``100 (score - random) / (teacher - random)``: scores of games such as Pong are negative for a bad player, and a
    quotient of them says nothing.

    :param score: the student's mean return
    :param teacher: the teacher's
    :param random: that of uniformly random actions
    :return: 100 where the student plays as the teacher, 0 where it plays at random; NaN where the teacher is no better
        than that, and so no measure
    """
    if teacher <= random:
        return float("nan")
    return 100.0 * (score - random) / (teacher - random)
