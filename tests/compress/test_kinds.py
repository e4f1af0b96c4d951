"""Searches for agents of every kind of observations and actions: from the agent to its export as C."""

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.envs.classic_control import PendulumEnv
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_distill import load_teacher
from sb3_distill.compress.compress import JOB, compress
from sb3_distill.compress.job import Check, StoppingCallback
from sb3_distill.compress.search import Goal, Plan
from sb3_distill.export.integer_policy import IntegerPolicy
from sb3_distill.study.backends import run_on_ray
from tests.compress.games import SHORT, Here, record_of, save_teacher
from tests.helpers import REPOSITORY


class Bright(gym.Env):
    """Shows noise, in one half of it brighter. The action that names this half is worth a point; ten steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, shape: tuple[int, ...] = (6, 6, 2), dtype: Any = np.bool_) -> None:
        self.observation_space = spaces.Box(0, 255 if dtype == np.uint8 else 1, shape, dtype)

    def _observe(self) -> np.ndarray:
        self.side, shape = int(self.np_random.integers(2)), self.observation_space.shape
        values = self.np_random.random(shape) * 0.3
        # Grids have their channels last, frames first.
        columns = slice(shape[1] // 2) if self.side == 0 else slice(shape[1] // 2, None)
        index = (slice(None), columns) if shape[0] > 1 else (slice(None), slice(None), columns)
        values[index] += 0.6
        return (255 * values).astype(np.uint8) if self.observation_space.dtype == np.uint8 else values > 0.5

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = 0
        return self._observe(), {}

    def step(self, action):
        reward, self.n = float(action == self.side), self.n + 1
        return self._observe(), reward, False, self.n == 10, {}


class Matrix(gym.ObservationWrapper):
    """A matrix of two rows."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1", max_episode_steps=20))
        space = self.observation_space
        self.observation_space = spaces.Box(space.low.reshape(2, 2), space.high.reshape(2, 2), dtype=np.float32)

    def observation(self, observation):
        return observation.reshape(2, 2)


class Unbounded(gym.ObservationWrapper):
    """Observations of which nobody says the bounds, and that differ in scale."""

    def __init__(self) -> None:
        super().__init__(gym.make("Pendulum-v1", max_episode_steps=20))
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def observation(self, observation):
        return observation * np.array([1.0, 0.01, 100.0])


gym.register("Unbounded-v0", Unbounded)
gym.register("Matrix-v0", Matrix)
gym.register("ShortPendulum-v0", PendulumEnv, max_episode_steps=20)
gym.register("BrightGrid-v0", Bright)
gym.register("BrightFrames-v0", Bright, kwargs={"shape": (1, 36, 36), "dtype": np.uint8})

SMALL = {"net_arch": [4]}
PPO_KWARGS = {"n_steps": 8, "batch_size": 8}
FEW_FEATURES = {"features_extractor_kwargs": {"features_dim": 16}}
AGENTS: dict[str, tuple[str, type[BaseAlgorithm], str, dict[str, Any]]] = {
    "Gaussian": ("ShortPendulum-v0", PPO, "MlpPolicy", {**PPO_KWARGS, "policy_kwargs": SMALL}),
    "squashed": ("ShortPendulum-v0", SAC, "MlpPolicy", {"policy_kwargs": SMALL, "buffer_size": 10}),
    "unbounded": ("Unbounded-v0", PPO, "MlpPolicy", {**PPO_KWARGS, "policy_kwargs": SMALL}),
    "matrix": ("Matrix-v0", PPO, "MlpPolicy", {**PPO_KWARGS, "policy_kwargs": SMALL}),
    "grid": ("BrightGrid-v0", DQN, "MlpPolicy", {"policy_kwargs": SMALL, "buffer_size": 10}),
    "frames": ("BrightFrames-v0", PPO, "CnnPolicy", {**PPO_KWARGS, "policy_kwargs": FEW_FEATURES}),
}


def save(kind: str, folder: Path) -> tuple[Path, str]:
    """An agent that has learned nothing: here it matters that a student can do what it does."""
    env_id, algorithm, policy, kwargs = AGENTS[kind]
    path = folder / f"{env_id}.zip"
    # SB3 writes into policy_kwargs.
    algorithm(policy, env_id, seed=0, device="cpu", **copy.deepcopy(kwargs)).save(path)
    return path, env_id


def test_a_check_that_earlier_runs_did_not_make_stops_nobody():
    own = Check(10, [0.5, 0.5])
    callback = StoppingCallback({"student0": own}, bars=[0.9])
    assert "students that keep enough had 0.90" in callback._problem(own, [own])
    callback.done = 1
    assert callback._problem(own, [own]) == ""


class Switches(Bright):
    """Several actions at once."""

    action_space = spaces.MultiDiscrete([2, 2])  # type: ignore[assignment]


gym.register("Switches-v0", Switches, kwargs={"dtype": np.float32})


def test_actions_of_several_parts_are_refused_before_the_search(tmp_path: Path):
    PPO("MlpPolicy", "Switches-v0", device="cpu", **PPO_KWARGS).save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=r"has the actions MultiDiscrete.*: compress takes Discrete and Box"):
        compress(tmp_path / "agent.zip", tmp_path / "out", env_id="Switches-v0", target="c")


SLOW = ("squashed", "frames")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in AGENTS]
)
def test_from_an_agent_to_c(kind: str, tmp_path: Path):
    path, env_id = save(kind, tmp_path)
    plan = Plan(n_timesteps=1_600, n_students=2, n_episodes=6)
    goal, backend = Goal(keep=10.0), Here()
    found = compress(
        path, tmp_path / "out", goal, plan, n_rounds=1, target="c", backend=backend, env_id=env_id, say=lambda _: None
    )
    assert found.chosen is not None, found.text
    in_integers = IntegerPolicy.load(tmp_path / "out" / "export" / "policy.npz")
    student = load_teacher(tmp_path / "out" / "student" / "qpd" / f"{env_id}_1", device="cpu")
    assert (student.env_id, student.n_bytes) == (env_id, found.chosen.student.n_bytes)
    assert (student.normalization is not None) == (kind == "unbounded")
    assert in_integers.shape == student.observation_space.shape
    assert record_of(tmp_path / "out")["export"]["policy.c"] > 0
    # What comes next is chosen by the sampler.
    found.search._starts = []
    proposed = found.search.propose()
    assert len(proposed) == 2 and all(found.search.space.n_bytes(params) > 0 for params in proposed)


@pytest.mark.slow
def test_ray_finds_what_this_machine_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ray = pytest.importorskip("ray")
    save_teacher(tmp_path)
    monkeypatch.chdir(tmp_path)
    # The processes of Ray import it, too.
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    plan, students = Plan(n_timesteps=1_600, n_students=2, n_episodes=6), []
    try:
        for name, backend in (("here", Here()), ("ray", run_on_ray(None, 1, 1, JOB))):
            found = compress(
                f"{SHORT}.zip",
                name,
                Goal(keep=10.0),
                plan,
                n_rounds=1,
                target="c",
                backend=backend,
                gym_packages=["tests.compress.games"],
                say=lambda _: None,
            )
            assert found.chosen is not None and Path(name, "export", "policy.c").is_file()
            students.append([(each.n_bytes, each.outcome.returns) for each in found.search.students])
    finally:
        ray.shutdown()
    assert students[0] == students[1]


def test_students_play_in_the_environment_of_their_teacher(tmp_path: Path) -> None:
    """The run's wrappers, and a stack of observations, of which this agent sees the newest alone."""
    run = tmp_path / f"ppo/{SHORT}_1"
    (run / SHORT).mkdir(parents=True)
    env = make_vec_env(SHORT, 1)
    model = PPO("MlpPolicy", VecFrameStack(env, 2), policy_kwargs={"net_arch": []}, **PPO_KWARGS, device="cpu")
    weights = th.tensor([0.0, 0.0, 0.0, 0.0, 0.1, 0.5, 8.0, 4.0])
    with th.no_grad():
        model.policy.action_net.weight.copy_(th.stack([-weights, weights]))
        model.policy.action_net.bias.zero_()
    model.save(run / f"{SHORT}.zip")
    wrapper = {"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 20}}
    (run / SHORT / "config.yml").write_text(json.dumps({"env_wrapper": wrapper, "frame_stack": 2}))
    (run / SHORT / "args.yml").write_text(json.dumps({"algo": "ppo", "env": SHORT}))
    goal, plan = Goal(keep=90.0), Plan(n_timesteps=400, n_students=2, n_episodes=4)
    found = compress(
        run, tmp_path / "out", goal, plan, n_rounds=2, target="c", backend=Here(), gym_packages=["tests.compress.games"]
    )
    scored = [student for student in found.search.students if student.pairs is not None]
    assert scored and all(max(student.pairs.student) <= 20 == max(student.pairs.teacher) for student in scored)
    assert all(max(each.student_score.returns) <= 20 for each in found.tries)


def test_a_function_makes_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_distill.envs.imports._NAMED", set())
    found = compress(
        "tests.compress.games:make_controller",
        tmp_path / "out",
        Goal(keep=10.0),
        Plan(n_timesteps=800, n_students=2, n_episodes=6),
        n_rounds=1,
        target="c",
        backend=Here(),
        env_id=SHORT,
        gym_packages=["tests.compress.games"],
        say=lambda _: None,
    )
    assert found.chosen is not None, found.text
    assert IntegerPolicy.load(tmp_path / "out" / "export" / "policy.npz").shape == (4,)
