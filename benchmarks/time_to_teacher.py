"""
CPU seconds, teacher steps and updates until a student plays like its teacher, beside other pipelines in one run.

python -m benchmarks.time_to_teacher --env PongNoFrameskip-v4 --teacher rl-trained-agents/dqn/PongNoFrameskip-v4_1 \\
    --students net1 net3 maxpool --seeds 0 1 2 --against plain imitation --margin 2 --json times.json -o times.png

The teacher's play is recorded once for each seed, and every pipeline learns from it. Counted are the CPU seconds of
training in a process of its own with one thread: reading the recording, updates, and compiling. Not counted: imports,
making the student, recording, and evaluation. BC gets the recording as arrays, and their reading is not counted.

After every --every CPU seconds the student plays the first 20 of 100 games, the same for all, with 5% random actions.
The other 80 follow only if the mean of the 20 plus two standard errors is at least the bar: the teacher's mean over
its 100 games less the margin. The student has reached its teacher at the first of two evaluations in a row with all 100
games and a mean of at least the bar; the run ends there, after --budget CPU seconds, or at the end of the recording
(BC passes over it again). The runs take turns after every evaluation, so that other load on the machine hits all.
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
EPSILON, N_FIRST, N_GAMES = 0.05, 20, 100
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
    return evaluate_paired(player, make_env, n_games, epsilon, GAMES_SEED + first).returns


def worker(connection: Connection, pipeline: str, task: Any, every: float, budget: float, bar: float) -> None:
    """Train until the next evaluation for every message; send its ``Look``, and None when the run is over."""
    import torch as th

    from benchmarks.peers import MAKERS

    th.set_num_threads(1)
    learn = MAKERS[pipeline](task)
    clock = CpuClock()
    looks: list[Look] = []

    def look(student: Any, n_timesteps: int, n_updates: int) -> bool:
        clock.stop()
        returns = budgeted_returns(lambda first, n: returns_of(student, task, first, n), N_FIRST, N_GAMES, bar)
        looks.append(Look(clock.seconds, n_timesteps, n_updates, len(returns), float(np.mean(returns))))
        connection.send(looks[-1])
        connection.recv()
        clock.go()
        return clock.seconds < budget and crossing(looks, N_GAMES, bar) is None

    def on_progress(student: Any, n_timesteps: int, n_updates: int) -> bool:
        # Until the end of this interval
        due = (int(looks[-1].cpu_seconds // every) + 1 if looks else 1) * every
        return look(student, n_timesteps, n_updates) if n_updates > 0 and clock.seconds >= due else True

    connection.recv()
    clock.go()
    model = learn(on_progress)
    is_open = clock.seconds < budget and crossing(looks, N_GAMES, bar) is None
    if is_open and model is not None:
        # The recording is over: the student as it is at the end
        look(model, model.num_timesteps, model._n_updates)
    connection.send(None)


@dataclass
class Run:
    """One pipeline with one student and one seed."""

    pipeline: str
    student: str
    seed: int
    looks: list[Look] = field(default_factory=list)


def run_all(runs: Sequence[tuple[Run, str, Any]], every: float, budget: float, bar: float) -> None:
    """Let the runs take turns until all are over. Students of one seed run beside each other, one at a time."""
    context = mp.get_context("spawn")
    open_runs = []
    for run, maker, task in runs:
        connection, child = context.Pipe()
        process = context.Process(target=worker, args=(child, maker, task, every, budget, bar), daemon=True)
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
            if reference := ours[student]:
                line += f"; {seconds / reference:.2f} times ours"
        lines.append(line)
    return "\n".join(lines)


def draw(runs: Sequence[Run], teacher: float, every: float, path: Path) -> None:
    """Score over CPU seconds: the mean over seeds, from the lowest to the highest, and the teacher."""
    from sb3_distill.results.figures import add_legend, line_style, make_axes, save_figure

    figure, axes = make_axes("CPU seconds", "mean return")
    for index, (pipeline, student) in enumerate(dict.fromkeys((run.pipeline, run.student) for run in runs)):
        own = [run.looks for run in runs if (run.pipeline, run.student) == (pipeline, student) and run.looks]
        if not own:
            continue
        # Up to where the last seed ends; a run that has ended stays where it is.
        grid = np.arange(1, max(looks[-1].cpu_seconds for looks in own) / every + 1) * every
        scores = np.array([np.interp(grid, [x.cpu_seconds for x in looks], [x.mean for x in looks]) for looks in own])
        style = line_style(index)
        axes.plot(grid, scores.mean(axis=0), label=f"{pipeline}, {student}", **style)
        axes.fill_between(grid, scores.min(axis=0), scores.max(axis=0), color=style["color"], alpha=0.2, linewidth=0)
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
    parser.add_argument("--against", nargs="*", default=[], choices=["plain", "imitation"])
    parser.add_argument("--params", nargs="+", default=[], help="hyperparameters of ours, key:value")
    parser.add_argument("--baseline", action="append", default=[], help='other settings of ours: "name=key:value ..."')
    parser.add_argument("--n-timesteps", type=int, default=54_000, help="steps of the teacher")
    parser.add_argument("--every", type=float, default=30.0, help="CPU seconds between evaluations")
    parser.add_argument("--budget", type=float, default=900.0, help="CPU seconds of a run")
    parser.add_argument("--margin", type=float, help="points below the teacher (default: 5%% of teacher less random)")
    parser.add_argument("--recordings", type=Path, help="folder in which recordings are kept, one for each seed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="figure")
    args = parser.parse_args(argv)
    # Compile in the process whose seconds are counted, and with one thread
    os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    from benchmarks.peers import Task, record
    from sb3_distill import load_teacher

    settings = {"ours": settings_of(args.params)}
    for text in args.baseline:
        name, equals, words = text.partition("=")
        if not equals or name in (*settings, "plain", "imitation"):
            raise SystemExit(f'--baseline is "name=key:value ..." with a name of its own, not "{text}".')
        settings[name] = settings_of(words.split())
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
                jobs = [(Run(name, student, seed), "ours", replace(own, params=p)) for name, p in settings.items()]
                jobs += [(Run(name, student, seed), name, own) for name in args.against]
                run_all(jobs, args.every, args.budget, bar)
                runs += [run for run, _, _ in jobs]
        print(summary(runs, bar))
        if args.json:
            from sb3_distill.common.files import write_whole

            content = {"teacher": teacher, "margin": margin, "runs": [asdict(run) for run in runs]}
            write_whole(args.json, json.dumps(content, indent=2) + "\n")
        if args.output:
            draw(runs, teacher, args.every, args.output)


if __name__ == "__main__":
    main()
