"""Overhead of three students: ``RealTimeDistillDQN`` compared with SB3's DQN on the same Atari game.

``python -m benchmarks.rtpd`` runs each pipeline in its own process, alternates between them, and prints the ratio of
their wall-clock times.
"""

import argparse
import json
import multiprocessing as mp
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

STUDENTS = ["Net1Policy", "Net2Policy", "Net3Policy"]


def make(pipeline: str, env_id: str) -> Any:
    """The model of one pipeline, with the arguments of the Zoo's configuration for Atari."""
    from stable_baselines3 import DQN

    from benchmarks.plain_sb3 import make_plain_env
    from sb3_distill import RealTimeDistillDQN

    kwargs: dict[str, Any] = {
        "buffer_size": 10_000,
        "learning_starts": 500,
        "train_freq": 4,
        "gradient_steps": 8,
        "seed": 0,
        "device": "cpu",
    }
    if pipeline == "dqn":
        return DQN("CnnPolicy", make_plain_env(env_id, 8), **kwargs)
    students = STUDENTS if pipeline == "rtpd" else None
    return RealTimeDistillDQN("CnnPolicy", make_plain_env(env_id, 8), students, eval_freq=-1, **kwargs)


def worker(connection: Connection, pipeline: str, env_id: str) -> None:
    """Run one pipeline: train for every number of steps that arrives over the connection, until None arrives."""
    model = make(pipeline, env_id)
    model.learn(800)
    connection.send("ready")
    while (n_steps := connection.recv()) is not None:
        start = time.perf_counter()
        model.learn(n_steps, reset_num_timesteps=False)
        connection.send(time.perf_counter() - start)
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Entry point of ``python -m benchmarks.rtpd``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="PongNoFrameskip-v4")
    parser.add_argument("--n-steps", type=int, default=640, help="environment steps of one chunk")
    parser.add_argument("--repeats", type=int, default=5, help="chunks of each pipeline")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()

    context = mp.get_context("spawn")
    connections, processes = {}, []
    for pipeline in ("dqn", "teacher", "rtpd"):
        connections[pipeline], child = context.Pipe()
        processes.append(context.Process(target=worker, args=(child, pipeline, args.env)))
        processes[-1].start()
        child.close()
        connections[pipeline].recv()
    seconds: dict[str, list[float]] = {pipeline: [] for pipeline in connections}
    for _ in range(args.repeats):
        for pipeline, connection in connections.items():
            connection.send(args.n_steps)
            seconds[pipeline].append(connection.recv())
    figures: dict[str, Any] = {}
    for pipeline, connection in connections.items():
        connection.send(None)
        figures[f"{pipeline}_rss_bytes"] = connection.recv()
        figures[f"{pipeline}_steps_per_second"] = args.n_steps / statistics.median(seconds[pipeline])
    for pipeline in ("teacher", "rtpd"):
        ratios = [ours / plain for ours, plain in zip(seconds[pipeline], seconds["dqn"], strict=True)]
        figures[f"{pipeline}_ratio"] = statistics.median(ratios)
        figures[f"{pipeline}_ratios"] = ratios
    for process in processes:
        process.join()
    print(
        f"SB3's DQN {figures['dqn_steps_per_second']:.0f} steps/s; our teacher alone "
        f"{figures['teacher_steps_per_second']:.0f} steps/s, {figures['teacher_ratio']:.2f} times the wall-clock; with "
        f"{', '.join(STUDENTS)} {figures['rtpd_steps_per_second']:.0f} steps/s, {figures['rtpd_ratio']:.2f} times "
        f"({min(figures['rtpd_ratios']):.2f} to {max(figures['rtpd_ratios']):.2f})"
    )
    if args.json:
        from sb3_distill.common.files import write_whole

        write_whole(args.json, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
