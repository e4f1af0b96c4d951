"""Students against their teachers: per cent with an interval over pairs of episodes, and whether a student is worse."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import stats

from sb3_distill.results.statistics import (
    LEAST_DISTINCT,
    LEAST_PERCENT,
    NORMALIZED,
    SIGNED_QUOTIENT,
    Interval,
    count_copies,
    geometric_mean,
)

# Per cent of the teacher by which a student may be worse, if nothing else is said
MARGIN = 5.0
NOT_WORSE, WORSE, UNDECIDED = "not worse", "worse", "undecided"
# Share of the bootstrap samples that lies outside of a 95% interval at each end
_TAIL = 0.025
# Number of bootstrap samples. They are drawn with one seed, so that equal scores have equal intervals.
_N_RESAMPLES, _SEED = 10_000, 0


class Played(Protocol):
    """What has returns and traces of episodes: a score, a row of results."""

    @property
    def returns(self) -> Sequence[float]: ...

    @property
    def traces(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Pairs:
    """
    Episodes of a student and of its teacher; those with the same number have the same start and random actions.

    :param student: the student's returns
    :param teacher: the teacher's returns
    :param traces: what tells pairs apart: equal entries are repeats of the same pair; empty: all are different
    :param random: mean return of a random player, for the normalized per cent; None: the signed quotient
    """

    student: Sequence[float]
    teacher: Sequence[float]
    traces: Sequence[Hashable] = ()
    random: float | None = None

    def __post_init__(self) -> None:
        if len(self.student) != len(self.teacher):
            raise ValueError(
                f"Pairs are episodes from the same starts, but there are {len(self.student)} of the student and "
                f"{len(self.teacher)} of the teacher: play as many of each."
            )

    @classmethod
    def of(cls, student: Played, teacher: Played, random: float | None = None) -> "Pairs":
        """
        :param student: what the student has played
        :param teacher: what the teacher has played, from the same starts
        :param random: mean return of a random player, for the normalized per cent
        :return: the episodes in pairs
        """
        # Without the traces of both, all pairs count as different.
        traces = list(zip(student.traces, teacher.traces, strict=True)) if student.traces and teacher.traces else []
        return cls(student.returns, teacher.returns, traces, random)

    @property
    def definition(self) -> str:
        """Name of the per cent's definition."""
        return SIGNED_QUOTIENT if self.random is None else NORMALIZED

    @property
    def episodes(self) -> Sequence[Hashable]:
        """One entry for each pair, equal for pairs that are the same."""
        return self.traces or range(len(self.student))

    @property
    def n_distinct(self) -> int:
        """Number of different pairs."""
        return len(set(self.episodes))

    @property
    def percent(self) -> float:
        """The student's mean return as a percentage of the teacher's; NaN if it is not defined."""
        return float(self.percents(np.mean(self.student), np.mean(self.teacher)))

    def percents(self, student: Any, teacher: Any) -> Any:
        """
        :param student: mean returns of the student
        :param teacher: mean returns of the teacher
        :return: the percentages. They are NaN where the teacher's mean has another sign than in all episodes together,
            or, if they are normalized, where it is not above that of the random player.
        """
        # percent_of_teacher and normalized_percent are both 100 + 100 (student - teacher) / scale.
        scale = teacher * np.sign(np.mean(self.teacher)) if self.random is None else teacher - self.random
        return 100.0 + 100.0 * (student - teacher) / np.where(scale > 0, scale, np.nan)


def _resample(students: Sequence[Pairs], rng: np.random.Generator, n_resamples: int) -> np.ndarray:
    """Bootstrap samples of the percentage in one game: pairs are drawn with their copies, for all students alike."""
    first, copies = count_copies(list(zip(*(pairs.episodes for pairs in students), strict=True)))
    drawn = rng.multinomial(len(first), np.full(len(first), 1 / len(first)), size=n_resamples) * copies

    def means(returns: Sequence[float]) -> np.ndarray:
        return (drawn * np.asarray(returns)[first]).sum(axis=1) / drawn.sum(axis=1)

    return np.mean([pairs.percents(means(pairs.student), means(pairs.teacher)) for pairs in students], axis=0)


def _interval(resampled: np.ndarray, n_distinct: int, tail: float = _TAIL) -> Interval | None:
    # A teacher that scores about 0, or as random actions do, is no measure.
    if n_distinct < LEAST_DISTINCT or np.isnan(resampled).mean() > tail:
        return None
    # Percentile intervals are too narrow for few values: Hesterberg 2015 takes them as far out as Student's t does.
    tail = stats.norm.cdf(-np.sqrt(n_distinct / (n_distinct - 1)) * stats.t.ppf(1 - tail, n_distinct - 1))
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def percent_interval(pairs: Pairs, n_resamples: int = _N_RESAMPLES) -> Interval | None:
    """
    The 95% interval of the percentage of the teacher: the expanded percentile bootstrap (Hesterberg 2015, "What
    Teachers Should Know About the Bootstrap") over pairs of episodes. The mean difference of the pairs, student minus
    teacher, is divided by the teacher's mean in the same sample.

    :param pairs: episodes of student and teacher
    :param n_resamples: number of bootstrap samples
    :return: the bounds; None if there are fewer than 6 different pairs, or if the teacher's mean return cannot be told
        from 0 (normalized: from the random player's)
    """
    return _interval(_resample([pairs], np.random.default_rng(_SEED), n_resamples), pairs.n_distinct)


def percent_bound(pairs: Pairs, error: float, n_resamples: int = _N_RESAMPLES) -> float | None:
    """
    The one-sided lower bound of the percentage of the teacher: the lower end of an interval as ``percent_interval``
    makes it.

    :param pairs: episodes of student and teacher
    :param error: share of samples of episodes in which the true percentage may lie below the bound: 0.05 for a
        confidence of 95%
    :param n_resamples: number of bootstrap samples
    :return: the bound; None where ``percent_interval`` has none
    """
    resampled = _resample([pairs], np.random.default_rng(_SEED), n_resamples)
    interval = _interval(resampled, pairs.n_distinct, error)
    return None if interval is None else interval[0]


def geometric_mean_interval(games: Mapping[str, Sequence[Pairs]]) -> tuple[float, float, float]:
    """
    The geometric mean over games with its 95% interval (Rusu et al. 2015, figure 3), by the bootstrap of
    ``percent_interval`` in each game. It is the interval for these students: how much others with another seed would
    differ, episodes do not tell.

    :param games: by game, the pairs of each student; a game with several students counts with the mean of their
        percentages
    :return: the geometric mean and the bounds of its interval, each NaN if it is not defined; games without a
        percentage are left out
    """
    rng = np.random.default_rng(_SEED)
    percents = {game: float(np.mean([pairs.percent for pairs in students])) for game, students in games.items()}
    known = [game for game, percent in percents.items() if not np.isnan(percent)]
    if not known:
        return (float("nan"),) * 3
    resampled = np.array([_resample(games[game], rng, _N_RESAMPLES) for game in known])
    means = np.exp(np.log(np.maximum(resampled, LEAST_PERCENT)).mean(axis=0))
    n_distinct = min(pairs.n_distinct for game in known for pairs in games[game])
    low, high = _interval(means, n_distinct) or (float("nan"),) * 2
    return geometric_mean(list(percents.values())), low, high


def t_interval(values: Sequence[float]) -> Interval | None:
    """
    Student's 95% interval of a mean. For a handful of runs: a bootstrap over so few is too narrow.

    :param values: one number per run
    :return: the bounds; None for fewer than two runs
    """
    if len(values) < 2:
        return None
    half = stats.t.ppf(1 - _TAIL, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def verdict(interval: Interval | None, margin: float) -> str:
    """
    :param interval: 95% interval of a percentage of the teacher; None if there is none
    :param margin: per cent of the teacher by which a student may be worse
    :return: "not worse" if the whole interval is above 100 - margin, "worse" if it is below, else "undecided"
    """
    if interval is None:
        return UNDECIDED
    low, high = interval
    return NOT_WORSE if low > 100.0 - margin else WORSE if high < 100.0 - margin else UNDECIDED
