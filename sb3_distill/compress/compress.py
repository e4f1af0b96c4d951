"""Compresses an agent: searches, claims, writes."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sb3_distill.agents.load import check_teacher_kwargs
from sb3_distill.base.cost import check_memory, check_room, duration_in_words, in_words
from sb3_distill.buffers.distillation import DistillationBuffer
from sb3_distill.buffers.state import step_bytes
from sb3_distill.common.files import check_own_folder, write_whole
from sb3_distill.common.utils import counted, missing_extra
from sb3_distill.compress.candidates import Params, Space, check_teacher, kind_of
from sb3_distill.compress.claim import Claim, Claims
from sb3_distill.compress.job import score
from sb3_distill.compress.outputs import (
    EXPORT,
    FIGURE,
    FRONT,
    RECORD,
    REPORT,
    STUDENT,
    Exports,
    describe,
    write_outputs,
)
from sb3_distill.compress.play import TEACHER, play_facts
from sb3_distill.compress.search import (
    CompressError,
    Goal,
    Plan,
    Search,
    only_search_in,
    run_search,
    search_seed,
)
from sb3_distill.compress.view import View, show, students_space
from sb3_distill.envs.imports import trust_packages
from sb3_distill.evaluation.loading import load_where_it_plays
from sb3_distill.reading.text import has_json
from sb3_distill.results.tables import to_json
from sb3_distill.study.backends import Backend, run_locally

JOB = ("sb3_distill.compress.job",)
# Shares of the budget: kept for the claim and the export at least and at most, and for the export alone
_LEAST, _MOST, _EXPORT = 0.2, 0.5, 0.05
# By kind of network: length of a run for each second of the budget, and between which lengths
_LENGTHS = {"vector": (50, 2_000, 60_000), "frames": (75, 27_000, 135_000), "grid": (75, 4_000, 135_000)}
# Episodes of each score in the search. Of the many that are tried, the best of few episodes is often a lucky one.
_EPISODES = {"vector": 100, "frames": 30, "grid": 30}


@dataclass(frozen=True)
class Compressed:
    """
    What came of a search.

    :param claims: the tries on fresh starts
    :param text: the outcome in words
    """

    claims: Claims
    text: str

    @property
    def search(self) -> Search:
        """The search, with all students."""
        return self.claims.search

    @property
    def tries(self) -> Sequence[Claim]:
        """The tries on fresh starts; the last one holds, or none does."""
        return self.claims.tries

    @property
    def chosen(self) -> Claim | None:
        """The try that holds; None: there is none."""
        return self.claims.chosen


def compress(
    source: str | Path,
    output: str | Path,
    goal: Goal | None = None,
    plan: Plan | None = None,
    *,
    budget: float = 1_800.0,
    n_rounds: int | None = None,
    target: str = "onnx",
    backend: Backend | None = None,
    env_id: str | None = None,
    teacher_kwargs: Mapping[str, Any] | None = None,
    gym_packages: Sequence[str] = (),
    env_wrapper: Any = None,
    teacher_keys: Any = None,
    student_keys: Any = None,
    frame_stack: int | None = None,
    command: str = "",
    say: Callable[[str], Any] = print,
) -> Compressed:
    """
    Search the smallest student that keeps enough of an agent's return, and write it as a run folder and as an export.

    :param source: the agent, see ``load_teacher``
    :param output: folder of the outcome; a search that was killed goes on in its folder
    :param goal: what is asked for
    :param plan: how it is searched
    :param budget: wall-clock seconds of everything. At least one round of students and one try on fresh starts are made
    :param n_rounds: number of rounds, instead of as many as the budget has time for; it limits no tries then
    :param target: form of the export
    :param backend: what runs them; None: processes on this machine
    :param env_id: the environment; None: the agent's own
    :param teacher_kwargs: what an ONNX file does not say of itself (see ``load_teacher``)
    :param gym_packages: packages with environments or wrappers to import first
    :param env_wrapper: wrappers around those of the agent's run, as the Zoo's hyperparameters name them
    :param teacher_keys: the keys of Dict observations that the agent sees; None: those of its run
    :param student_keys: those that its students see; None: those that the agent saw in its run
    :param frame_stack: how many observations its students see at once; None: as many as the agent
    :param command: the command that repeats it, for the record
    :param say: shows a line of progress
    :return: the outcome
    :raises AgentError: the agent cannot be loaded
    :raises ValueError: it is none that can be compressed, a run has failed, or ONNX is the target and not installed
    :raises OSError: a file cannot be written, the folder holds somebody else's files of these names, or another process
        searches there
    """
    start = time.monotonic()
    output, goal, plan = Path(output), goal or Goal(), plan or Plan()
    problem = missing_extra("export", "onnx", "onnxruntime") if target == "onnx" else None
    if problem is not None:
        raise CompressError(f'{problem} --target c (target="c") needs neither onnx nor onnxruntime.')
    is_ours = has_json(output / TEACHER, ("sha256", "env", "recipe"))
    check_own_folder(output, (RECORD, FRONT, FIGURE, REPORT, STUDENT, EXPORT, TEACHER), is_ours)
    trust_packages(gym_packages)
    check_teacher_kwargs(teacher_kwargs, [source])
    teacher, env_id = load_where_it_plays(source, env_id, teacher_kwargs, device="cpu")
    if not isinstance(source, (str, Path)):
        raise CompressError(
            f"{teacher.source} is in memory, and runs of the search load their teacher by its name: save it and pass "
            'the path, or pass "package.module:function" of a function that makes it, with gym_packages.'
        )
    check_teacher(teacher)
    view = View(env_wrapper, teacher_keys, student_keys, frame_stack)
    seen = show(teacher, env_id, view)
    observed = students_space(teacher, env_id, seen)
    kind = kind_of(observed)
    facts = play_facts(teacher, env_id, seen, observed, output)
    statistics = facts["statistics"]
    space = Space(kind, observed, teacher.action_space, facts["temperature"], statistics is not None)
    _check_max_bytes(goal, space)
    if plan.n_timesteps is None:
        per_second, least, most = _LENGTHS[kind]
        plan = replace(plan, n_timesteps=int(min(max(per_second * budget, least), most)))
    if plan.n_episodes is None:
        plan = replace(plan, n_episodes=_EPISODES[kind])
    assert plan.n_timesteps is not None and plan.n_episodes is not None
    n_bytes = (
        plan.n_jobs
        * plan.n_timesteps
        * step_bytes(
            DistillationBuffer(1, observed, teacher.action_space, "cpu"),
            seen.recipe.frame_stack,
            in_memory=True,
        )
    )
    takes = f"about {duration_in_words(budget)}" if n_rounds is None else f"up to {counted(n_rounds, 'round')}"
    on_disk = plan.n_jobs * plan.n_students * space.file_bytes(space.largest)
    say(
        f"The search takes {takes}, with the episodes of its claim, {in_words(n_bytes)} of memory for what is played, "
        f"and up to about {in_words(on_disk)} on disk for the students of each round."
    )
    check_memory("The play of the runs", n_bytes, "Run fewer at the same time (-j), or take a shorter --budget.")
    check_room(output, "The students of a round", on_disk, "Make room, or name another folder with -o.")
    with only_search_in(output):
        before = time.monotonic()
        reference = score(teacher, env_id, plan.n_episodes, search_seed(plan))
        if reference.mean == 0:
            raise CompressError(f"{teacher.source} scores 0 in {env_id}, of which nothing is a per cent.")
        # A search that is repeated has as much time, so it counts what this took at first.
        now = time.monotonic()
        facts = {"seconds": now - start, "seconds_per_episode": (now - before) / plan.n_episodes, **facts}
        write_whole(output / TEACHER, to_json(facts))
        size = f"{teacher.n_bytes:,} bytes, " if teacher.n_bytes else ""
        say(f"The teacher: {size}{reference.mean:.2f} in {counted(plan.n_episodes, 'episode')} of {env_id}")
        search = Search(
            teacher,
            env_id,
            gym_packages,
            space,
            reference,
            goal,
            plan,
            output,
            view,
            seen,
            teacher_kwargs,
            statistics,
        )
        exports = Exports(output, search, target)
        claims = Claims(search, say, exports.write, facts["seconds_per_episode"])
        clock = Clock(budget, facts["seconds"], claims)
        goes_on = partial(_goes_on, clock=clock, n_rounds=n_rounds, say=say)
        kept: list[float] = []

        def seconds_left() -> float:
            # What was kept for these tries, before they change it
            kept.append(clock.kept)
            return clock.left if n_rounds is None else math.inf

        search_and_claim(claims, backend or run_locally(plan.n_jobs, 1, JOB), goes_on, seconds_left)
        if claims.chosen is None:
            exports.clear()
        outcome = Compressed(claims, describe(claims, exports))
        how = {
            "command": command,
            "budget": budget,
            "kept_for_the_claim": kept,
            "seconds_of_rounds": search.seconds,
            "seconds": clock.spent,
        }
        write_outputs(output, claims, exports, outcome.text, how)
    return outcome


def search_and_claim(
    claims: Claims,
    backend: Backend,
    goes_on: Callable[[Search, Sequence[Params]], bool],
    seconds_left: Callable[[], float],
) -> None:
    """
    Search, and try what was found on fresh starts; where none keeps enough, search on, while there is another round.

    :param claims: the tries of the search
    :param backend: what runs the search's students
    :param goes_on: see ``run_search``
    :param seconds_left: time that is left for tries
    """
    search = claims.search
    while not claims.is_over:
        n_before = search.n_rounds
        run_search(search, backend, goes_on)
        if search.n_rounds == n_before:
            break
        claims.make(seconds_left())


def _check_max_bytes(goal: Goal, space: Space) -> None:
    if goal.max_bytes is not None and goal.max_bytes < (smallest := space.n_bytes(space.smallest)):
        raise CompressError(
            f"--max-bytes {goal.max_bytes:,}: no student would be tried. The smallest one for these observations and "
            f"actions has {smallest:,} bytes: allow at least that many."
        )


@dataclass(frozen=True)
class Clock:
    """
    The time of a search.

    :param budget: seconds of everything
    :param setup: seconds until the teacher was scored
    :param claims: the tries of the search's students
    """

    budget: float
    setup: float
    claims: Claims

    @property
    def spent(self) -> float:
        """Seconds of everything so far."""
        return self.setup + sum(self.claims.search.seconds) + self.claims.seconds

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.budget - self.spent

    @property
    def kept(self) -> float:
        """Seconds that no further round may take: those of the next try on fresh starts, and of the export."""
        claimed = self.claims.expected_seconds
        least = 0.0 if self.claims.tries else _LEAST
        return min(max(claimed + _EXPORT * self.budget, least * self.budget), _MOST * self.budget)


def _goes_on(
    search: Search, chosen: Sequence[Params], *, clock: Clock, n_rounds: int | None, say: Callable[[str], Any]
) -> bool:
    """Whether another round fits, and the line that says so."""
    left, kept = clock.left, clock.kept
    fits = left - kept >= search.expected_seconds or not search.seconds
    if not (fits if n_rounds is None else search.n_rounds < n_rounds):
        return False
    good = search.good
    best = max(
        (each for each in search.students if each.pairs is not None), key=lambda each: each.percent, default=None
    )
    if good:
        so_far = f"best so far {good[0].n_bytes:,} bytes at {good[0].percent:.1f}%"
    else:
        so_far = "none keeps enough so far" + ("" if best is None else f", the best one {best.percent:.1f}%")
    left = max(left, 0.0)
    of_them = f"{min(kept, left) / 60:.1f} of them for the claim"
    time_left = f", {left / 60:.1f} min left, {of_them}" if n_rounds is None else ""
    what = f"{counted(len(chosen), 'student')} from {_described(search, chosen[-1])} to {_described(search, chosen[0])}"
    size = f"{what}, {counted(search.n_timesteps, 'step')}"
    say(f"round {search.n_rounds + 1}: {size}; {so_far}{time_left}")
    return True


def _described(search: Search, params: Params) -> str:
    return f"{search.space.n_bytes(params):,} bytes ({search.space.describe(params)})"
