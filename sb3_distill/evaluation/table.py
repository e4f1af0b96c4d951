"""Rows of ``sb3-distill evaluate`` for people, and what stands below their table."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from sb3_distill.results.comparison import Pairs, geometric_mean_interval
from sb3_distill.results.row import Row, teachers_of
from sb3_distill.results.statistics import FORMULAS, SIGNED_QUOTIENT
from sb3_distill.results.tables import format_spread, interval_text


def header(margin: float) -> tuple[str, ...]:
    """
    :param margin: per cent of the teacher by which a student may be worse
    :return: the heads of the columns
    """
    scores = ("episodes", "score", "median", "IQM (95%)", "% of teacher (95%)", f"margin {margin:g}%")
    return ("agent", "algo", "parameters", "bytes", "size, %", "MACs", *scores)


def cells_of(row: Row) -> list[str]:
    """
    :param row: a row of results
    :return: its cells
    """
    assert row.mean is not None and row.std is not None
    n_episodes = len(row.returns)
    repeats = row.n_distinct is not None and row.n_distinct < n_episodes
    percent = row.percent_of_teacher
    return [
        row.agent,
        row.algo,
        # An object can have weights that nobody sees.
        f"{row.n_parameters:,}" if row.n_parameters else "unknown",
        f"{row.n_bytes:,}" if row.n_bytes else "unknown",
        "" if row.percent_of_teacher_bytes is None else f"{row.percent_of_teacher_bytes:.3g}",
        "unknown" if row.n_macs is None else f"{row.n_macs:,}",
        f"{n_episodes} ({row.n_distinct} distinct)" if repeats else f"{n_episodes}",
        format_spread(row.mean, row.std),
        f"{row.median:.2f}",
        f"{row.iqm:.2f}{interval_text(row.iqm_interval, 2)}",
        "" if percent is None else f"{percent:.1f}{interval_text(row.percent_interval)}",
        row.verdict or "",
    ]


def footnotes(rows: Sequence[Row], margin: float, has_means: bool = False) -> list[str]:
    """
    :param rows: the rows of the tables
    :param margin: per cent of the teacher by which a student may be worse
    :param has_means: whether there are geometric means
    :return: the sentences below the tables that say what their numbers are
    """
    notes = []
    if any(row.verdict for row in rows):
        least = f"{100 - margin:g}%"
        notes.append(
            f"% of teacher: the {SIGNED_QUOTIENT} {FORMULAS[SIGNED_QUOTIENT]}, with its 95% interval over pairs of "
            f"episodes from the same start. margin {margin:g}%: not worse if the interval is above {least}, worse if "
            "it is below, else undecided."
        )
    if any(row.n_distinct is not None and row.n_distinct < len(row.returns) for row in rows):
        notes.append("Some episodes are exact repeats of others: intervals rest on the distinct ones.")
    if any(not row.iqm_interval or (row.verdict and not row.percent_interval) for row in rows):
        notes.append(
            "There is no interval for fewer than 6 distinct episodes"
            + (
                ", or for a teacher whose mean score cannot be told from 0."
                if any(row.verdict for row in rows)
                else "."
            )
        )
    notes += [f"{row.agent}: {row.statistics_note}" for row in rows if row.statistics_note]
    if has_means:
        notes.append(
            "Geometric means: the interval is over the episodes of these students. It does not say what students of "
            "other seeds would score."
        )
    return notes


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def geometric_means(
    rows: Sequence[Row], architectures: Mapping[str, Hashable]
) -> dict[str, tuple[float, float, float]]:
    """
    :param rows: the rows of several games, students and teachers
    :param architectures: the architecture of each agent, by the name of the agent
    :return: for each architecture with students in every game, the geometric mean over the games and its 95% interval
        over episodes; several students of one game, each compared with its own teacher, count with the mean of their
        percentages; games without a percentage are left out, and named in the label
    """
    games = list(dict.fromkeys(row.env for row in rows))
    played = {(row.env, row.agent): row for row in rows}
    together: dict[Hashable, list[Row]] = {}
    for row in rows:
        if row.taught_by not in (None, row.agent):
            together.setdefault(architectures[row.agent], []).append(row)
    means = {}
    for members in together.values():
        if len(games) < 2 or {row.env for row in members} != set(games):
            continue
        pairs: dict[str, list[Pairs]] = {game: [] for game in games}
        for row in members:
            pairs[row.env].append(Pairs.of(row, played[row.env, str(row.taught_by)]))
        sizes = _span([row.n_parameters for row in members]), _span([row.n_bytes for row in members])
        label = f"{members[0].algo}, {sizes[0]} parameters, {sizes[1]} bytes"
        counts = [len(students) for students in pairs.values()]
        if max(counts) > 1:
            label += f", {_span(counts)} students of each game"
        if any(len(teachers_of(row for row in members if row.env == game)) > 1 for game in games):
            label += ", each against its own one of several teachers"
        unknown = [game for game in games if any(np.isnan(pair.percent) for pair in pairs[game])]
        if unknown:
            label += f", without {', '.join(unknown)}"
        means[label] = geometric_mean_interval(pairs)
    return means
