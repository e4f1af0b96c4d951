"""Where cells run: processes of this machine, or Ray's workers."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from sb3_distill.study.cell import StudyError
from sb3_distill.study.manifest import MANIFEST, PROBLEM, SETTINGS

# An attempt that failed is followed by one more.
N_ATTEMPTS = 2
# Seconds between two looks at whether the study was interrupted
_PATIENCE = 0.2


def run_process(command: Sequence[str], environment: dict[str, str], stop: threading.Event) -> tuple[int, str]:
    """
    Run a process in a group of its own: Ctrl-C reaches the study alone, which then ends the whole group. The Zoo would
    take it for the end of a training that is to be saved.

    :param command: what to run
    :param environment: its environment variables
    :param stop: set where the study is interrupted
    :return: exit status, and what went to the standard error
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    while True:
        try:
            _, stderr = process.communicate(timeout=_PATIENCE)
            return process.returncode, stderr
        except subprocess.TimeoutExpired:
            if stop.is_set():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def describe_death(status: int) -> str:
    """
    :param status: exit status of a process that a signal has ended
    :return: which signal
    """
    name = signal.Signals(-status).name
    hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"killed by signal {-status} ({name}){hint}"


def attempt(key: str, settings: str, study: str, n_threads: int, stop: threading.Event) -> str:
    """
    Run one cell in a process of its own and, once it is finished, give its folder its name: what has that name is
    whole, however often and wherever it was tried.

    :param key: the cell's
    :param settings: the cell as JSON
    :param study: the study's folder
    :param n_threads: threads of the process
    :param stop: set where the study is interrupted
    :return: nothing, or why it failed
    """
    finished, failed = (Path(study).resolve() / place / key for place in ("cells", "failed"))
    folder = finished.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
    folder.mkdir(parents=True)
    (folder / SETTINGS).write_text(settings)
    # The same bits everywhere: threads decide in which order sums are taken.
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
    command = [sys.executable, "-m", "sb3_distill.study.job", str(folder)]
    status, stderr = run_process(command, environment, stop)
    if stop.is_set() and not (folder / MANIFEST).is_file():
        shutil.rmtree(folder)
        return "interrupted"
    if status != 0 or not (folder / MANIFEST).is_file():
        said = (stderr.strip() or f"ended with status {status}").splitlines()[-1]
        problem = describe_death(status) if status < 0 else said
        (folder / "stderr.txt").write_text(stderr)
        (folder / PROBLEM).write_text(problem + "\n")
        # What was trained before an evaluation that failed stays there too.
        shutil.rmtree(failed, ignore_errors=True)
        failed.parent.mkdir(exist_ok=True)
        folder.rename(failed)
        return problem
    if finished.exists():
        shutil.rmtree(folder)
    else:
        folder.rename(finished)
    shutil.rmtree(failed, ignore_errors=True)
    return ""


Job = tuple[str, str]
Backend = Callable[[Sequence[Job], Path], Generator[tuple[str, str], None, None]]


def run_locally(n_jobs: int, n_threads: int) -> Backend:
    """
    :param n_jobs: processes at the same time
    :param n_threads: threads of each
    :return: a backend
    """

    def run(jobs: Sequence[Job], study: Path) -> Generator[tuple[str, str], None, None]:
        stop = threading.Event()
        with ThreadPoolExecutor(n_jobs) as pool:
            try:
                futures: dict[Future[str], str] = {
                    pool.submit(_try_again, key, settings, str(study), n_threads, stop): key for key, settings in jobs
                }
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                # Where the study is interrupted: what waits is dropped, what runs is ended.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    return run


def _try_again(key: str, settings: str, study: str, n_threads: int, stop: threading.Event | None = None) -> str:
    # Ray's workers are interrupted by being killed.
    stop = stop or threading.Event()
    problem = ""
    for _ in range(N_ATTEMPTS):
        problem = attempt(key, settings, study, n_threads, stop)
        if not problem or stop.is_set():
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

    def run(jobs: Sequence[Job], study: Path) -> Generator[tuple[str, str], None, None]:
        if not ray.is_initialized():
            # The number of processors is the cluster's own where there is one. Ray ends with this process.
            n_cpus = n_jobs * n_threads if address is None else None
            ray.init(address or "local", num_cpus=n_cpus, include_dashboard=False, log_to_driver=False)
        # Ray runs a task again whose worker died; `attempt` leaves nothing half done behind.
        task = ray.remote(num_cpus=n_threads, max_retries=3)(_try_again)
        pending = {task.remote(key, settings, str(study.resolve()), n_threads): key for key, settings in jobs}
        try:
            while pending:
                (done,), _ = ray.wait(list(pending))
                try:
                    problem = ray.get(done)
                except ray.exceptions.RayError as error:
                    problem = str(error).splitlines()[0]
                yield pending.pop(done), problem
        finally:
            # Where the study is interrupted. A cell ends with its worker.
            for reference in pending:
                ray.cancel(reference, force=True)

    return run
