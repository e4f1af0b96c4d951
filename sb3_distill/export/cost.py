"""What a decision costs: time, and the memory of a process that decides."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
