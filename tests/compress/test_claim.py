"""Tries on fresh starts, on which no student was chosen."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sb3_distill import QPD
from sb3_distill.compress.claim import Claims, episodes_needed, error_of
from sb3_distill.compress.compress import Clock, Compressed, _goes_on, search_and_claim
from sb3_distill.compress.outputs import Exports, describe, draw_front, front_table
from sb3_distill.compress.search import Goal, Search, Student, scored_front
from sb3_distill.results.comparison import Pairs
from tests.compress.games import GOAL, SHORT, Here


def search_of(found: Compressed, students: list[Student], goal: Goal = GOAL) -> Search:
    """The same search, with these students."""
    search = copy.copy(found.search)
    search.students, search.goal = list(students), goal
    return search


def save_bad_student(found: Compressed, n_bytes: int) -> Student:
    """One that always pushes to the same side, but seems to be as good as its teacher."""
    bad = QPD("MlpPolicy", SHORT, found.search.teacher, seed=3, device="cpu", policy_kwargs={"net_arch": []})
    bad.policy.action_net.bias.data[1] = 10.0
    (found.search.folder / "cells" / "bad").mkdir(exist_ok=True)
    bad.save(found.search.folder / "cells" / "bad" / "student.zip")
    outcome = dataclasses.replace(found.chosen.student.outcome, zip="bad/student.zip", n_bytes=n_bytes)
    return Student(outcome, Pairs([100.0] * 10, [100.0] * 10))


def test_a_claim_that_fails_is_followed_by_the_next_larger_student(found: Compressed, folder: Path):
    flattered, lines = save_bad_student(found, 1), []
    good = Student(found.chosen.student.outcome, Pairs([99.0] * 10, [100.0] * 10))
    # It is no better than the one that seems to be so good, until that one has failed.
    search = search_of(found, [flattered, good])
    assert scored_front(search.students) == [flattered]
    claims = Claims(search, lines.append)
    claims.make()
    assert [each.holds for each in claims.tries] == [False, True] and len(lines) == 2
    assert [each.error for each in claims.tries] == [pytest.approx(0.025), pytest.approx(0.0125)]
    assert len({each.first_seed for each in claims.tries}) == 2
    assert claims.chosen.student is good and search.students[0].percent == claims.tries[0].percent < 50.0
    # The table has what failed, too, with its score of the search.
    rows = front_table(scored_front(search.students), search.space, claims.tries)
    assert [(row[3], row[5], row[-1]) for row in rows[1:]] == [
        ("1", "100.0", "no"),
        (str(good.n_bytes), "99.0", "yes"),
    ]
    # A student that is tried twice is one.
    twice = Claims(search, lines.append)
    twice.tries = [claims.tries[0], dataclasses.replace(claims.tries[0])]
    assert "2 students, 1 of them on fresh starts" in describe(twice, Exports(folder / "none", search, "c"))
    # In the legend, all that failed stand once.
    legend = draw_front(search, [*twice.tries, claims.tries[1]]).legends[0]
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[2:] == ["to keep: 80%", "failed on fresh starts", "chosen, on fresh starts, with its bound"]
    refused = Claims(search_of(found, [flattered, good]), lines.append, lambda student: "no")
    refused.make()
    # Also what was refused took time.
    assert refused.seconds > 0 and refused.tries == [] and lines[-1].endswith("bytes cannot be exported: no")


def test_a_student_whose_bound_was_too_wide_is_tried_again_on_more_episodes(found: Compressed):
    # Each of its fresh episodes has 60 steps. The teacher is said to have had 61 in half of them.
    near = Student(found.chosen.student.outcome, Pairs([99.0] * 10, [100.0] * 10))
    claims = Claims(search_of(found, [near], Goal(keep=97.0)), lambda line: None)
    claims.search.replace_score(near, Pairs([100.0, 95.0] * 5, [100.0] * 10))
    student, needed = claims._next()
    assert student.fresh.percent == 97.5 and needed == pytest.approx(106.7, abs=0.1)
    claims.make()
    # Of half of its margin, four times as many as are needed
    assert len(claims.chosen.student_score.returns) == 426


def test_a_search_goes_on_when_no_try_held(found: Compressed):
    search = search_of(found, [save_bad_student(found, 30)])
    claims = Claims(search, lambda line: None, seconds_per_episode=0.5)
    # There is one round and no time for a second try, then another round.
    time_left = iter([0.0, np.inf])
    search_and_claim(
        claims, Here(), lambda search, chosen: search.n_rounds - 2 == len(claims.tries), lambda: next(time_left)
    )
    assert [each.holds for each in claims.tries] == [False, True] and search.n_rounds == 4
    assert claims.chosen.student in search.students[1:]


def test_a_claim_takes_the_time_that_is_left(found: Compressed):
    # 10 episodes with a mean of 2.5 below the teacher, half of them 0 and half 5, so a deviation of 2.5 * sqrt(10 / 9)
    near = Student(found.chosen.student.outcome, Pairs([100.0, 95.0] * 5, [100.0] * 10))
    assert episodes_needed(near.pairs, 97.0, 0.025) == pytest.approx(1.959964**2 * 2.5**2 * 10 / 9 / 0.5**2)
    # That is 106.7, and four times as many 426.
    goal, lines = Goal(keep=97.0), []

    def claims(front: list[Student]) -> Claims:
        return Claims(search_of(found, front, goal), lines.append, seconds_per_episode=0.5)

    assert claims([near]).expected_seconds == 2 * 0.5 * 426
    assert claims([]).expected_seconds == 2 * 0.5 * 100

    def episodes(front: list[Student], seconds_left: float) -> list[int]:
        own = claims(front)
        own.make(seconds_left)
        return [len(each.student_score.returns) for each in own.tries]

    assert [episodes([near], left) for left in (1_000, 120, 50)] == [[426], [120], []]
    assert lines[-1].endswith("bytes are not tried on 426 fresh starts: the budget has no time left for them")
    # One that has not failed needs few. It gets them even if they take too long, and no other one does.
    sure = Student(near.outcome, Pairs([100.0] * 10, [100.0] * 10))
    assert episodes([sure], 0) == [100]
    lines.clear()
    others = [dataclasses.replace(sure, outcome=dataclasses.replace(sure.outcome, zip=f"{n}.zip")) for n in range(3)]
    assert episodes([save_bad_student(found, 1), *others], 0) == [100]
    # However many they are
    assert len(lines) == 2
    assert lines[-1] == "No other student is tried: the budget has no time left for 100 fresh starts"


def test_what_is_kept_for_the_claim_is_a_fifth_to_a_half_of_the_budget(found: Compressed):
    # No student has a score yet: 100 episodes of each.
    search = search_of(found, [])
    search.seconds = [10.0, 20.0]
    clocks = [Clock(1_000.0, 30.0, Claims(search, print, seconds_per_episode=each)) for each in (0.1, 1.0, 10.0)]
    assert [clock.left for clock in clocks] == [940.0] * 3
    assert [clock.kept for clock in clocks] == [200.0, 250.0, 500.0]
    # When tries have been made, only what the next one takes
    clocks[0].claims.tries = [dataclasses.replace(found.chosen, holds=False, seconds=5.0)]
    assert clocks[0].kept == 0.1 * 2 * 100 + 50.0 and clocks[0].left == 935.0
    # The teacher's episodes alone took longer than the budget. The first round is made all the same.
    search.seconds, lines = [], []
    late = Clock(60.0, 100.0, Claims(search, print, seconds_per_episode=0.1))
    assert _goes_on(search, search.space.starts[:1], clock=late, n_rounds=None, say=lines.append)
    assert lines[0].endswith(", 0.0 min left, 0.0 of them for the claim")


def test_all_tries_together_err_no_more_than_was_asked_for():
    assert sum(error_of(95.0, number) for number in range(1, 40)) <= 0.05 + 1e-9
    pairs = Pairs([98.0, 96.0, 100.0, 98.0], [100.0] * 4)
    deviation = np.std(np.array(pairs.student), ddof=1)
    assert episodes_needed(pairs, 95.0, 0.025) == pytest.approx((1.959964 * deviation / 3.0) ** 2)
    assert episodes_needed(pairs, 98.0, 0.025) == np.inf
