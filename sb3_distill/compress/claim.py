"""The claim: the smallest student that keeps enough on fresh starts, on which nothing was chosen."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.files import write_whole
from sb3_distill.compress.job import load_student, score
from sb3_distill.compress.search import Goal, Plan, Student
from sb3_distill.envs.recipe import EnvRecipe
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
    :param pairs: episodes on the starts of the search
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
    # The search's own score is flattering: it was chosen by it.
    return int(min(max(1.5 * needed, LEAST), most))


def expected_seconds(front: Sequence[Student], goal: Goal, seconds_per_episode: float) -> float:
    """
    :param front: see ``claim``
    :param goal: what is asked for
    :param seconds_per_episode: see ``claim``
    :return: about how long the first try takes, in which student and teacher play
    """
    pairs = [student.pairs for student in front if student.pairs is not None]
    needed = (episodes_needed(each, goal.keep, error_of(goal.confidence, 1)) for each in pairs)
    return 2 * seconds_per_episode * _n_episodes(next((each for each in needed if each <= MOST), 0.0), MOST)


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


def claim(
    teacher: Teacher,
    env_id: str,
    recipe: EnvRecipe,
    front: Sequence[Student],
    folder: Path,
    goal: Goal,
    plan: Plan,
    say: Callable[[str], Any],
    export: Callable[[Student], str] = lambda student: "",
    seconds_left: float = math.inf,
    seconds_per_episode: float = 0.0,
) -> list[Claim]:
    """
    Try students from the smallest on, until one keeps enough, or no time is left. The first try has at least ``LEAST``
    episodes however long they take.

    :param teacher: the teacher
    :param env_id: the environment
    :param recipe: how that of the students is made
    :param front: students of which none is both as small and as good as another, from the smallest
    :param folder: folder of the runs
    :param goal: what is asked for
    :param plan: how it was searched
    :param say: shows a line
    :param export: exports a student, and returns why that is refused; empty: it is not. A student that cannot be
        exported makes no try.
    :param seconds_left: time for all tries
    :param seconds_per_episode: about how long one agent plays an episode
    :return: the tries; the last one holds, or none does
    """
    tries: list[Claim] = []
    for student in front:
        assert student.pairs is not None
        error = error_of(goal.confidence, len(tries) + 1)
        needed = episodes_needed(student.pairs, goal.keep, error)
        if needed > MOST:
            continue
        fitting = seconds_left / (2 * seconds_per_episode) if seconds_per_episode else math.inf
        if (tries and fitting < LEAST) or needed > max(fitting, LEAST):
            say(
                f"{student.n_bytes:,} bytes are not tried on {_n_episodes(needed, MOST)} fresh starts: the budget has "
                "no time left for them"
            )
            continue
        start = time.monotonic()
        refused = export(student)
        if refused:
            seconds_left -= time.monotonic() - start
            say(f"{student.n_bytes:,} bytes cannot be exported: {refused}")
            continue
        n_episodes = _n_episodes(needed, min(MOST, max(fitting, LEAST)))
        first_seed = CLAIM_SEED + 1_000 * (plan.seed % 1_000) * N_TRIES + MOST * len(tries)
        agent = load_student(folder / "cells" / student.outcome.zip, recipe)
        own, its, seconds = _played(agent, teacher, env_id, n_episodes, first_seed, folder / CLAIMS, start)
        seconds_left -= seconds
        bound = percent_bound(Pairs.of(own, its), error)
        holds = bound is not None and bound >= goal.keep
        tries.append(Claim(student, error, first_seed, own, its, bound, holds, seconds))
        shown = "none" if bound is None else f"{bound:.1f}%"
        say(
            f"{student.n_bytes:,} bytes on {n_episodes} fresh starts: {tries[-1].percent:.1f}% of the teacher, lower "
            f"bound {shown}: {'kept' if holds else 'not enough'}"
        )
        if holds or len(tries) == N_TRIES:
            break
    return tries
