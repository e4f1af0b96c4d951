"""
What an update of an image student costs: as it was, with freed memory kept for the next minibatch, and with frames that
are brought into the layout of the convolutions while they are bytes, too.

    python -m benchmarks.kept_memory --json kept_memory.json

Each measurement has a process of its own with one thread, and the three kinds take turns. CPU seconds are those of the
process; a page fault is the kernel handing out 4 KiB, filled with zeros.
"""

import argparse
import json
import multiprocessing as mp
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

N_WARM_UP, N_UPDATES = 5, 20
KINDS = ("given back", "kept", "kept, bytes laid out")


def measure(policy_name: str, batch_size: int, kind: str) -> tuple[float, float]:
    """CPU milliseconds and page faults of an update, in this process."""
    import numpy as np
    import torch as th
    from gymnasium import spaces

    from sb3_distill import Muon
    from sb3_distill.base import students
    from sb3_distill.networks.policies import STUDENT_POLICIES

    th.set_num_threads(1)
    if kind == "given back":
        students.keep_freed_memory = lambda: False
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    policy = STUDENT_POLICIES[policy_name](space, spaces.Discrete(6), lambda _: 1e-3, optimizer_class=Muon)
    student = students.Student(policy, None, bf16=False)
    answer: Any = student.answer if kind == "kept, bytes laid out" else policy.answer
    images = th.randint(0, 256, (batch_size, 4, 84, 84), dtype=th.uint8)
    seconds: list[float] = []
    for number in range(N_WARM_UP + N_UPDATES):
        if number == N_WARM_UP:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.process_time()
        student.update(answer(images).preferences.square().mean())
        seconds.append(time.process_time() - start)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return 1000 * statistics.median(seconds[N_WARM_UP:]), faults / N_UPDATES


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m benchmarks.kept_memory``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", default=["Net1Policy", "Net3Policy"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    rows = []
    for policy_name in args.policies:
        for batch_size in args.batch_sizes:
            found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
            for _ in range(args.rounds):
                for kind, measured in found.items():
                    with mp.get_context("spawn").Pool(1) as pool:
                        measured.append(pool.apply(measure, (policy_name, batch_size, kind)))
            medians = {kind: [statistics.median(column) for column in zip(*found[kind], strict=True)] for kind in KINDS}
            first = medians[KINDS[0]][0]
            texts = [f"{kind} {ms:.1f} ms ({ms / first:.2f}), {n:.0f} faults" for kind, (ms, n) in medians.items()]
            print(f"{policy_name}, {batch_size} frames: {'; '.join(texts)}", flush=True)
            kinds = {kind: {"ms": ms, "page_faults": faults} for kind, (ms, faults) in medians.items()}
            rows.append({"policy": policy_name, "batch_size": batch_size, **kinds})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
