"""``sb3-distill export bench``: latency, size and work of exported policies, beside the same agents under torch."""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_distill.common.archive import TeacherError
from sb3_distill.common.figures import COLOURS, make_axes, save_figure
from sb3_distill.common.layers import acting_modules
from sb3_distill.common.tables import format_table
from sb3_distill.common.teachers import Teacher, load_teacher
from sb3_distill.export.export import FLOAT_FILE, INTEGER_FILE
from sb3_distill.export.runner import PolicyRunner

N_WARM_UP = 20


def count_macs(agent: Teacher, observation: np.ndarray) -> int:
    """
    :param agent: a loaded agent
    :param observation: a batch of one raw observation
    :return: multiplications of one forward pass of the part that acts
    """
    total = 0

    def count(layer: Any, inputs: Any, output: th.Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * (output.shape[2] * output.shape[3] if output.ndim == 4 else 1)

    layers = [
        layer
        for module in acting_modules(agent)
        for layer in module.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    handles = [layer.register_forward_hook(count) for layer in layers]
    agent.predict(observation)
    for handle in handles:
        handle.remove()
    return total


def latencies(function: Callable[[], Any], n_runs: int) -> tuple[float, float]:
    """
    :param function: one inference
    :param n_runs: how many are timed
    :return: median and 99th percentile, in microseconds
    """
    times = []
    for run in range(N_WARM_UP + n_runs):
        start = time.perf_counter()
        function()
        if run >= N_WARM_UP:
            times.append(1e6 * (time.perf_counter() - start))
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))


def bench_folder(folder: Path, n_runs: int) -> list[dict[str, Any]]:
    """
    :param folder: what ``sb3-distill export`` wrote
    :param n_runs: inferences that are timed
    :return: one row per file, and one for the agent under torch where it is still at hand
    :raises OSError: the folder holds no export
    """
    description = json.loads((folder / "policy.json").read_text())
    shape, dtype = description["observation"]["shape"], description["observation"]["dtype"]
    rng = np.random.default_rng(0)
    observation = (rng.random((1, *shape)) * (255 if dtype == "uint8" else 1)).astype(dtype)
    agent: Teacher | None = None
    try:
        agent = load_teacher(description["source"], device="cpu")
    except (TeacherError, OSError):
        print(f"{folder}: {description['source']} is not at hand, so torch is not measured.", file=sys.stderr)
    macs = None if agent is None else count_macs(agent, observation)
    rows = []
    for file in (FLOAT_FILE, INTEGER_FILE):
        if (folder / file).is_file():
            player = PolicyRunner(folder / file)
            median, tail = latencies(lambda player=player: player.predict(observation), n_runs)  # type: ignore[misc]
            size = (folder / file).stat().st_size
            rows.append({"policy": f"{folder.name}/{file}", "bytes": size, "macs": macs, "p50": median, "p99": tail})
    if agent is not None:
        loaded = agent
        median, tail = latencies(lambda: loaded.predict(observation), n_runs)
        name = f"{folder.name} under torch"
        rows.append({"policy": name, "bytes": agent.stored_bytes, "macs": macs, "p50": median, "p99": tail})
    return rows


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind ``export bench``
    :return: exit status
    """
    parser = argparse.ArgumentParser(prog="sb3-distill export bench", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="what `sb3-distill export` wrote")
    parser.add_argument("--n-runs", type=int, default=500, help="inferences that are timed (default: 500)")
    parser.add_argument("-o", "--output", type=Path, help="folder for bench.csv and bench.png")
    args = parser.parse_args(argv)
    th.set_num_threads(1)
    try:
        rows = [row for folder in args.folders for row in bench_folder(folder, args.n_runs)]
    except (OSError, KeyError, ValueError) as error:
        print(f"sb3-distill export bench: no export there: {error}", file=sys.stderr)
        return 1
    cells = [["policy", "bytes", "MACs", "p50 µs", "p99 µs"]]
    for row in rows:
        macs = "" if row["macs"] is None else f"{row['macs']:,}"
        cells.append([row["policy"], f"{row['bytes']:,}", macs, f"{row['p50']:.0f}", f"{row['p99']:.0f}"])
    print(format_table(cells, n_left=1))
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        with (args.output / "bench.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        figure, axes = make_axes("bytes", "median latency at batch 1, µs")
        for index, row in enumerate(rows):
            axes.plot(row["bytes"], row["p50"], "o", color=COLOURS[index % len(COLOURS)], label=row["policy"])
        axes.set_xscale("log")
        axes.set_yscale("log")
        figure.legend(loc="outside lower center", frameon=False, fontsize="x-small")
        save_figure(figure, args.output / "bench.png")
    return 0
