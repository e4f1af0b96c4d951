"""The claim: the smallest student that keeps enough on fresh starts, on which nothing was chosen."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.files import write_whole
from sb3_distill.compress.job import load_student, score
from sb3_distill.compress.search import Search, Student, scored_front
from sb3_distill.evaluation.play import Score
from sb3_distill.reading.text import has_json
from sb3_distill.results.comparison import Pairs, percent_bound
from sb3_distill.results.tables import to_json

# Folder of what was played on fresh starts
CLAIMS = "claims"
# Starts of no search; each try has its own.
CLAIM_SEED = 40_000_000
# Episodes of one try
LEAST, MOST = 100, 1_000
# The search's own score is flattering: it was chosen by it. Of its margin above what is to be kept, this share is
# counted on.
MARGIN = 0.5
# Tries: the share of errors of each is half that of the one before
N_TRIES = 5


@dataclass(frozen=True)
class Claim:
    """
    One try to show that a student keeps enough.

    :param student: the student
    :param error: share of errors that this try may have
    :param first_seed: seed of its first episode
    :param student_score: what the student scored
    :param teacher_score: what the teacher scored from the same starts
    :param bound: the lower bound of its percentage of the teacher; None: too few different episodes
    :param holds: whether it reaches what was asked for
    :param seconds: seconds that it took, with the export of the student
    """

    student: Student
    error: float
    first_seed: int
    student_score: Score
    teacher_score: Score
    bound: float | None
    holds: bool
    seconds: float

    @property
    def percent(self) -> float:
        """Per cent of the teacher."""
        return Pairs.of(self.student_score, self.teacher_score).percent


def error_of(confidence: float, number: int) -> float:
    """
    :param confidence: of all tries together, in per cent
    :param number: number of a try, from 1
    :return: the share of errors that it may have: a half, a quarter, an eighth ... of all. However many tries there
        are, their sum stays below the whole (Bonferroni).
    """
    return (1.0 - confidence / 100.0) / 2**number


def episodes_needed(pairs: Pairs, keep: float, error: float) -> float:
    """
    :param pairs: episodes that were played before
    :param keep: per cent of the teacher that the lower bound must reach
    :param error: share of errors
    :return: number of episodes with which the bound would reach it, were the student what it seems to be
    """
    if not pairs.percent > keep:
        return math.inf
    teacher = np.mean(pairs.teacher)
    differences = 100.0 * (np.asarray(pairs.student) - np.asarray(pairs.teacher)) / abs(teacher)
    return float((stats.norm.ppf(1 - error) * differences.std(ddof=1) / (pairs.percent - keep)) ** 2)


def _n_episodes(needed: float, most: float) -> int:
    return int(min(max(needed / MARGIN**2, LEAST), most))


def _played(
    student: Teacher, teacher: Teacher, env_id: str, n_episodes: int, first_seed: int, folder: Path, start: float
) -> tuple[Score, Score, float]:
    """
    What both score on fresh starts, and the seconds since the start of this try; read where a search that is repeated
    has played them before.
    """
    path = folder / f"{student.sha256[:12]}-{teacher.sha256[:12]}-{first_seed}-{n_episodes}.json"
    if not has_json(path, ("student", "teacher", "seconds")):
        played = {
            name: asdict(score(player, env_id, n_episodes, first_seed))
            for name, player in (("student", student), ("teacher", teacher))
        }
        path.parent.mkdir(exist_ok=True)
        write_whole(path, to_json({**played, "seconds": time.monotonic() - start}))
    found = json.loads(path.read_text())
    return Score(**found["student"]), Score(**found["teacher"]), found["seconds"]


class Claims:
    """
    Tries students of a search on fresh starts, from the smallest on, until one keeps enough.

    :param search: the search. It learns what the students did that failed.
    :param say: shows a line
    :param export: exports a student, and returns why that is refused; empty: it is not. A student that cannot be
        exported makes no try.
    :param seconds_per_episode: about how long one agent plays an episode
    """

    def __init__(
        self,
        search: Search,
        say: Callable[[str], Any],
        export: Callable[[Student], str] = lambda student: "",
        seconds_per_episode: float = 0.0,
    ) -> None:
        self.search, self.say, self.export, self.seconds_per_episode = search, say, export, seconds_per_episode
        # The last one holds, or none does.
        self.tries: list[Claim] = []
        # Files of students that cannot be exported, or need more time than there was
        self._left_out: set[str] = set()
        # Seconds of exports that were refused
        self._refused_seconds = 0.0

    @property
    def chosen(self) -> Claim | None:
        """The try that holds; None: there is none."""
        return self.tries[-1] if self.tries and self.tries[-1].holds else None

    @property
    def is_over(self) -> bool:
        """Whether there is no further try."""
        return self.chosen is not None or len(self.tries) == N_TRIES

    @property
    def seconds(self) -> float:
        """Seconds of all tries, and of exports that were refused."""
        return self._refused_seconds + sum(each.seconds for each in self.tries)

    @property
    def expected_seconds(self) -> float:
        """About how long the next try takes, in which student and teacher play."""
        found = self._next()
        return 2 * self.seconds_per_episode * _n_episodes(0.0 if found is None else found[1], MOST)

    def make(self, seconds_left: float = math.inf) -> None:
        """
        Try students. The first try has at least ``LEAST`` episodes however long they take.

        :param seconds_left: time for all tries
        """
        per_episode = 2 * self.seconds_per_episode
        end = self.seconds + seconds_left
        while not self.is_over and (found := self._next()):
            student, needed = found
            start = time.monotonic()
            fitting = (end - self.seconds) / per_episode if per_episode else math.inf
            if self.tries and fitting < LEAST:
                self.say(f"No other student is tried: the budget has no time left for {LEAST} fresh starts")
                break
            if needed > max(fitting, LEAST):
                self._left_out.add(student.outcome.zip)
                self.say(
                    f"{student.n_bytes:,} bytes are not tried on {_n_episodes(needed, MOST)} fresh starts: the budget "
                    "has no time left for them"
                )
                continue
            refused = self.export(student)
            if refused:
                self._left_out.add(student.outcome.zip)
                self._refused_seconds += time.monotonic() - start
                self.say(f"{student.n_bytes:,} bytes cannot be exported: {refused}")
                continue
            self._try(student, _n_episodes(needed, min(MOST, max(fitting, LEAST))), start)

    def _next(self) -> tuple[Student, float] | None:
        """The smallest student that may keep enough, and how many episodes would show it; None: there is none."""
        error = error_of(self.search.goal.confidence, len(self.tries) + 1)
        left = [student for student in self.search.students if student.outcome.zip not in self._left_out]
        for student in scored_front(left):
            assert student.measured is not None
            needed = episodes_needed(student.measured, self.search.goal.keep, error)
            if needed <= MOST:
                return student, needed
        return None

    def _try(self, student: Student, n_episodes: int, start: float) -> None:
        search, goal = self.search, self.search.goal
        error = error_of(goal.confidence, len(self.tries) + 1)
        first_seed = CLAIM_SEED + 1_000 * (search.plan.seed % 1_000) * N_TRIES + MOST * len(self.tries)
        agent = load_student(search.folder / "cells" / student.outcome.zip, search.seen.recipe)
        own, its, seconds = _played(
            agent, search.teacher, search.env_id, n_episodes, first_seed, search.folder / CLAIMS, start
        )
        pairs = Pairs.of(own, its)
        bound = percent_bound(pairs, error)
        holds = bound is not None and bound >= goal.keep
        self.tries.append(Claim(student, error, first_seed, own, its, bound, holds, seconds))
        shown = "none" if bound is None else f"{bound:.1f}%"
        self.say(
            f"{student.n_bytes:,} bytes on {n_episodes} fresh starts: {pairs.percent:.1f}% of the teacher, lower bound "
            f"{shown}: {'kept' if holds else 'not enough'}"
        )
        if not holds:
            search.replace_score(student, pairs)
