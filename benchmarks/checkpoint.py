"""
What a checkpoint with its state costs, beside what SB3 can save: seconds and bytes, in one run.

python -m benchmarks.checkpoint --observations 54000
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from benchmarks.records import step_record
from sb3_distill import PolicyDistillation
from sb3_distill.common.answers import Answers
from sb3_distill.results.tables import format_table


def timed(path: Path, write: Callable[[Path], None]) -> tuple[float, int]:
    """Seconds and bytes of writing a file."""
    start = time.perf_counter()
    write(path)
    return time.perf_counter() - start, path.stat().st_size


def student(images: bool, n_observations: int) -> PolicyDistillation:
    """A student with a full memory."""
    env: VecEnv = make_vec_env("CartPole-v1", 1, seed=0)
    if images:
        env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", 1, seed=0), 4)
    teacher = DQN("CnnPolicy" if images else "MlpPolicy", env, seed=0, device="cpu", buffer_size=1)
    model = PolicyDistillation(
        "Net1Policy" if images else "MlpPolicy",
        env,
        teacher,
        buffer_size=n_observations,
        n_teacher_episodes=0,
        seed=0,
        device="cpu",
    )
    # Steps of the environment, over and over: each frame is a new one to the memory.
    model.learn(1_100)
    frames = np.random.default_rng(0).integers(0, 255, (n_observations, 84, 84), np.uint8) if images else None
    stack = np.zeros((1, 4, 84, 84), np.uint8)
    n_actions = int(env.action_space.n)  # type: ignore[attr-defined]
    answers = Answers(q_values=th.zeros(1, n_actions)).numpy()
    for step in range(n_observations):
        if frames is not None:
            stack = np.concatenate([stack[:, 1:], frames[None, step : step + 1]], axis=1)
        obs = stack if frames is not None else np.zeros((1, 4), np.float32)
        model.replay_buffer.add(step_record(obs, answers))
    return model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, default=54_000, help="in the full memory")
    args = parser.parse_args()
    rows = [["student", "observations", "what", "seconds", "MB"]]
    for images in (False, True):
        model = student(images, args.observations)
        with tempfile.TemporaryDirectory() as folder:
            for what, name, write in (
                ("save (SB3's zip)", "model.zip", model.save),
                ("save_replay_buffer (SB3's pickle)", "memory.pkl", model.save_replay_buffer),
                ("save_run_state (all of it)", "state.zip", model.save_run_state),
            ):
                seconds, n_bytes = timed(Path(folder) / name, write)
                label = "net1, Pong" if images else "MlpPolicy, CartPole"
                rows.append([label, f"{args.observations:,}", what, f"{seconds:.2f}", f"{n_bytes / 1e6:.1f}"])
            start = time.perf_counter()
            model.load_run_state(Path(folder) / "state.zip")
            rows.append([label, f"{args.observations:,}", "load_run_state", f"{time.perf_counter() - start:.2f}", ""])
    print(format_table(rows, 3))


if __name__ == "__main__":
    main()
