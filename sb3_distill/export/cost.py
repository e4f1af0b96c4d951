"""What a decision costs: time, and the memory of a process that decides; with a table and a figure of both."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sb3_distill.results.figures import add_legend, fill_style, make_axes, scale_by_size
from sb3_distill.results.tables import format_table

MARKERS = {"float": "o", "integer": "s", "C": "D", "torch": "^"}
# Of bench.csv, in the order of the fields of ``BenchRow``
COLUMNS = ("folder", "policy", "kind", "bytes", "macs", "p50", "p99", "memory", "return")
N_WARM_UP = 20
# Programs that load a policy and use it
FILE_CODE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from runner import PolicyRunner
player = PolicyRunner(sys.argv[2])
shape, dtype = sys.argv[3].split(":")
observation = np.zeros([1, *map(int, shape.split(","))], dtype)
for _ in range(20):
    player.predict(observation)
"""
AGENT_CODE = """
import sys
import numpy as np
from sb3_distill import load_teacher
from sb3_distill.export.flat import flattened
player = flattened(load_teacher(sys.argv[2], device="cpu"))
shape, dtype = sys.argv[3].split(":")
observation = np.zeros([1, *map(int, shape.split(","))], dtype)
for _ in range(20):
    player.predict(observation)
"""
# Prints the peak memory of a program that it runs. It stands between that program and this process, because a process
# begins with the peak of the one that started it.
_LAUNCHER = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
# Bytes in which it is counted
_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class BenchRow:
    """
    What one policy costs and scores.

    :param folder: name of the export's folder, as far as it tells it apart from the others
    :param policy: name of the policy
    :param kind: "float", "integer", "C" or "torch"
    :param n_bytes: size of the file; of C, of its constants; of an agent under torch, of what acts
    :param n_macs: multiply-accumulate operations of one decision
    :param p50: median time of a decision, in microseconds
    :param p99: 99th percentile of the same
    :param memory: peak memory in megabytes; None of C, and where the system does not tell
    :param mean_return: mean return; None where no episodes were played
    """

    folder: str
    policy: str
    kind: str
    n_bytes: int
    n_macs: int
    p50: float
    p99: float
    memory: float | None
    mean_return: float | None


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


def peak_memory(code: str, folder: Path, policy: str, shape: Sequence[int], dtype: str) -> float | None:
    """
    :param code: a program that uses a policy
    :param folder: folder of the export
    :param policy: file or agent
    :param shape: shape of an observation
    :param dtype: its type
    :return: peak memory of the whole process, in megabytes; None if it failed
    """
    observation = f"{','.join(map(str, shape))}:{dtype}"
    command = [sys.executable, "-c", _LAUNCHER, "-c", code, str(folder), policy, observation]
    result = subprocess.run(command, capture_output=True, text=True)
    return int(result.stdout.split()[-1]) * _UNIT / 2**20 if result.returncode == 0 else None


def plot_returns(rows: Sequence[BenchRow]) -> Figure:
    """
    Figure 1 of Avé et al. 2022: a colour for each folder, a marker for each kind.

    :param rows: rows of ``bench_folder``, after episodes were played
    :return: size of the files against their return
    """
    figure, axes = make_axes("bytes", "mean return")
    rows = [row for row in rows if row.mean_return is not None]
    folders = list(dict.fromkeys(row.folder for row in rows))
    kinds = [kind for kind in MARKERS if any(row.kind == kind for row in rows)]
    styles = {folder: fill_style(index) for index, folder in enumerate(folders)}
    for row in rows:
        assert row.mean_return is not None
        axes.plot(row.n_bytes, row.mean_return, MARKERS[row.kind], **styles[row.folder], alpha=0.8)
    for folder in folders:
        axes.plot([], [], "o", **styles[folder], label=folder)
    for kind in kinds:
        axes.plot([], [], MARKERS[kind], color="grey", markerfacecolor="none", label=kind)
    scale_by_size(axes)
    add_legend(figure, below=True, ncols=4, fontsize="x-small")
    return figure


def format_rows(rows: Sequence[BenchRow]) -> str:
    """
    :param rows: rows of ``bench_folder``
    :return: a table
    """
    cells = [["policy", "bytes", "MACs", "p50 µs", "p99 µs", "peak MB", "return"]]
    for row in rows:
        cells.append(
            [
                row.policy,
                f"{row.n_bytes:,}",
                f"{row.n_macs:,}",
                f"{row.p50:.1f}" if row.kind == "C" else f"{row.p50:.0f}",
                f"{row.p99:.1f}" if row.kind == "C" else f"{row.p99:.0f}",
                "" if row.memory is None else f"{row.memory:.0f}",
                "" if row.mean_return is None else f"{row.mean_return:.2f}",
            ]
        )
    return format_table(cells, n_left=1)
