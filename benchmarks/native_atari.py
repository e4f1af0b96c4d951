"""
Speed of Atari games in ``NativeAtari`` beside SB3's ``DummyVecEnv`` and ``SubprocVecEnv``, with random actions and
while PPO learns. All three have the Zoo's wrappers and PPO's hyperparameters for Atari. They take turns, so that a busy
machine slows down all of them; a ratio is the median over the rounds. Processor time, of all processes of a
kind together, says more where other programs run beside it.

    python -m benchmarks.native_atari --json native_atari.json
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from sb3_distill import NativeAtari

KINDS: dict[str, type[DummyVecEnv] | type[SubprocVecEnv]] = {
    "dummy": DummyVecEnv,
    "subproc": SubprocVecEnv,
    "native": DummyVecEnv,
}
WARM_UP = 50
# The Zoo's hyperparameters of PPO for Atari
PPO_KWARGS: dict[str, Any] = {
    "n_steps": 128,
    "n_epochs": 4,
    "batch_size": 256,
    "learning_rate": 2.5e-4,
    "clip_range": 0.1,
    "vf_coef": 0.5,
    "ent_coef": 0.01,
}


def make_env(env_id: str, kind: str, n_envs: int) -> VecEnv:
    """The environment that the Zoo makes, in the same order."""
    env = make_atari_env(env_id, n_envs, seed=0, env_kwargs={"render_mode": None}, vec_env_cls=KINDS[kind])
    if kind == "native":
        env = NativeAtari(env)
    return VecTransposeImage(VecFrameStack(env, 4))


class Clock:
    """Seconds since it was made, and seconds of processor time of all processes of an environment."""

    def __init__(self, env: VecEnv) -> None:
        processes = getattr(env.unwrapped, "processes", ())
        self.processes = [psutil.Process(), *(psutil.Process(process.pid) for process in processes)]
        self.start = self.now()

    def now(self) -> np.ndarray:
        times = [process.cpu_times() for process in self.processes]
        return np.array([time.perf_counter(), sum(spent.user + spent.system for spent in times)])

    def read(self) -> np.ndarray:
        """Both kinds of seconds."""
        return self.now() - self.start


class RandomPlay:
    """Steps one environment with random actions."""

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.rng = np.random.default_rng(0)
        env.reset()
        self.play(WARM_UP)

    def play(self, n_steps: int) -> np.ndarray:
        """Seconds for so many steps of all games together."""
        n_envs = self.env.num_envs
        actions = self.rng.integers(self.env.action_space.n, size=(n_steps, n_envs))  # type: ignore[attr-defined]
        clock = Clock(self.env)
        for row in actions:
            self.env.step(row)
        return clock.read()


class Training:
    """PPO in one environment."""

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.model = PPO("CnnPolicy", env, seed=0, device="cpu", **PPO_KWARGS)

    def play(self, n_steps: int) -> np.ndarray:
        """Seconds for learning from so many steps of all games together."""
        clock = Clock(self.env)
        self.model.learn(n_steps * self.env.num_envs, reset_num_timesteps=False)
        return clock.read()


def compare(env_id: str, n_envs: int, play: Any, n_steps: int, repeats: int) -> dict[str, Any]:
    """Steps per second of each kind, and how many times as fast the native one is."""
    players = {kind: play(make_env(env_id, kind, n_envs)) for kind in KINDS}
    rounds: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind, player in players.items():
            rounds[kind].append(player.play(n_steps))
    for player in players.values():
        player.env.close()
    # Axes: round, kind of seconds
    seconds = {kind: np.array(measured) for kind, measured in rounds.items()}
    ratios = {kind: seconds[kind] / seconds["native"] for kind in ("dummy", "subproc")}
    return {
        "env": env_id,
        "n_envs": n_envs,
        "what": play.__name__,
        "steps_per_second": {kind: n_envs * n_steps / float(np.median(s[:, 0])) for kind, s in seconds.items()},
        "cpu_ms_per_step": {kind: 1000 * float(np.median(s[:, 1])) / (n_envs * n_steps) for kind, s in seconds.items()},
        "ratios": {kind: values[:, 0].tolist() for kind, values in ratios.items()},
        "cpu_ratios": {kind: values[:, 1].tolist() for kind, values in ratios.items()},
    }


def in_words(ratios: dict[str, list[float]]) -> str:
    """Medians, with the range over the rounds."""
    return ", ".join(
        f"{statistics.median(values):.2f} over {kind} ({min(values):.2f} to {max(values):.2f})"
        for kind, values in ratios.items()
    )


def main() -> None:
    """Entry point of ``python -m benchmarks.native_atari``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="BreakoutNoFrameskip-v4")
    parser.add_argument("--n-envs", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--n-steps", type=int, default=100, help="steps of each game in one round of random actions")
    parser.add_argument(
        "--n-rollouts", type=int, default=1, help="rollouts of PPO in one round (128 steps of each game)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    th.set_num_threads(1)

    results = []
    for play, n_steps in ((RandomPlay, args.n_steps), (Training, args.n_rollouts * PPO_KWARGS["n_steps"])):
        for n_envs in args.n_envs:
            result = compare(args.env, n_envs, play, n_steps, args.repeats)
            results.append(result)
            speeds = ", ".join(f"{kind} {speed:.0f}" for kind, speed in result["steps_per_second"].items())
            costs = ", ".join(f"{kind} {cost:.2f}" for kind, cost in result["cpu_ms_per_step"].items())
            print(f"{result['what']}, {n_envs} games")
            print(f"  {speeds} steps/s; speed-up {in_words(result['ratios'])}")
            print(f"  {costs} ms of processor time per step; saving {in_words(result['cpu_ratios'])}", flush=True)
    if args.json:
        from sb3_distill.common.files import write_whole

        write_whole(args.json, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
