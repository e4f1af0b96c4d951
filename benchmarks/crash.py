"""
Kills runs at random moments, looks at what they have left, and starts them again until they are complete.

python -m benchmarks.crash --kills 200 --seed 0
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.env_util import make_vec_env

import sb3_distill_zoo
from benchmarks.crash_report import Report, check_files
from sb3_distill import PolicyDistillation
from sb3_distill.agents.archive import read_archive
from sb3_distill.base.resuming import RUN_STATE
from sb3_distill.buffers.recordings import Recording
from sb3_distill.cli import main as sb3_distill

STEPS, SAVE_FREQ = 800, 100
TASKS = ["CartPole-v1", "Acrobot-v1"]


@dataclass
class Job:
    """
    Something that is killed and started again until it is complete.

    :param name: its name
    :param start: runs it, or goes on with it, in a folder
    :param result: what it came to, once it is complete; None before
    :param kills_leader: whether only its first process is killed, and the others must end by themselves
    """

    name: str
    start: Callable[[Path], None]
    result: Callable[[Path], Any]
    kills_leader: bool = False


def zoo_run(algo: str, *arguments: str, env: str = "CartPole-v1", env_kwargs: Sequence[str] = ()) -> Job:
    """A run of the Zoo with checkpoints, which is resumed."""

    def folder_of(root: Path) -> Path:
        return root / "logs" / algo / f"{env}_1"

    def start(root: Path) -> None:
        folder = folder_of(root)
        if (folder / env / "args.yml").exists() and (folder / env / "config.yml").exists():
            raise SystemExit(sb3_distill(["resume", str(folder)]))
        # Killed before there was a run
        shutil.rmtree(folder, ignore_errors=True)
        eval_freq = 170 if algo in ("pd", "qpd") else -1
        options = f"--env {env} -f {root / 'logs'} -n {STEPS} --save-freq {SAVE_FREQ} --eval-freq {eval_freq} --seed 3"
        more = ["--eval-episodes", "1", "--device", "cpu", "--verbose", "0", "--algo", algo]
        kwargs = ["--env-kwargs", *env_kwargs] if env_kwargs else []
        raise SystemExit(sb3_distill(["zoo", "train", *options.split(), *more, *kwargs, "-params", *arguments]))

    def result(root: Path) -> Any:
        last = folder_of(root) / f"{env}.zip"
        if not last.exists() or (folder_of(root) / RUN_STATE).exists():
            return None
        evaluations = folder_of(root) / "evaluations.npz"
        return hash_of(last), np.load(evaluations)["results"].tolist() if evaluations.exists() else None

    return Job(algo, start, result)


def hash_of(zip_path: Path) -> str:
    """The hash of a model's weights."""
    weights = read_archive(zip_path).weights
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()


def recording_job(teacher: Path) -> Job:
    """A run that records its teacher's play while it learns; from Python."""

    def model_of(root: Path) -> PolicyDistillation:
        env = make_vec_env("CartPole-v1", 2, seed=0)
        return PolicyDistillation(
            "MlpPolicy",
            env,
            str(teacher),
            recording=root / "recording",
            buffer_size=500,
            learning_starts=100,
            n_teacher_episodes=0,
            seed=0,
            device="cpu",
        )

    def start(root: Path) -> None:
        from stable_baselines3.common.callbacks import CheckpointCallback

        model = model_of(root)
        if (root / RUN_STATE).exists():
            model.load_run_state(root / RUN_STATE)
        elif (root / "last.zip").exists():
            return
        model.learn(4 * STEPS - model.num_timesteps, CheckpointCallback(SAVE_FREQ, str(root)))
        model.save(root / "last.zip")

    def result(root: Path) -> Any:
        if not (root / "last.zip").exists() or (root / RUN_STATE).exists():
            return None
        recording = Recording(root / "recording")
        return hash_of(root / "last.zip"), [recording.observations(row).tolist() for row in range(recording.n_rows)]

    return Job("recording", start, result)


def study_job(teacher: Path) -> Job:
    """A study with two workers."""

    def start(root: Path) -> None:
        file = root / "study.yml"
        content = {
            "settings": {"algo": "pd", "env": "CartPole-v1", "n_timesteps": 300, "teacher": str(teacher)},
            "grid": {"loss": ["kl", "mse"], "seed": [0, 1]},
            "evaluation": {"n_episodes": 2},
        }
        file.write_text(yaml.safe_dump(content))
        raise SystemExit(sb3_distill(["study", str(file), "-o", str(root / "out"), "--jobs", "2"]))

    def result(root: Path) -> Any:
        path = root / "out" / "results.json"
        if not path.exists():
            return None
        rows = json.loads(path.read_text())["agents"]
        return None if len(rows) < 4 else sorted((row["loss"], row["seed"], row["mean"]) for row in rows)

    return Job("study", start, result, kills_leader=True)


def export_job(student: Path) -> Job:
    """Exports of one agent after the other into one folder."""

    def start(root: Path) -> None:
        for _ in range(3):
            if sb3_distill(["export", str(student), "--env", "CartPole-v1", "-o", str(root / "export")]) != 0:
                raise SystemExit(1)
        (root / "complete").write_text("")

    def result(root: Path) -> Any:
        if not (root / "complete").exists():
            return None
        content = json.loads((root / "export" / "policy.json").read_text())
        # The files are those that it describes.
        sizes = {name: (root / "export" / name).stat().st_size for name in content["files"]}
        assert sizes == {name: described["bytes"] for name, described in content["files"].items()}
        return sorted(sizes)

    return Job("export", start, result)


def save_job(teacher: Path) -> Job:
    """Saves a model, its memory and its state again and again."""

    def start(root: Path) -> None:
        model = PolicyDistillation(
            "MlpPolicy", "CartPole-v1", str(teacher), n_teacher_episodes=0, seed=0, device="cpu", buffer_size=2_000
        ).learn(2_000)
        for _ in range(60):
            model.save(root / "model")
            model.save_replay_buffer(root / "memory")
            model.save_run_state(root / "state.zip")
        (root / "complete").write_text("")

    def result(root: Path) -> Any:
        return hash_of(root / "model.zip") if (root / "complete").exists() else None

    return Job("save loop", start, result)


def make_jobs(folder: Path, names: Sequence[str] | None) -> list[Job]:
    """All jobs, and the agents that they need."""
    dqn, a2c = folder / "dqn.zip", folder / "a2c.zip"
    DQN("MlpPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [8]}).save(dqn)
    A2C("MlpPolicy", "CartPole-v1", seed=0, device="cpu", policy_kwargs={"net_arch": [8]}).save(a2c)
    teachers = {}
    for task in TASKS:
        teachers[task] = str(folder / f"{task}.zip")
        DQN("MlpPolicy", task, seed=0, device="cpu", policy_kwargs={"net_arch": [8]}).save(teachers[task])
    student = folder / "student.zip"
    PolicyDistillation("MlpPolicy", "CartPole-v1", str(dqn), n_teacher_episodes=0, seed=0, device="cpu").learn(
        1_200
    ).save(student)
    quick = ["learning_starts:100", "buffer_size:1000", "n_envs:2"]
    tasks = [f"env_ids:{TASKS}", "pad:True"]
    small = "policy_kwargs:\"{'net_arch': [8]}\""
    jobs = [
        zoo_run("pd", *quick, small, f"teacher:'{dqn}'", "n_teacher_episodes:1"),
        zoo_run("qpd", *quick, f"teacher:'{a2c}'", "n_teacher_episodes:1", "weight_bits:4", "activation_bits:4"),
        zoo_run("rtpd", "learning_starts:100", "train_freq:8", "gradient_steps:2", "eval_freq:60", "n_eval_episodes:1"),
        zoo_run(
            "mtpd",
            *quick,
            f"teachers:{teachers}",
            "n_eval_episodes:0",
            "policy:'MultiTaskMlpPolicy'",
            env="MultiTask-v0",
            env_kwargs=tasks,
        ),
        zoo_run("mtdqn", *quick, "policy:'MultiTaskMlpPolicy'", env="MultiTask-v0", env_kwargs=tasks),
        recording_job(dqn),
        study_job(dqn),
        export_job(student),
        save_job(dqn),
    ]
    return [job for job in jobs if names is None or job.name in names]


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
    """Processes whose command line names the folder."""
    shown = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True).stdout
    return [
        line.strip() for line in shown.splitlines() if str(root) in line and str(os.getpid()) not in line.split()[0]
    ]


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
