"""What is killed by ``benchmarks.crash``: runs, studies, recordings, exports and loops that save."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import yaml
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import PolicyDistillation
from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.normalization import read_normalization
from sb3_distill.base.resume.resuming import RUN_STATE
from sb3_distill.buffers.recordings import Recording
from sb3_distill.cli import main as sb3_distill

STEPS, SAVE_FREQ = 800, 100
TASKS = ["CartPole-v1", "Acrobot-v1"]


class Pictures(gym.Env):
    """Images of one bright pixel, which walks at random."""

    observation_space = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.show(), {}

    def step(self, action: Any) -> Any:
        return self.show(), float(action), self.np_random.random() < 0.1, False, {}

    def show(self) -> np.ndarray:
        """The next image."""
        image = np.zeros((1, 36, 36), np.uint8)
        row, column = self.np_random.integers(0, 36, 2)
        image[0, row, column] = 255
        return image


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


def zoo_run(
    algo: str, *arguments: str, env: str = "CartPole-v1", env_kwargs: Sequence[str] = (), name: str | None = None
) -> Job:
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
        statistics = folder_of(root) / env / "vecnormalize.pkl"
        return (
            hash_of(last),
            np.load(evaluations)["results"].tolist() if evaluations.exists() else None,
            str(vars(read_normalization(statistics))) if statistics.exists() else None,
        )

    return Job(name or algo, start, result)


def hash_of(zip_path: Path) -> str:
    """The hash of a model's weights."""
    weights = read_archive(zip_path).weights
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()


def recording_job(teacher: Path, images: bool) -> Job:
    """A run that records its teacher's play while it learns; from Python."""

    def model_of(root: Path) -> PolicyDistillation:
        return PolicyDistillation(
            "Net5Policy" if images else "MlpPolicy",
            make_vec_env(Pictures, 2, seed=0) if images else make_vec_env("CartPole-v1", 2, seed=0),
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
        n_timesteps = STEPS if images else 4 * STEPS
        model.learn(n_timesteps - model.num_timesteps, CheckpointCallback(SAVE_FREQ, str(root)))
        model.save(root / "last.zip")

    def result(root: Path) -> Any:
        if not (root / "last.zip").exists() or (root / RUN_STATE).exists():
            return None
        recording = Recording(root / "recording")
        rows = [np.asarray(recording.observations(row)).tolist() for row in range(recording.n_rows)]
        return hash_of(root / "last.zip"), rows

    return Job("recording-images" if images else "recording", start, result)


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
    pictures = folder / "pictures.zip"
    DQN("CnnPolicy", Pictures(), seed=0, device="cpu", buffer_size=1).save(pictures)
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
        zoo_run(
            "pd", *quick, small, f"teacher:'{dqn}'", "n_teacher_episodes:1", "normalize:True", name="pd-normalized"
        ),
        recording_job(dqn, images=False),
        recording_job(pictures, images=True),
        study_job(dqn),
        export_job(student),
        save_job(dqn),
    ]
    return [job for job in jobs if names is None or job.name in names]
