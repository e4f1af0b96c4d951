"""
Kills runs at random moments, looks at what they have left, and starts them again until they are complete.

python -m benchmarks.crash --kills 200 --seed 0
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch as th

import sb3_distill_zoo
from benchmarks.crash_jobs import Job, make_jobs
from benchmarks.crash_report import Report, check_files
from sb3_distill.base.resume.resuming import RUN_STATE


def begin(job: Job, root: Path, log: Path) -> int:
    """Start a job in a process group of its own, forked from this process, which has imported everything."""
    root.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    status = 0
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        th.set_num_threads(1)
        job.start(root)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
        status = 70
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a process, None if it has not ended after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def processes_of(root: Path) -> list[str]:
    """Other processes whose command line names the folder."""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True).stdout
    return [line.strip() for line in shown.splitlines() if str(root) in line and int(line.split()[0]) != os.getpid()]


def kill_until_complete(
    job: Job, root: Path, expected: Any, seconds: float, n_kills: int, rng: random.Random, report: Report
) -> None:
    """Kill a job so many times at random moments, then let it come to its end."""
    log = root.with_suffix(".log")
    known: set[Path] = set()
    for attempt in range(n_kills + 20):
        pid = begin(job, root, log)
        status = wait(pid, rng.uniform(0.05, 0.6) * seconds if attempt < n_kills else 600)
        if status is None:
            report.kills[job.name] += 1
            if job.kills_leader:
                os.kill(pid, signal.SIGKILL)
            else:
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            end = time.monotonic() + 20
            while (left := processes_of(root)) and time.monotonic() < end:
                time.sleep(0.1)
            for process in left:
                report.left_behind.append(f"{job.name}: {process[:120]}")
                os.kill(int(process.split()[0]), signal.SIGKILL)
        whole = check_files(root, job.name, report)
        # States are removed at the end of a run, and a study runs a cell that was not finished anew.
        gone = {path for path in known - whole if path.name != RUN_STATE and not job.kills_leader}
        report.lost += [f"{job.name}: {path.name}" for path in gone]
        known = whole
        if status is not None and attempt >= n_kills - 1:
            if job.result(root) is not None:
                break
            if status != 0:
                report.different.append(f"{job.name}: exit status {status}, see {log}")
                return
        elif status == 0 and job.result(root) is not None:
            # It was faster than the kill: once more.
            shutil.rmtree(root)
            known = set()
    found = job.result(root)
    if found == expected:
        report.same[job.name] += 1
    else:
        report.different.append(f"{job.name}: {str(found)[:100]} instead of {str(expected)[:100]}")
    stray = [str(path.relative_to(root)) for path in root.rglob("*.partial")]
    report.broken += [f"{job.name}: {name} is left" for name in stray]


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: the command line
    :return: exit status: 0 if nothing was broken, lost, left behind or different
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--per-run", type=int, default=4, help="kills of one run, before it comes to its end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", help="names of jobs (default: all)")
    args = parser.parse_args(argv)
    th.set_num_threads(1)
    sb3_distill_zoo.add_finder()
    import rl_zoo3.train  # noqa: F401

    rng = random.Random(args.seed)
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jobs = make_jobs(folder, args.jobs)
        expected, seconds = {}, {}
        for job in jobs:
            root = folder / f"{job.name}-whole"
            start = time.monotonic()
            status = wait(begin(job, root, root.with_suffix(".log")), 900)
            seconds[job.name] = time.monotonic() - start
            expected[job.name] = job.result(root)
            if status != 0 or expected[job.name] is None:
                print(root.with_suffix(".log").read_text()[-3000:])
                raise SystemExit(f"{job.name} does not run: exit status {status}")
            print(f"{job.name}: {seconds[job.name]:.1f} s", flush=True)
        index = 0
        while sum(report.kills.values()) < args.kills:
            job = jobs[index % len(jobs)]
            n_kills = min(args.per_run, args.kills - sum(report.kills.values()))
            root = folder / f"{job.name}-{index}"
            kill_until_complete(job, root, expected[job.name], seconds[job.name], n_kills, rng, report)
            shutil.rmtree(root, ignore_errors=True)
            index += 1
            print(f"{sum(report.kills.values())} kills", flush=True)
    print(report)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
