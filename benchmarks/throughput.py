"""Throughput and memory of policy distillation on Atari, compared with a plain SB3 pipeline that does the same work.

``python -m benchmarks.throughput`` runs each pipeline in its own process, alternates between them, and prints steps and
updates per second, their ratio, resident memory, and the share of the upper bound ``1 / (t_env + t_teacher +
t_update)`` that our pipeline reaches. Absolute times depend on the machine, so compare only the ratios.
"""

import argparse
import json
import multiprocessing as mp
import os
import resource
import statistics
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

N_ENVS = 8
# 10,000 minibatches per 54,000 steps (Rusu et al. 2015): 40 per 27 steps of 8 environments
TRAIN_FREQ, GRADIENT_STEPS = 27, 40
STEPS_PER_ROLLOUT = TRAIN_FREQ * N_ENVS
STUDENTS: dict[str, dict[str, Any]] = {
    "net1": {"policy": "Net1Policy", "channels": (16, 32, 32), "features_dim": 256},
    "net3": {"policy": "Net3Policy", "channels": (16, 16, 16), "features_dim": 64},
}


@dataclass
class Options:
    """The settings that both pipelines share."""

    env_id: str
    teacher: str
    student: str
    n_steps: int
    buffer_size: int


def make_ours(options: Options) -> Any:
    """Our pipeline: ``PolicyDistillation`` with the arguments of the Zoo's configuration."""
    from benchmarks.plain_sb3 import make_plain_env
    from sb3_distill import PolicyDistillation

    return PolicyDistillation(
        STUDENTS[options.student]["policy"],
        make_plain_env(options.env_id, N_ENVS),
        teacher=options.teacher,
        buffer_size=options.buffer_size,
        learning_starts=STEPS_PER_ROLLOUT,
        train_freq=TRAIN_FREQ,
        gradient_steps=GRADIENT_STEPS,
        compile_update=True,
        n_teacher_episodes=0,
        seed=0,
        device="cpu",
    )


def make_plain(options: Options) -> Any:
    """The baseline: the same work with SB3's own classes."""
    from benchmarks.plain_sb3 import PlainCNN, PlainDistillation, make_plain_env
    from sb3_distill import load_teacher

    student = STUDENTS[options.student]
    kwargs = {"channels": student["channels"], "features_dim": student["features_dim"]}
    return PlainDistillation(
        make_plain_env(options.env_id, N_ENVS),
        # load_teacher only reads the weights; the policy is of SB3's own class.
        load_teacher(options.teacher, device="cpu").policy,
        learning_rate=1e-3,
        buffer_size=options.buffer_size,
        learning_starts=STEPS_PER_ROLLOUT,
        batch_size=32,
        train_freq=TRAIN_FREQ,
        gradient_steps=GRADIENT_STEPS,
        policy_kwargs={"net_arch": [], "features_extractor_class": PlainCNN, "features_extractor_kwargs": kwargs},
        seed=0,
        device="cpu",
    )


def measure_parts(model: Any) -> dict[str, float]:
    """Seconds per environment step of the three parts of our pipeline, each measured alone and with all cores."""
    import numpy as np
    from stable_baselines3.common.utils import obs_as_tensor

    def seconds(function: Any, n_calls: int) -> float:
        function()
        start = time.perf_counter()
        for _ in range(n_calls):
            function()
        return (time.perf_counter() - start) / n_calls

    obs = obs_as_tensor(model.env.reset(), model.device)
    rng = np.random.default_rng(0)
    n_actions = model.action_space.n
    return {
        "t_env": seconds(lambda: model.env.step(rng.integers(n_actions, size=N_ENVS)), 300) / N_ENVS,
        "t_teacher": seconds(lambda: model._teacher.answer(obs)[0].preferences.argmax(dim=1).numpy(), 300) / N_ENVS,
        "t_update": seconds(lambda: model.train(GRADIENT_STEPS, 32), 10) / STEPS_PER_ROLLOUT,
    }


def worker(connection: Connection, pipeline: str, options: Options) -> None:
    """Run one pipeline: train for a chunk of steps (or measure the parts) for every message, until None arrives."""
    model = make_ours(options) if pipeline == "ours" else make_plain(options)
    model.learn(2 * STEPS_PER_ROLLOUT)
    connection.send("ready")
    while (command := connection.recv()) is not None:
        if command == "parts":
            connection.send(measure_parts(model))
            continue
        n_updates = model._n_updates
        start = time.perf_counter()
        model.learn(options.n_steps, reset_num_timesteps=False)
        elapsed = time.perf_counter() - start
        connection.send((elapsed, model._n_updates - n_updates))
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


class Pipeline:
    """A worker process and the connection to it."""

    def __init__(self, name: str, options: Options) -> None:
        context = mp.get_context("spawn")
        self.connection, child = context.Pipe()
        self.process = context.Process(target=worker, args=(child, name, options))
        self.process.start()
        # Close our copy of the worker's end: otherwise recv() would wait forever if the worker dies.
        child.close()
        self.connection.recv()

    def ask(self, command: str | None) -> Any:
        """Send a command and wait for the answer."""
        self.connection.send(command)
        return self.connection.recv()

    def finish(self) -> int:
        """End the process, and return its peak resident memory in bytes."""
        rss: int = self.ask(None)
        self.process.join()
        return rss


def compare(options: Options, repeats: int) -> dict[str, Any]:
    """Run both pipelines alternately and return the measurements of both."""
    plain, ours = Pipeline("plain", options), Pipeline("ours", options)
    rounds = []
    for _ in range(repeats):
        plain_seconds, plain_updates = plain.ask("chunk")
        our_seconds, our_updates = ours.ask("chunk")
        assert plain_updates == our_updates
        parts = ours.ask("parts")
        rounds.append((plain_seconds, our_seconds, our_updates, parts))

    def median(figure: Any) -> float:
        return statistics.median(figure(*entry) for entry in rounds)

    n_steps = options.n_steps
    parts = {key: median(lambda a, b, u, p, key=key: p[key]) for key in ("t_env", "t_teacher", "t_update")}
    return {
        "student": options.student,
        "plain_steps_per_second": median(lambda a, b, u, p: n_steps / a),
        "steps_per_second": median(lambda a, b, u, p: n_steps / b),
        "plain_updates_per_second": median(lambda a, b, u, p: u / a),
        "updates_per_second": median(lambda a, b, u, p: u / b),
        "ratio": median(lambda a, b, u, p: a / b),
        "ratios": [a / b for a, b, _, _ in rounds],
        **parts,
        "bound_share": median(lambda a, b, u, p: n_steps / b * sum(p.values())),
        "plain_rss_bytes": plain.finish(),
        "rss_bytes": ours.finish(),
    }


def print_row(figures: dict[str, Any]) -> None:
    """Print the measurements of one student as text."""
    mega = 1 / 2**20
    print(
        f"{figures['student']}: plain SB3 {figures['plain_steps_per_second']:.0f} steps/s, "
        f"{figures['plain_updates_per_second']:.0f} updates/s, {figures['plain_rss_bytes'] * mega:.0f} MiB; "
        f"ours {figures['steps_per_second']:.0f} steps/s, {figures['updates_per_second']:.0f} updates/s, "
        f"{figures['rss_bytes'] * mega:.0f} MiB; ratio {figures['ratio']:.2f} "
        f"({min(figures['ratios']):.2f} to {max(figures['ratios']):.2f})"
    )
    print(
        f"  per step: environment {figures['t_env'] * 1e3:.3f} ms, teacher {figures['t_teacher'] * 1e3:.3f} ms, "
        f"updates {figures['t_update'] * 1e3:.3f} ms; ours reaches {figures['bound_share']:.0%} of the bound "
        "1 / (t_env + t_teacher + t_update)"
    )


def add_teacher_argument(parser: argparse.ArgumentParser) -> None:
    """``--teacher``, with the Zoo's Pong agent as default."""
    folder = os.environ.get("RL_TRAINED_AGENTS", "rl-trained-agents")
    parser.add_argument("--teacher", default=f"{folder}/dqn/PongNoFrameskip-v4_1", help="run folder or zip")


def main() -> None:
    """Entry point of ``python -m benchmarks.throughput``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--env", default="PongNoFrameskip-v4")
    add_teacher_argument(parser)
    parser.add_argument("--n-steps", type=int, default=20 * STEPS_PER_ROLLOUT, help="environment steps of one chunk")
    parser.add_argument("--repeats", type=int, default=5, help="chunks of each pipeline")
    parser.add_argument("--buffer-size", type=int, default=54_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()

    results = []
    for student in args.students:
        options = Options(args.env, args.teacher, student, args.n_steps, args.buffer_size)
        results.append(compare(options, args.repeats))
        print_row(results[-1])
    if args.json:
        from sb3_distill.common.files import write_whole

        write_whole(args.json, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
