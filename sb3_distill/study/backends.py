"""Where cells run: processes of this machine, or Ray's workers."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from sb3_distill.study.cells import LOG, MANIFEST, SETTINGS
from sb3_distill.study.files import StudyError

# An attempt that failed is followed by one more.
N_ATTEMPTS = 2


def attempt(key: str, settings: str, study: str, n_threads: int) -> str:
    """
    Run one cell in a process of its own and, once it is finished, give its folder its name: what has that name is
    whole, however often and wherever it was tried.

    :param key: the cell's
    :param settings: the cell as JSON
    :param study: the study's folder
    :param n_threads: threads of the process
    :return: nothing, or why it failed
    """
    finished = Path(study).resolve() / "cells" / key
    folder = finished.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
    folder.mkdir(parents=True)
    (folder / SETTINGS).write_text(settings)
    # The same bits everywhere: threads decide in which order sums are taken.
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
    result = subprocess.run(
        [sys.executable, "-m", "sb3_distill.study.cells", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0 or not (folder / MANIFEST).is_file():
        lines = (result.stderr.strip() or f"ended with status {result.returncode}").splitlines()
        failed = finished.parent.parent / "failed" / key
        failed.mkdir(parents=True, exist_ok=True)
        (failed / "stderr.txt").write_text(result.stderr)
        for name in (SETTINGS, LOG):
            if (folder / name).is_file():
                shutil.copy(folder / name, failed / name)
        shutil.rmtree(folder)
        return lines[-1]
    if finished.exists():
        shutil.rmtree(folder)
    else:
        folder.rename(finished)
    shutil.rmtree(finished.parent.parent / "failed" / key, ignore_errors=True)
    return ""


Job = tuple[str, str]
Backend = Callable[[Sequence[Job], Path], Iterator[tuple[str, str]]]


def run_locally(n_jobs: int, n_threads: int) -> Backend:
    """
    :param n_jobs: processes at the same time
    :param n_threads: threads of each
    :return: a backend
    """

    def run(jobs: Sequence[Job], study: Path) -> Iterator[tuple[str, str]]:
        with ThreadPoolExecutor(n_jobs) as pool:
            futures: dict[Future[str], str] = {
                pool.submit(_try_again, key, settings, str(study), n_threads): key for key, settings in jobs
            }
            for future in as_completed(futures):
                yield futures[future], future.result()

    return run


def _try_again(key: str, settings: str, study: str, n_threads: int) -> str:
    problem = ""
    for _ in range(N_ATTEMPTS):
        problem = attempt(key, settings, study, n_threads)
        if not problem:
            break
    return problem


def run_on_ray(address: str | None, n_jobs: int, n_threads: int) -> Backend:
    """
    :param address: of a running cluster; None starts Ray here
    :param n_jobs: processes at the same time, where Ray is started here
    :param n_threads: threads of each
    :return: a backend; the study's folder must be one that all workers see
    :raises StudyError: Ray is not installed
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError("Ray is not installed: pip install 'sb3-distill[ray]', or take --backend local.") from error

    def run(jobs: Sequence[Job], study: Path) -> Iterator[tuple[str, str]]:
        if not ray.is_initialized():
            # The number of processors is the cluster's own where there is one. Ray ends with this process.
            n_cpus = n_jobs * n_threads if address is None else None
            ray.init(address, num_cpus=n_cpus, include_dashboard=False, log_to_driver=False)
        # Ray runs a task again whose worker died; `attempt` leaves nothing half done behind.
        task = ray.remote(num_cpus=n_threads, max_retries=3)(_try_again)
        pending = {task.remote(key, settings, str(study.resolve()), n_threads): key for key, settings in jobs}
        while pending:
            (done,), _ = ray.wait(list(pending))
            try:
                problem = ray.get(done)
            except ray.exceptions.RayError as error:
                problem = str(error).splitlines()[0]
            yield pending.pop(done), problem

    return run
