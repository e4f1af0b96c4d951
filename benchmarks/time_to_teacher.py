"""
CPU seconds, teacher steps and updates until a student plays like its teacher, beside other pipelines in one run.

python -m benchmarks.time_to_teacher --env PongNoFrameskip-v4 --teacher rl-trained-agents/dqn/PongNoFrameskip-v4_1 \\
    --students net1 net3 maxpool --seeds 0 1 2 --against plain imitation --margin 2 --json times.json -o times.png

The teacher's play is recorded once for each seed, and every pipeline learns from it. Counted are the CPU seconds of
training in a process of its own with one thread: reading the recording, updates, and compiling. Not counted: imports,
making the student, recording, and evaluation. BC gets the recording as arrays, and their reading is not counted.

What a student will do cannot be recorded before. Hence DAgger, and settings of ours in which the student acts
(rollout_policy:student, or linear), play games of their own. That play and the teacher's answers are not counted
either, as little as the teacher's recorded play is, but are printed beside the seconds that are counted.

After --first CPU seconds, and whenever --growth times as many have passed, the student plays the first 10 of 100
games, the same for all, with 5% random actions. It plays 30, and then all, as long as the mean plus two standard
errors is at least the bar: the teacher's mean over its 100 games less the margin. The student has reached its teacher
at the first of two evaluations in a row with all 100 games and a mean of at least the bar; the run ends there, after
--budget CPU seconds, or after its n_timesteps (BC passes over the recording again). A student whose last evaluation
is good, and whose run is over, plays 100 other games for the second. The runs take turns after every evaluation, so
that other load on the machine hits all.
"""

import argparse
import json
import multiprocessing as mp
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from benchmarks.crossing import CpuClock, Look, budgeted_returns, crossing

STUDENTS = ["net1", "net2", "net3", "net4", "net5", "maxpool", "default"]
EPSILON, N_FIRST, N_GAMES = 0.05, 10, 100
# Seed of the first game; no recording begins there
GAMES_SEED = 2_000_000


def returns_of(player: Any, task: Any, first: int, n_games: int, epsilon: float = EPSILON) -> list[float]:
    """The returns of games, which depend on their numbers alone."""
    from sb3_distill import load_teacher
    from sb3_distill.evaluation.environments import find_env_id, make_env_of
    from sb3_distill.evaluation.play import evaluate_paired

    agent = load_teacher(task.teacher, device="cpu")
    find_env_id(agent, task.env_id)
    make_env = lambda n_envs: make_env_of(agent, task.env_id, n_envs, native=None)  # noqa: E731
    return evaluate_paired(player, make_env, n_games, epsilon, GAMES_SEED + first, n_envs=20).returns


@dataclass
class Times:
    """
    When the students are evaluated.

    :param first: CPU seconds until the first evaluation
    :param growth: CPU seconds until an evaluation, as a multiple of those until the one before
    :param budget: CPU seconds of a run
    """

    first: float
    growth: float
    budget: float

    def after(self, seconds: float) -> float:
        """CPU seconds of the next evaluation."""
        due = self.first
        while due <= seconds:
            due *= self.growth
        return due


def worker(connection: Connection, pipeline: str, task: Any, times: Times, bar: float) -> None:
    """Train until the next evaluation for every message; send its ``Look``, and None when the run is over."""
    import torch as th

    from benchmarks.imitation_peers import MAKERS

    th.set_num_threads(1)
    learn = MAKERS[pipeline](task)
    clock = CpuClock()
    looks: list[Look] = []

    def has_crossed() -> bool:
        return crossing(looks, N_GAMES, bar) is not None

    def look(student: Any, n_timesteps: int, n_updates: int, offset: int = 0) -> bool:
        clock.stop()
        play = lambda first, n: returns_of(student, task, offset + first, n)  # noqa: E731
        returns = budgeted_returns(play, N_FIRST, N_GAMES, bar)
        mean = float(np.mean(returns))
        looks.append(Look(clock.seconds, n_timesteps, n_updates, len(returns), mean, clock.play_seconds))
        connection.send(looks[-1])
        connection.recv()
        clock.go()
        return clock.seconds < times.budget and not has_crossed()

    def on_progress(student: Any, n_timesteps: int, n_updates: int) -> bool:
        due = min(times.after(looks[-1].cpu_seconds if looks else 0), times.budget)
        return look(student, n_timesteps, n_updates) if n_updates > 0 and clock.seconds >= due else True

    connection.recv()
    clock.go()
    student, n_timesteps, n_updates = learn(on_progress, clock)
    # The student as it is at the end; where it is good, once more in other games
    if not has_crossed() and (not looks or looks[-1].n_updates < n_updates):
        look(student, n_timesteps, n_updates)
    if not has_crossed() and looks[-1].mean >= bar:
        look(student, n_timesteps, n_updates, offset=N_GAMES)
    connection.send(None)


@dataclass
class Run:
    """One pipeline with one student and one seed."""

    pipeline: str
    student: str
    seed: int
    looks: list[Look] = field(default_factory=list)


def run_all(runs: Sequence[tuple[Run, str, Any]], times: Times, bar: float) -> None:
    """Let the runs take turns until all are over. Students of one seed run beside each other, one at a time."""
    context = mp.get_context("spawn")
    open_runs = []
    for run, maker, task in runs:
        connection, child = context.Pipe()
        process = context.Process(target=worker, args=(child, maker, task, times, bar), daemon=True)
        process.start()
        child.close()
        open_runs.append((run, connection, process))
    try:
        while open_runs:
            for entry in list(open_runs):
                run, connection, process = entry
                try:
                    connection.send("go")
                    look = connection.recv()
                except (EOFError, BrokenPipeError):
                    name = f"{run.pipeline}, {run.student}, seed {run.seed}"
                    raise SystemExit(f"{name}: the process has ended; its error stands above.") from None
                if look is None:
                    process.join()
                    open_runs.remove(entry)
                else:
                    run.looks.append(look)
                    print(f"{run.pipeline}, {run.student}, seed {run.seed}: {look}", flush=True)
    finally:
        for _, _, process in open_runs:
            process.terminate()


def summary(runs: Sequence[Run], bar: float) -> str:
    """A line for every pipeline and student: medians over seeds, and the quotient with ours."""
    lines: list[str] = []
    ours: dict[str, float | None] = {}
    for pipeline, student in dict.fromkeys((run.pipeline, run.student) for run in runs):
        own = [run for run in runs if (run.pipeline, run.student) == (pipeline, student)]
        found = [look for run in own if (look := crossing(run.looks, N_GAMES, bar))]
        line = f"{pipeline}, {student}: {len(found)} of {len(own)} seeds reached the teacher"
        if len(found) == len(own):
            seconds = statistics.median(look.cpu_seconds for look in found)
            ours.setdefault(student, seconds if pipeline == "ours" else None)
            line += (
                f"; {seconds:.0f} CPU seconds, {statistics.median(look.n_timesteps for look in found):,.0f} teacher "
            )
            line += f"steps, {statistics.median(look.n_updates for look in found):,.0f} updates (medians)"
            if play := statistics.median(look.play_seconds for look in found):
                line += f"; {play:.0f} CPU seconds of play besides"
            if reference := ours[student]:
                line += f"; {seconds / reference:.2f} times ours"
        lines.append(line)
    return "\n".join(lines)


def draw(runs: Sequence[Run], teacher: float, path: Path) -> None:
    """Score over CPU seconds: the mean over seeds, from the lowest to the highest, and the teacher."""
    from matplotlib.ticker import LogLocator

    from sb3_distill.results.figures import add_legend, line_style, make_axes, save_figure

    figure, axes = make_axes("CPU seconds", "mean return")
    for index, (pipeline, student) in enumerate(dict.fromkeys((run.pipeline, run.student) for run in runs)):
        own = [run.looks for run in runs if (run.pipeline, run.student) == (pipeline, student) and run.looks]
        if not own:
            continue
        # Up to where the last seed ends; a run that has ended stays where it is.
        grid = np.geomspace(
            min(looks[0].cpu_seconds for looks in own), max(looks[-1].cpu_seconds for looks in own), 100
        )
        scores = np.array([np.interp(grid, [x.cpu_seconds for x in looks], [x.mean for x in looks]) for looks in own])
        style = line_style(index)
        axes.plot(grid, scores.mean(axis=0), label=f"{pipeline}, {student}", **style)
        axes.fill_between(grid, scores.min(axis=0), scores.max(axis=0), color=style["color"], alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.axhline(teacher, color="black", linestyle=":", label="teacher")
    add_legend(figure)
    save_figure(figure, path)


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """``key:value`` words as hyperparameters."""
    pairs = [word.partition(":") for word in words]
    if wrong := [key for key, colon, _ in pairs if not colon]:
        raise SystemExit(f"Hyperparameters are key:value, such as learning_rate:2e-3, not {wrong[0]}.")
    values = {key: yaml.safe_load(value) for key, _, value in pairs}
    # YAML reads 2e-3 as text
    return {k: float(v) if isinstance(v, str) and v[:1].isdigit() else v for k, v in values.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.time_to_teacher``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True)
    parser.add_argument("--teacher", required=True, help="run folder or zip")
    parser.add_argument("--students", nargs="+", default=["default"], choices=STUDENTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--against", nargs="*", default=[], help='plain, imitation, dagger; also "plain=key:value ..."')
    parser.add_argument("--params", nargs="+", default=[], help="hyperparameters of ours, key:value; n_timesteps too")
    parser.add_argument("--baseline", action="append", default=[], help='other settings of ours: "name=key:value ..."')
    parser.add_argument("--n-timesteps", type=int, default=54_000, help="steps of the teacher that are recorded")
    parser.add_argument("--first", type=float, default=20.0, help="CPU seconds until the first evaluation")
    parser.add_argument("--growth", type=float, default=1.5, help="CPU seconds of an evaluation over those of the last")
    parser.add_argument("--budget", type=float, default=900.0, help="CPU seconds of a run")
    parser.add_argument("--margin", type=float, help="points below the teacher (default: 5%% of teacher less random)")
    parser.add_argument("--recordings", type=Path, help="folder in which recordings are kept, one for each seed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="figure")
    args = parser.parse_args(argv)
    # Compile in the process whose seconds are counted, and with one thread
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    from benchmarks.imitation_peers import MAKERS
    from benchmarks.peers import Task, record
    from sb3_distill import load_teacher
    from sb3_distill.common.files import write_whole

    pipelines = {"ours": ("ours", settings_of(args.params))}
    for text in args.baseline:
        name, equals, words = text.partition("=")
        if not equals or name in (*pipelines, *MAKERS):
            raise SystemExit(f'--baseline is "name=key:value ..." with a name of its own, not "{text}".')
        pipelines[name] = ("ours", settings_of(words.split()))
    for text in args.against:
        name, _, words = text.partition("=")
        if name == "ours" or name not in MAKERS:
            raise SystemExit(f"--against is one or more of {', '.join(MAKERS)[6:]}, not {name}.")
        pipelines[name] = (name, settings_of(words.split()))
    with TemporaryDirectory() as temporary:
        folder = args.recordings or Path(temporary)
        task = Task(args.env, args.teacher, "default", args.n_timesteps, folder, 0)
        agent = load_teacher(args.teacher, device="cpu")
        teacher = float(np.mean(returns_of(agent, task, 0, N_GAMES)))
        margin = args.margin
        if margin is None:
            margin = 0.05 * abs(teacher - float(np.mean(returns_of(agent, task, 0, N_GAMES, epsilon=1.0))))
        bar = teacher - margin
        print(f"teacher {teacher:.2f}, bar {bar:.2f}")
        runs: list[Run] = []
        for seed in args.seeds:
            task = replace(task, seed=seed, recording=folder / f"seed{seed}")
            if not task.recording.exists():
                record(task)
            for student in args.students:
                own = replace(task, student=student)
                jobs = []
                for name, (maker, params) in pipelines.items():
                    # A schedule ends with the run, which may be shorter than the recording.
                    n_timesteps = int(params.get("n_timesteps", args.n_timesteps))
                    params = {key: value for key, value in params.items() if key != "n_timesteps"}
                    jobs.append((Run(name, student, seed), maker, replace(own, params=params, n_timesteps=n_timesteps)))
                run_all(jobs, Times(args.first, args.growth, args.budget), bar)
                runs += [run for run, _, _ in jobs]
                if args.json:
                    content = {"teacher": teacher, "margin": margin, "runs": [asdict(run) for run in runs]}
                    write_whole(args.json, json.dumps(content, indent=2) + "\n")
        print(summary(runs, bar))
        if args.output:
            draw(runs, teacher, args.output)


if __name__ == "__main__":
    main()
