"""Copies of environments: somebody else plays in them, and the original notices nothing."""

import copy
import threading
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_distill.envs.copies import CopyError, copy_env
from sb3_distill.envs.native import native_atari


class Scaled(gym.ObservationWrapper):
    """As most wrappers of users: Gymnasium does not record its arguments."""

    def __init__(self, env, factor):
        super().__init__(env)
        self.factor = factor

    def observation(self, observation):
        return observation * np.float32(self.factor)


class Handle(gym.Env):
    """Holds what cannot be copied, as simulators do."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    opened = 0

    def __init__(self, step_size=0.1):
        self.lock, self.step_size = threading.Lock(), step_size
        Handle.opened += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.place += self.step_size
        return np.array([self.place], np.float32), 1.0, self.place > 0.45, False, {}


def play(env, n_steps=60, seed=5):
    """Observations, rewards and ends of actions that depend on the seed alone."""
    env.seed(seed)
    rng = np.random.default_rng(seed)
    space = env.action_space
    steps = [env.reset()]
    for _ in range(n_steps):
        actions = [
            rng.integers(space.n) if isinstance(space, spaces.Discrete) else rng.uniform(space.low, space.high)
            for _ in range(env.num_envs)
        ]
        steps += env.step(np.array(actions))[:3]
    return [np.array(step) for step in steps]


def alike(first, second):
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def cartpole(folder=None):
    def make(rank):
        env = Scaled(gym.make("CartPole-v1", max_episode_steps=25), 3.0)
        return Monitor(env, None if folder is None else str(folder / str(rank)), allow_early_resets=False)

    venv = VecMonitor(DummyVecEnv([lambda rank=rank: make(rank) for rank in range(2)]), folder and str(folder / "all"))
    venv = VecFrameStack(venv, 3)
    return VecNormalize(venv, clip_obs=2.0, norm_reward=False)


def test_a_copy_plays_as_the_original_which_notices_nothing(tmp_path):
    # The same actions twice: with another playing in between, and without
    original, undisturbed = cartpole(tmp_path), cartpole()
    expected = play(undisturbed)
    assert alike(play(original), expected)
    copied = copy_env(original)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(written) == 3 and all(len(text.splitlines()) > 3 for text in written.values())
    count = original.obs_rms.count
    before = copy.deepcopy(original.unwrapped.envs[0].unwrapped.state)
    played = play(copied, 200)
    copied.reset()
    copied.close()
    assert played[0].shape == (2, 12) and np.abs(played[0]).max() <= 2.0
    assert copied.obs_rms.count == count == original.obs_rms.count and original.training
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == written
    assert np.array_equal(original.unwrapped.envs[0].unwrapped.state, before)
    actions = np.ones(2, int)
    assert alike(original.step(actions)[:3], undisturbed.step(actions)[:3])
    # Wrappers and their arguments are those of the original: an episode ends after 25 steps at the latest.
    assert copied.get_attr("factor") == [3.0, 3.0] and max(copied.venv.venv.get_attr("_max_episode_steps")) == 25


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "HalfCheetah-v5", "Pendulum-v1", "CliffWalking-v1"])
def test_games_of_gymnasium(env_id):
    if env_id.startswith("HalfCheetah"):
        pytest.importorskip("mujoco")
    env = make_vec_env(env_id, 2)
    play(env, 3)
    assert alike(play(copy_env(env)), play(make_vec_env(env_id, 2)))


def test_atari_games_in_python_and_natively():
    def make():
        return VecTransposeImage(VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", 1, seed=0), 4))

    for make_env in (make, lambda: native_atari(make())):
        env = make_env()
        # A copy begins anew, although the original is in the middle of a game.
        play(env, 5)
        copied = copy_env(env)
        assert type(copied.unwrapped) is type(env.unwrapped)
        assert alike(play(copied, 10), play(make_env(), 10))
        copied.close()


@pytest.fixture
def registered():
    gym.register("Handle-v0", entry_point=Handle)
    gym.register("Lambda-v0", entry_point=lambda **kwargs: Handle(**kwargs))
    yield
    del gym.registry["Handle-v0"], gym.registry["Lambda-v0"]


def test_a_registered_game_is_made_anew(registered):
    env = DummyVecEnv([lambda: Scaled(gym.make("Handle-v0", step_size=0.2), 2.0)])
    opened = Handle.opened
    copied = copy_env(env)
    assert Handle.opened == opened + 1 and copied.envs[0].unwrapped.lock is not env.envs[0].unwrapped.lock
    assert alike(play(copied), play(env)) and copied.envs[0].unwrapped.step_size == 0.2


def test_games_in_other_processes(registered):
    env = make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    copied = copy_env(env)
    assert isinstance(copied, DummyVecEnv) and alike(play(copied), play(env))
    env.close()
    env = SubprocVecEnv([partial(gym.make, "Handle-v0", step_size=size) for size in (0.2, 0.4)], start_method="fork")
    assert alike(play(copy_env(env)), play(env))
    env.close()
    for make, reason in (
        (lambda: Scaled(gym.make("CartPole-v1"), 2.0), "the arguments of Scaled are not known"),
        (lambda: Monitor(Handle()), "only if they are registered"),
        (lambda: gym.make("Lambda-v0"), "cannot be pickled, such as a lambda"),
        (lambda: gym.make("Handle-v0", step_size=lambda: 1), "cannot be pickled, such as a lambda"),
        (Handle, "or they have no wrapper"),
    ):
        env = SubprocVecEnv([make], start_method="fork")
        with pytest.raises(CopyError, match=reason):
            copy_env(env)
        # The process is still there.
        assert env.reset().shape[0] == 1
        env.close()


def test_what_cannot_be_copied_is_refused():
    with pytest.raises(CopyError, match="TypeError: cannot pickle"):
        copy_env(DummyVecEnv([Handle]))
