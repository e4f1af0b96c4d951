"""A short game and an agent that plays it well, for searches that take seconds."""

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium.envs.classic_control import CartPoleEnv
from stable_baselines3 import PPO

from sb3_distill import Answers
from sb3_distill.compress import job
from sb3_distill.compress.compress import Compressed, compress
from sb3_distill.compress.search import Goal, Plan
from sb3_distill.study.backends import Job
from sb3_distill.study.manifest import SETTINGS

GOAL, PLAN = Goal(keep=80.0), Plan(n_timesteps=3_200, n_students=3, n_episodes=10)
SHORT = "ShortCartPole-v0"
if SHORT not in gym.registry:
    gym.register(SHORT, CartPoleEnv, max_episode_steps=60)


def save_teacher(folder: Path) -> Path:
    """A linear controller of the pole, of which a student of 36 bytes can be as good. The same file for all who ask."""
    path = folder / f"{SHORT}.zip"
    if path.exists():
        return path
    model = PPO("MlpPolicy", SHORT, policy_kwargs={"net_arch": []}, n_steps=8, batch_size=8, seed=0, device="cpu")
    weights = th.tensor([0.1, 0.5, 8.0, 4.0])
    with th.no_grad():
        model.policy.action_net.weight.copy_(th.stack([-weights, weights]))
        model.policy.action_net.bias.zero_()
    model.save(path)
    return path


class Here:
    """A backend that runs jobs in this process, and remembers their keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, jobs: Sequence[Job], folder: Path) -> Generator[tuple[str, str], None, None]:
        for key, settings in jobs:
            run = folder / "cells" / key
            run.mkdir(parents=True)
            (run / SETTINGS).write_text(settings)
            job.run(run)
            self.keys.append(key)
            yield key, ""


def record_of(folder: Path) -> dict:
    return json.loads((folder / "compress.json").read_text())


class Controller:
    """The same linear controller, as an object that answers."""

    observation_space = CartPoleEnv().observation_space
    action_space = CartPoleEnv().action_space

    def answer(self, obs: th.Tensor, state: Any, episode_start: Any) -> tuple[Answers, None]:
        pushed = obs @ th.tensor([0.1, 0.5, 8.0, 4.0])
        return Answers(log_probs=th.stack([-pushed, pushed], dim=1)), None


def make_controller() -> Controller:
    return Controller()


def search_short(folder: Path, output: Path, **kwargs) -> Compressed:
    """A search for students of the linear controller, in this process."""
    kwargs = {"backend": Here(), "say": lambda line: None, **kwargs}
    return compress(save_teacher(folder), output, GOAL, PLAN, **kwargs)
