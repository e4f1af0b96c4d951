"""
What an update of an image student costs with freed memory kept for the next minibatch, and without.

    python -m benchmarks.kept_memory --json kept_memory.json

Each measurement has a process of its own with one thread, and the two kinds take turns. CPU seconds are those of the
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

N_WARM_UP, N_UPDATES = 5, 20


def measure(policy_name: str, batch_size: int, keeps: bool) -> tuple[float, float]:
    """CPU milliseconds and page faults of an update, in this process."""
    import numpy as np
    import torch as th
    from gymnasium import spaces

    from sb3_distill import Muon
    from sb3_distill.base import students
    from sb3_distill.networks.policies import STUDENT_POLICIES

    th.set_num_threads(1)
    if not keeps:
        students.keep_freed_memory = lambda: False
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    policy = STUDENT_POLICIES[policy_name](space, spaces.Discrete(6), lambda _: 1e-3, optimizer_class=Muon)
    student = students.Student(policy, None, bf16=False)
    images = th.randint(0, 256, (batch_size, 4, 84, 84), dtype=th.uint8)
    seconds: list[float] = []
    for number in range(N_WARM_UP + N_UPDATES):
        if number == N_WARM_UP:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.process_time()
        student.update(policy.q_net(images).square().mean())
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
            found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
            for _ in range(args.rounds):
                for keeps, measured in found.items():
                    with mp.get_context("spawn").Pool(1) as pool:
                        measured.append(pool.apply(measure, (policy_name, batch_size, keeps)))
            (kept, kept_faults), (given_back, faults) = (
                [statistics.median(column) for column in zip(*found[keeps], strict=True)] for keeps in (True, False)
            )
            print(
                f"{policy_name}, {batch_size} frames: {given_back:.1f} ms and {faults:.0f} page faults given back, "
                f"{kept:.1f} ms and {kept_faults:.0f} kept; {kept / given_back:.2f}",
                flush=True,
            )
            rows.append(
                {
                    "policy": policy_name,
                    "batch_size": batch_size,
                    "given_back": {"ms": given_back, "page_faults": faults},
                    "kept": {"ms": kept, "page_faults": kept_faults},
                }
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
