"""Recordings as Minari datasets: every type of observation, and the environment with what it was made with."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import PolicyDistillation, StackedEntries
from sb3_distill.buffers.recording_meta import RecordingError
from sb3_distill.buffers.recordings import Recording
from tests.helpers import content_of, full_disk

minari = pytest.importorskip("minari")
to_minari = pytest.importorskip("sb3_distill.buffers.minari").to_minari


class Noise(gym.Env):
    """Random observations of any type; an episode ends after so many steps."""

    action_space = spaces.Discrete(3)

    def __init__(self, shape=(3,), dtype="float32", high=1, end=5, extra=None):
        self.observation_space = spaces.Box(0, high, shape, np.dtype(dtype).type)
        self.end = end

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = 0
        self.observation_space.seed(int(self.np_random.integers(1_000)))
        return self.observation_space.sample(), {}

    def step(self, action):
        self.n += 1
        return self.observation_space.sample(), 1.0, self.n == self.end, False, {}


@pytest.fixture(autouse=True)
def registered(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    gym.register("Noise-v0", f"{__name__}:Noise", max_episode_steps=100)
    gym.register("Callable-v0", Noise)
    yield
    del gym.registry["Noise-v0"], gym.registry["Callable-v0"]


def record(tmp_path, env_id="Noise-v0", policy="MlpPolicy", n_steps=60, **env_kwargs):
    teacher = DQN(policy, make_vec_env(env_id, env_kwargs=env_kwargs), buffer_size=1, device="cpu", seed=0)
    kwargs = {"recording": tmp_path / "play", "n_teacher_episodes": 0, "learning_starts": 10_000, "device": "cpu"}
    student = "Net5Policy" if policy == "CnnPolicy" else policy
    venv = make_vec_env(env_id, 2, seed=0, env_kwargs=env_kwargs)
    PolicyDistillation(student, venv, teacher, buffer_size=100, seed=0, **kwargs).learn(n_steps)
    return Recording(tmp_path / "play")


def check(recording, dataset):
    episodes = list(recording.finished_episodes())
    assert dataset.total_episodes == len(episodes) > 0
    for stored, episode in zip(dataset.iterate_episodes(), episodes, strict=True):
        assert np.array_equal(stored.observations, episode.observations)
        assert stored.observations.dtype == episode.observations.dtype
        assert np.array_equal(stored.actions, episode.actions) and np.array_equal(stored.rewards, episode.rewards)
        assert (stored.terminations[-1], stored.truncations[-1]) == (episode.terminated, episode.truncated)
        assert dataset.observation_space.contains(stored.observations[0])
    assert dataset.observation_space == recording.observation_space
    assert dataset.action_space == spaces.Discrete(3)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"dtype": "float32"},
        {"dtype": "float64", "shape": (2, 3)},
        {"dtype": "uint8", "high": 255},
        {"dtype": "bool"},
        {"dtype": "bool", "shape": (5, 5, 4)},
        {"dtype": "int64", "high": 9},
        {"dtype": "uint8", "high": 255, "shape": (4, 36, 36), "policy": "CnnPolicy"},
        # Minari writes such ones as JPEG unless it is told not to.
        {"dtype": "uint8", "high": 255, "shape": (36, 36)},
    ],
)
def test_every_type_of_observation_comes_back(kwargs, tmp_path):
    recording = record(tmp_path, **kwargs)
    to_minari(recording, "noise/dqn-v0")
    check(recording, minari.load_dataset("noise/dqn-v0"))


def test_a_dict_comes_back_by_key(tmp_path, cartpole_teacher):
    def make_env():
        return make_vec_env("CartPole-v1", 2, seed=0, wrapper_class=StackedEntries, wrapper_kwargs={"entries": [0]})

    kwargs = {"teacher_keys": "state", "n_teacher_episodes": 0, "device": "cpu", "seed": 0}
    folder = tmp_path / "play"
    PolicyDistillation("MultiInputPolicy", make_env(), cartpole_teacher, recording=folder, **kwargs).learn(300)
    recording = Recording(folder)
    dataset = to_minari(recording, "pole/dqn-v0")
    assert dataset.observation_space == recording.observation_space
    for stored, episode in zip(dataset.iterate_episodes(), recording.finished_episodes(), strict=True):
        assert stored.observations.keys() == {"positions", "state"}
        for key, part in episode.observations.items():
            assert np.array_equal(stored.observations[key], part) and stored.observations[key].dtype == part.dtype


def test_minatar(tmp_path):
    pytest.importorskip("minatar")
    recording = record(tmp_path, "MinAtar/Breakout-v1", "MlpPolicy", n_steps=200)
    to_minari(recording, "minatar/dqn-v0")
    dataset = minari.load_dataset("minatar/dqn-v0")
    check(recording, dataset)
    assert dataset.recover_environment().observation_space == dataset.observation_space


def test_arguments_and_time_limit_of_the_environment_come_back(tmp_path):
    recording = record(tmp_path, end=50, shape=(2,), max_episode_steps=7)
    to_minari(recording, "noise/dqn-v0")
    env = minari.load_dataset("noise/dqn-v0").recover_environment()
    assert (env.unwrapped.end, env.observation_space.shape, env.spec.max_episode_steps) == (50, (2,), 7)
    env.reset(seed=0)
    for n_steps in range(1, 8):
        *_, truncated, _ = env.step(0)
        assert truncated == (n_steps == 7)
    # The registry is left as it was.
    assert gym.spec("Noise-v0").max_episode_steps == 100 and gym.spec("Noise-v0").kwargs == {}


@pytest.mark.parametrize("env_id, kwargs", [("Callable-v0", {}), ("Noise-v0", {"extra": np.zeros(2)})])
def test_what_cannot_be_written_down_is_said(env_id, kwargs, tmp_path):
    recording = record(tmp_path, env_id, **kwargs)
    with pytest.warns(UserWarning, match=rf"The dataset does not say how to make {env_id} \(.*recover_environment"):
        to_minari(recording, "noise/dqn-v0")
    dataset = minari.load_dataset("noise/dqn-v0")
    check(recording, dataset)
    assert dataset.env_spec is None


def test_games_that_are_not_registered_are_named(tmp_path):
    gym.register("Away-v0", f"{__name__}:Noise")
    try:
        recording = record(tmp_path, "Away-v0")
    finally:
        del gym.registry["Away-v0"]
    with pytest.raises(RecordingError, match=r"Away.*Import the package that registers it"):
        to_minari(recording, "noise/dqn-v0")


def test_unfinished_play_has_no_episodes(tmp_path):
    with pytest.raises(RecordingError, match="came to its end: record more steps"):
        to_minari(record(tmp_path, n_steps=4), "noise/dqn-v0")


@pytest.mark.parametrize("dataset_id", ["noise-v0", "deep/noise/teacher-v0"])
def test_datasets_are_whole_or_not_there(dataset_id, tmp_path):
    recording = record(tmp_path)
    with full_disk(), pytest.raises(OSError, match=f"{dataset_id} cannot be written"):
        to_minari(recording, dataset_id)
    assert not content_of(tmp_path / "minari")
    assert to_minari(recording, dataset_id).total_episodes == len(list(recording.finished_episodes()))
    assert list(minari.list_local_datasets()) == [dataset_id] and not list((tmp_path / "minari").glob(".*"))
    with pytest.raises(RecordingError, match="choose another dataset_id"):
        to_minari(recording, dataset_id)
