"""The search for small students: rounds of runs whose students Optuna chooses by what the earlier ones have shown."""

import hashlib
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.files import without_empty_folders, write_whole
from sb3_distill.common.locks import locked
from sb3_distill.compress.candidates import Params, Space, front_of
from sb3_distill.compress.job import Outcome, Settings, read_outcomes
from sb3_distill.compress.view import StudentView, View
from sb3_distill.evaluation.play import Score
from sb3_distill.results.comparison import Pairs
from sb3_distill.results.tables import to_json
from sb3_distill.study.backends import Backend
from sb3_distill.study.manifest import MANIFEST

# Students of one run, which share its play
N_STUDENTS = 6
# Rounds of students that a sampler has chosen at random, before it goes by what it has seen
_N_RANDOM = 6
# So often is one choice tried, each time with other initial weights
_N_REPEATS = 3
# So often is the sampler asked for one student that is new and small enough
_N_ASKS = 50
# In the folder of the first run of a round: what the round took
ROUND = "round.json"
# Starts that nobody else has: evaluations begin at 0, step sizes at 10 and 20 million
SEARCH_SEED = 30_000_000


class CompressError(ValueError):
    """Nothing can be compressed; the message says why and what to do."""


@dataclass(frozen=True)
class Goal:
    """
    What is asked for.

    :param keep: per cent of the teacher that the lower bound must reach
    :param confidence: per cent
    :param max_bytes: bytes that a student may have; None: any number
    """

    keep: float = 95.0
    confidence: float = 95.0
    max_bytes: int | None = None


@dataclass(frozen=True)
class Plan:
    """
    How it is searched.

    :param seed: of everything
    :param n_timesteps: length of a run; the first two rounds have shorter ones. None: by the budget
    :param n_students: students of one run
    :param n_jobs: runs of one round
    :param n_episodes: episodes of each score; None: by the kind of observations
    """

    seed: int = 0
    n_timesteps: int | None = None
    n_students: int = N_STUDENTS
    n_jobs: int = 1
    n_episodes: int | None = None


@dataclass(frozen=True)
class Student:
    """
    A student that was tried.

    :param outcome: what came of it
    :param pairs: its episodes beside those of the teacher; None: it was stopped
    :param fresh: the same of its last try on fresh starts, which failed; None: there was none
    """

    outcome: Outcome
    pairs: Pairs | None
    fresh: Pairs | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of what acts."""
        return self.outcome.n_bytes

    @property
    def percent(self) -> float:
        """Per cent of the teacher, as far as it is known; NaN if it was stopped."""
        return float("nan") if self.measured is None else self.measured.percent

    @property
    def measured(self) -> Pairs | None:
        """Its fresh episodes, by which it was not chosen; those of the search where there are none."""
        return self.pairs if self.fresh is None else self.fresh


def scored_front(students: Sequence[Student]) -> list[Student]:
    """
    :param students: students that were tried
    :return: those than which no other is both as small and as good, from the smallest
    """
    scored = [student for student in students if student.pairs is not None]
    return [scored[index] for index in front_of([(each.n_bytes, each.percent) for each in scored])]


class Search:
    """
    The students that were tried, and those that come next. What is proposed depends on the seed, the round, and what
    the rounds before have shown, and on nothing else: a search that was killed goes on where it was.

    :param teacher: the agent that is compressed
    :param env_id: the environment
    :param gym_packages: packages that runs import first
    :param space: what can be chosen
    :param reference: the teacher's score on the starts of the search
    :param goal: what is asked for
    :param plan: how it is searched
    :param folder: where runs leave their students
    :param view: what is said of what teacher and students see
    :param seen: what students see
    :param teacher_kwargs: what is said of an ONNX file beside it
    :param statistics: by which students see observations normalized; None: they see them raw
    """

    def __init__(
        self,
        teacher: Teacher,
        env_id: str,
        gym_packages: Sequence[str],
        space: Space,
        reference: Score,
        goal: Goal,
        plan: Plan,
        folder: Path,
        view: View,
        seen: StudentView,
        teacher_kwargs: Mapping[str, Any] | None = None,
        statistics: Mapping[str, Any] | None = None,
    ) -> None:
        self.teacher, self.env_id, self.teacher_kwargs = teacher, env_id, teacher_kwargs or {}
        self.statistics, self.view, self.seen = statistics, view, seen
        self.gym_packages, self.space = gym_packages, space
        self.reference, self.goal, self.plan, self.folder = reference, goal, plan, folder
        self.students: list[Student] = []
        self.n_rounds = 0
        # What decided the outcome of each run
        self.runs: list[Settings] = []
        # Students of the last round
        self.n_last = 0
        # Wall-clock seconds of the rounds, also of those before the search was killed
        self.seconds: list[float] = []
        starts = ((point, space.n_bytes(point)) for point in space.starts)
        fitting = [point for point, n_bytes in starts if n_bytes <= (goal.max_bytes or n_bytes)]
        # A sampler may never meet the few that fit a low limit.
        self._starts = fitting or [space.smallest]
        self._repeats: Counter[str] = Counter()

    @property
    def good(self) -> list[Student]:
        """Those of the front that keep enough on the starts of the search, from the smallest."""
        return [student for student in scored_front(self.students) if student.percent >= self.goal.keep]

    @property
    def n_timesteps(self) -> int:
        """Length of the runs of the next round. What is learned easily is found in the short ones."""
        return self._length(self.n_rounds)

    @property
    def expected_seconds(self) -> float:
        """About how long the next round takes, by the last one and the lengths of both."""
        if not self.seconds:
            return 0.0
        # The episodes that are scored are as many in a short round.
        learning = max(student.outcome.learning_seconds for student in self.students[-self.n_last :])
        return self.seconds[-1] + learning * (self.n_timesteps / self._length(len(self.seconds) - 1) - 1)

    def _length(self, index: int) -> int:
        assert self.plan.n_timesteps is not None
        return min(self.plan.n_timesteps, self.plan.n_timesteps // 4 * 2**index)

    def propose(self) -> list[Params]:
        """
        :return: the students of the next round, fewer or none if there is nothing left to try
        """
        n_wanted = self.plan.n_students * self.plan.n_jobs
        chosen = self._starts[:n_wanted] if not self.good or not self.n_rounds else []
        chosen += itertools.islice(self._sampled(Counter(map(_key, chosen))), n_wanted - len(chosen))
        # The first one is never stopped: that should be the one of which most is to be expected.
        return sorted(chosen, key=self.space.n_bytes, reverse=True)

    def _sampled(self, further: Counter[str]) -> Iterator[Params]:
        seed = np.random.SeedSequence([self.plan.seed, self.n_rounds]).generate_state(1)[0]
        samplers = (
            optuna.samplers.TPESampler(seed=int(seed), n_startup_trials=_N_RANDOM, constant_liar=True),
            optuna.samplers.RandomSampler(seed=int(seed)),
        )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        guided, random = (
            optuna.create_study(directions=["minimize", "maximize"], sampler=sampler) for sampler in samplers
        )
        distributions = self.space.distributions
        # A student that was stopped has no score. The sampler is told one that nobody wants.
        worst = min([0.0, *(student.percent for student in self.students if student.pairs is not None)])
        for student in self.students:
            params = dict(student.outcome.params)
            known = {name: distributions[name] for name in params}
            percent = worst if student.pairs is None else student.percent
            # Of those that keep too little, the sampler prefers the ones that miss the least.
            guided.add_trial(
                create_trial(
                    params=params,
                    distributions=known,
                    values=[student.n_bytes, percent],
                    constraints={"keep": self.goal.keep - percent},
                )
            )
        # Larger ones are of no use any more, but one or two may be needed if the smallest fails its claim.
        most = 2 * self.good[0].n_bytes if self.good else None
        limits = [limit for limit in (most, self.goal.max_bytes) if limit is not None]
        study, repeats = guided, self._repeats + further
        for _ in range(_N_ASKS * self.plan.n_students * self.plan.n_jobs):
            trial = study.ask(distributions)
            params = self.space.needed(trial.params)
            if repeats[_key(params)] >= _N_REPEATS or any(self.space.n_bytes(params) > each for each in limits):
                study.tell(trial, state=TrialState.FAIL)
                # The guided one learns nothing from a refusal and would ask for the same again.
                study = random
                continue
            study = guided
            repeats[_key(params)] += 1
            yield params

    def bars(self) -> list[float]:
        """The least agreement of students that keep enough, at each check that was made; empty if there are none."""
        agreements = [student.outcome.agreement for student in self.students if student.percent >= self.goal.keep]
        n_checks = max(map(len, agreements), default=0)
        return [min(each[check] for each in agreements if len(each) > check) for check in range(n_checks)]

    def replace_score(self, student: Student, fresh: Pairs) -> None:
        """
        Go by what a student did on fresh starts, from now on.

        :param student: a student that was chosen by its score in the search
        :param fresh: its episodes beside those of the teacher
        """
        index = next(place for place, each in enumerate(self.students) if each.outcome is student.outcome)
        self.students[index] = replace(student, fresh=fresh)

    def run_round(self, backend: Backend, chosen: Sequence[Params]) -> None:
        """
        Teach and score the students of one round, if they are not there already.

        :param backend: what runs them
        :param chosen: the students, from ``propose``
        :raises CompressError: a run has failed
        """
        start = time.monotonic()
        size = self.plan.n_students
        runs = [self._settings(chosen[first : first + size], first) for first in range(0, len(chosen), size)]
        keys = [f"{self.n_rounds:03d}-{_key(asdict(settings))}" for settings in runs]
        waiting = [
            (key, json.dumps(asdict(settings)))
            for key, settings in zip(keys, runs, strict=True)
            if not (self.folder / "cells" / key / MANIFEST).is_file()
        ]
        for key, problem in backend(waiting, self.folder) if waiting else ():
            if problem:
                raise CompressError(f"A run has failed: {problem} (see {self.folder / 'failed' / key}).")
        outcomes = [read_outcomes(self.folder / "cells" / key) for key in keys]
        self._starts = [point for point in self._starts if point not in chosen]
        self._repeats.update(map(_key, chosen))
        self.runs += runs
        self.n_last = sum(map(len, outcomes))
        self.students += [self._paired(outcome) for run in outcomes for outcome in run]
        # A search that is repeated has as many rounds, so it counts what they took at first.
        clock = self.folder / "cells" / keys[0] / ROUND
        if waiting or not clock.is_file():
            took = time.monotonic() - start if waiting else max(run[0].seconds for run in outcomes)
            write_whole(clock, to_json({"seconds": took}))
        self.seconds.append(json.loads(clock.read_text())["seconds"])
        self.n_rounds += 1

    def _settings(self, chosen: Sequence[Params], first: int) -> Settings:
        assert self.plan.n_episodes is not None
        seed = np.random.SeedSequence([self.plan.seed, self.n_rounds, first]).generate_state(1)[0]
        return Settings(
            teacher=self.teacher.source,
            sha256=self.teacher.sha256,
            env_id=self.env_id,
            teacher_kwargs=dict(self.teacher_kwargs),
            gym_packages=list(self.gym_packages),
            seed=int(seed) % 2**31,
            n_timesteps=self.n_timesteps,
            students=list(chosen),
            temperature=self.space.temperature,
            bars=self.bars(),
            n_episodes=self.plan.n_episodes,
            first_seed=search_seed(self.plan),
            statistics=self.statistics,
            view=asdict(self.view),
        )

    def _paired(self, outcome: Outcome) -> Student:
        if outcome.stopped:
            return Student(outcome, None)
        return Student(outcome, Pairs.of(outcome, self.reference))


def search_seed(plan: Plan) -> int:
    """
    :param plan: how it is searched
    :return: seed of the first episode of the scores of the search
    """
    return SEARCH_SEED + 1_000 * (plan.seed % 1_000)


def _key(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def only_search_in(folder: Path) -> Iterator[None]:
    """
    Lock a folder for this process, and delete unfinished runs of a process that was killed.

    :param folder: the folder
    :raises InUseError: another process searches there
    """
    with without_empty_folders(folder), locked(folder, "compresses an agent"):
        for left in folder.glob("cells/.*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def run_search(search: Search, backend: Backend, goes_on: Callable[[Search, Sequence[Params]], bool]) -> None:
    """
    Search until nothing is left to try.

    :param search: the search
    :param backend: what runs its students
    :param goes_on: asked before every round, of which it gets the students: whether there is another one
    :raises CompressError: a run has failed
    """
    while (chosen := search.propose()) and goes_on(search, chosen):
        search.run_round(backend, chosen)
