"""Backends that run jobs, such as the cells of a study: local processes, or Ray."""

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

from sb3_distill.common.files import flush_all, write_whole
from sb3_distill.study.cell import StudyError
from sb3_distill.study.manifest import MANIFEST, PROBLEM, SETTINGS, STDERR, can_go_on, has_state, stopped_in

# A cell that fails is tried once more, but what cannot be imported will not be there the next time either.
N_ATTEMPTS = 2
_LACKING = ("ImportError:", "ModuleNotFoundError:", "gymnasium.error.DependencyNotInstalled:")
# Seconds between two checks whether the study was interrupted
_PATIENCE = 0.2
# What runs the cell of a study: ``python -m MODULE [OPTION …] FOLDER PIPE``
CELL = ("sb3_distill.study.job",)


def run_process(
    command: Sequence[str], environment: dict[str, str], stop: threading.Event, log: Path
) -> tuple[int, str]:
    """
    Run a process in its own process group, so that Ctrl-C reaches only the study, which then kills the whole group.
    (If Ctrl-C reached the Zoo, it would stop the training and save the model as if it were finished.)

    :param command: the command to run; it gets one more argument, for ``end_with``
    :param environment: environment variables of the process
    :param stop: event that is set when the study is interrupted
    :param log: file to which its standard error output is appended
    :return: exit status, and the standard error output
    """
    # The process reads the end of this pipe when this process has ended, however it ended (see ``end_with``).
    reader, writer = os.pipe()
    try:
        # A file, so that what was said is there whoever is killed.
        with log.open("a+", errors="replace") as file:
            before = file.tell()
            process = subprocess.Popen(
                [*command, str(reader)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
                pass_fds=[reader],
            )
            while True:
                try:
                    status = process.wait(timeout=_PATIENCE)
                    file.seek(before)
                    return status, file.read()
                except subprocess.TimeoutExpired:
                    if stop.is_set():
                        with suppress(ProcessLookupError):
                            os.killpg(process.pid, signal.SIGKILL)
    finally:
        os.close(reader)
        os.close(writer)


def describe_death(status: int) -> str:
    """
    :param status: negative exit status of a process that was killed by a signal
    :return: a description of the signal
    """
    name = signal.Signals(-status).name
    hint = ", perhaps out of memory" if name == "SIGKILL" else ""
    return f"killed by signal {-status} ({name}){hint}"


def attempt(
    key: str, settings: str, study: str, n_threads: int, stop: threading.Event, module: Sequence[str] = CELL
) -> str:
    """
    Run one cell in its own process, in a folder with a temporary name. The folder is renamed to the cell's key when the
    cell has finished, so a folder with this name is always complete. A cell that was stopped goes on in its folder, if
    it can.

    :param key: key of the cell
    :param settings: the cell as JSON
    :param study: the study's folder
    :param n_threads: number of threads of the process
    :param stop: event that is set when the study is interrupted
    :param module: the module that the process runs, and its options; it writes the manifest last
    :return: an empty string, or the reason why the cell failed
    """
    finished, failed = (Path(study).resolve() / place / key for place in ("cells", "failed"))
    if finished.exists():
        # Ray repeats a task whose worker died, also right after it has finished the cell.
        return ""
    folder = stopped_in(Path(study).resolve(), key) or finished.with_name(f".{key}.{uuid.uuid4().hex[:8]}")
    write_whole(folder / SETTINGS, settings)
    # The order of floating-point sums depends on the number of threads: fix it, so that results are bit-equal on all
    # machines.
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
    command = [sys.executable, "-m", *module, str(folder)]
    # A study that was killed at the end of a cell has left it to be renamed.
    is_finished = (folder / MANIFEST).is_file()
    status, stderr = (0, "") if is_finished else run_process(command, environment, stop, folder / STDERR)
    if finished.exists():
        # Another process has finished it meanwhile.
        shutil.rmtree(folder, ignore_errors=True)
        return ""
    if stop.is_set() and not (folder / MANIFEST).is_file():
        if not can_go_on(folder):
            shutil.rmtree(folder)
        return "interrupted"
    if status != 0 or not (folder / MANIFEST).is_file():
        said = (stderr.strip() or f"ended with status {status}").splitlines()[-1]
        problem = describe_death(status) if status < 0 else said
        shutil.rmtree(failed, ignore_errors=True)
        if has_state(folder) or (status < 0 and can_go_on(folder)):
            # The next attempt goes on there: what it has learned must not be lost by what may be mended.
            problem += f" (its checkpoint stays in {folder}, from which it goes on; delete the folder to begin anew)"
            write_whole(failed / STDERR, stderr)
            write_whole(failed / PROBLEM, problem + "\n")
            return problem
        write_whole(folder / PROBLEM, problem + "\n")
        # Keep the folder of the failed cell: it may hold a trained model whose evaluation failed.
        failed.parent.mkdir(exist_ok=True)
        folder.rename(failed)
        return problem
    if not is_finished and not (folder / STDERR).stat().st_size:
        (folder / STDERR).unlink()
    try:
        flush_all(folder, finished)
        folder.rename(finished)
    except OSError:
        if not finished.exists():
            raise
        # Another process was faster by a moment.
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(failed, ignore_errors=True)
    return ""


Job = tuple[str, str]
Backend = Callable[[Sequence[Job], Path], Generator[tuple[str, str], None, None]]


def run_locally(n_jobs: int, n_threads: int, module: Sequence[str] = CELL) -> Backend:
    """
    :param n_jobs: number of cells that run at the same time
    :param n_threads: number of threads per cell
    :param module: the module that runs a cell, and its options
    :return: a backend that runs cells in local processes
    """

    def run(jobs: Sequence[Job], study: Path) -> Generator[tuple[str, str], None, None]:
        stop = threading.Event()
        with ThreadPoolExecutor(n_jobs) as pool:
            try:
                futures: dict[Future[str], str] = {
                    pool.submit(_try_again, key, settings, str(study), n_threads, module, stop): key
                    for key, settings in jobs
                }
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                # If the study is interrupted, drop waiting cells and end running ones.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    return run


def _try_again(
    key: str, settings: str, study: str, n_threads: int, module: Sequence[str], stop: threading.Event | None = None
) -> str:
    # On Ray, no event is passed: an interrupted study kills the workers.
    stop = stop or threading.Event()
    problem = ""
    for _ in range(N_ATTEMPTS):
        problem = attempt(key, settings, study, n_threads, stop, module)
        if not problem or problem.startswith(_LACKING) or stop.is_set():
            break
    return problem


def run_on_ray(address: str | None, n_jobs: int, n_threads: int, module: Sequence[str] = CELL) -> Backend:
    """
    :param address: address of a running cluster; None: start Ray on this machine
    :param n_jobs: number of cells that run at the same time, if Ray is started on this machine
    :param n_threads: number of threads per cell
    :param module: the module that runs a cell, and its options
    :return: a backend that runs cells on Ray; all workers must have access to the study's folder
    :raises StudyError: Ray is not installed
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError("Ray is not installed: pip install 'sb3-distill[ray]', or use --backend local.") from error

    def run(jobs: Sequence[Job], study: Path) -> Generator[tuple[str, str], None, None]:
        if not ray.is_initialized():
            # A running cluster knows its number of processors. A Ray that is started here ends with this process.
            n_cpus = n_jobs * n_threads if address is None else None
            ray.init(address or "local", num_cpus=n_cpus, include_dashboard=False, log_to_driver=False)
        # Ray repeats a task if its worker dies. This is safe, because attempt() renames only finished folders.
        task = ray.remote(num_cpus=n_threads, max_retries=3)(_try_again)
        pending = {task.remote(key, settings, str(study.resolve()), n_threads, module): key for key, settings in jobs}
        try:
            while pending:
                (done,), _ = ray.wait(list(pending))
                try:
                    problem = ray.get(done)
                except ray.exceptions.RayError as error:
                    problem = str(error).splitlines()[0]
                yield pending.pop(done), problem
        finally:
            # If the study is interrupted, kill the workers; the process of a cell ends with its worker.
            for reference in pending:
                ray.cancel(reference, force=True)

    return run
