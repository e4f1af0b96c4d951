"""The memory of a run holds the last ``buffer_size`` observations, whatever they are."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, ReshapeObservation
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_distill import PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.buffers.recordings import Recording
from tests.helpers import same

KWARGS = {"buffer_size": 300, "learning_starts": 100, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}


class Shown(gym.Env):
    """Shows anything of its observation space, in short episodes."""

    action_space = spaces.Discrete(2)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, self.np_random.random() < 0.1, False, {}


def image(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def stacked_by_itself():
    """Twelve planes: four colour frames."""
    return ReshapeObservation(FrameStackObservation(Shown(image(3, 16, 16)), 4), (12, 16, 16))


ENVS = {
    "colour stacks": lambda: VecFrameStack(make_vec_env(lambda: Shown(image(16, 16, 3)), 2, seed=0), 4),
    "colour stacks of the environment": lambda: make_vec_env(stacked_by_itself, 2, seed=0),
    "single colour images": lambda: make_vec_env(lambda: Shown(image(16, 16, 3)), 2, seed=0),
    "four planes": lambda: make_vec_env(lambda: Shown(image(4, 16, 16)), 2, seed=0),
    "two planes": lambda: make_vec_env(lambda: Shown(image(2, 6, 3)), 2, seed=0),
    "Dict": lambda: make_vec_env(
        lambda: Shown(spaces.Dict({"image": image(4, 36, 36), "vector": spaces.Box(-1, 1, (2,))})), 2, seed=0
    ),
}


@pytest.mark.parametrize(
    ("name", "loaded"), [*((name, False) for name in ENVS), ("colour stacks", True), ("Dict", True)]
)
def test_it_holds_the_last_observations(name, loaded, tmp_path):
    env = ENVS[name]()
    policy = "MultiInputPolicy" if name == "Dict" else "MlpPolicy"
    teacher = load_teacher(A2C(policy, env, device="cpu", seed=0))
    model = PolicyDistillation(policy, env, teacher, **KWARGS)
    if loaded:
        model.save(tmp_path / "student")
        model = PolicyDistillation.load(tmp_path / "student", device="cpu")
        model.set_env(env)
        model.teacher = teacher
    seen = []
    model.learn(400, lambda local, _: seen.append(local["record"].observations) or True)
    memory = model.replay_buffer
    assert memory.size() * 2 == 300 and len(seen) == 200
    for key, store in memory.stores.items():
        for age in range(150):
            shown = seen[-1 - age][key] if key else seen[-1 - age]
            assert np.array_equal(store[np.full(2, memory.pos - 1 - age), np.arange(2)], shown)


def equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)
    return np.array_equal(first, second)


def infos_of(local):
    return [info["terminal_observation"] for info in local["infos"] if "terminal_observation" in info]


@pytest.mark.parametrize("name", ENVS)
def test_a_recording_keeps_what_was_shown(name, tmp_path):
    """Also the last observation of every episode."""
    env = ENVS[name]()
    policy = "MultiInputPolicy" if name == "Dict" else "MlpPolicy"
    teacher = load_teacher(A2C(policy, env, device="cpu", seed=0))
    model = PolicyDistillation(policy, env, teacher, recording=tmp_path / "play", **KWARGS)
    seen, last = [], []

    def keep(local, _):
        seen.append(local["record"].observations)
        last.extend(infos_of(local))
        return True

    model.learn(400, keep)
    recording = Recording(tmp_path / "play")
    assert all(equal(recording.observations(row), obs) for row, obs in enumerate(seen))
    assert len(recording.episodes) == len(last) > 10
    for end, obs in zip(recording.episodes, last, strict=True):
        assert equal(recording.terminal(end.row, end.env), obs)
    for episode in recording.finished_episodes():
        parts = episode.observations.values() if name == "Dict" else [episode.observations]
        assert {len(part) for part in parts} == {len(episode.actions) + 1}
    # A reader is told the same.
    reader = PolicyDistillation(policy, ENVS[name](), teacher, recording=tmp_path / "play", **KWARGS)
    again = []
    reader.learn(400, lambda local, _: again.extend(infos_of(local)) or True)
    assert all(equal(*pair) for pair in zip(again, last, strict=True)) and same(reader.policy, model.policy)


@pytest.mark.parametrize("cls", [PolicyDistillation, RealTimeDistillDQN])
def test_files_of_image_runs_of_earlier_versions(cls, tmp_path):
    """They hold an argument that the memory had."""
    env = ENVS["colour stacks"]()
    if cls is PolicyDistillation:
        model = cls("MlpPolicy", env, A2C("MlpPolicy", env, device="cpu", seed=0), **KWARGS)
    else:
        model = cls("MlpPolicy", env, {"small": "MlpPolicy"}, buffer_size=300, eval_freq=-1, device="cpu", seed=0)
    model.replay_buffer_kwargs = {"frame_channels": 1}
    model.save(tmp_path / "model")
    loaded = cls.load(tmp_path / "model", device="cpu")
    assert type(loaded.replay_buffer) is type(model.replay_buffer) and same(loaded.policy, model.policy)
