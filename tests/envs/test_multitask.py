"""Environments of several tasks."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_distill.envs.multitask import fit_frame
from tests.envs.tasks import ENV_KWARGS, IDS


def test_tasks_take_turns_and_can_be_chosen():
    env = gym.make("MultiTask-v0", **ENV_KWARGS).unwrapped
    for episode in range(4):
        obs, info = env.reset(seed=4 if episode == 0 else None)
        assert obs["task"] == episode % 2 and info["task"] == IDS[episode % 2]
        assert env.observation_space.contains(obs)
    for task in (0, 0, IDS[0], np.int64(0)):
        assert env.reset(options={"task": task})[0]["task"] == 0
    for task in (2, -1, "Pong", 0.5):
        with pytest.raises(
            ValueError, match=r"must be the name of a task \(CartPole-v1, MountainCar-v0\) or its index"
        ):
            env.reset(options={"task": task})
    assert env.reset()[0]["task"] == 1


def test_environment_is_gymnasiums():
    check_env(gym.make("sb3_distill:MultiTask-v0", **ENV_KWARGS).unwrapped, skip_render_check=True)


@pytest.mark.parametrize(("vec_env_cls", "tasks"), [(DummyVecEnv, [0, 1, 0, 1]), (SubprocVecEnv, [0, 1])])
def test_environments_side_by_side_begin_with_different_tasks(vec_env_cls, tasks):
    # As "sb3_distill:MultiTask-v0" other processes know it too.
    env = make_vec_env("sb3_distill:MultiTask-v0", len(tasks), seed=0, env_kwargs=ENV_KWARGS, vec_env_cls=vec_env_cls)
    assert env.reset()["task"].tolist() == tasks
    env.close()


def test_frames_of_all_tasks_have_one_size():
    env = gym.make("MultiTask-v0", env_ids=["CartPole-v1", "Acrobot-v1"], pad=True, render_mode="rgb_array").unwrapped
    frames = []
    for task in ("CartPole-v1", "Acrobot-v1"):
        env.reset(options={"task": task})
        frames.append(env.render())
    assert frames[0].shape == frames[1].shape and frames[1].max() > 0
    assert env.current_env.render().shape != frames[0].shape
    env.close()


def test_a_frame_keeps_its_proportions():
    fitted = fit_frame(np.full((10, 20, 3), 7, np.uint8), 40, 40)
    assert fitted.shape == (40, 40, 3)
    assert (fitted[10:30] == 7).all() and not fitted[:10].any() and not fitted[30:].any()


def test_vectors_are_padded():
    env = gym.make("MultiTask-v0", **ENV_KWARGS).unwrapped
    obs, _ = env.reset(seed=3, options={"task": 1})
    assert np.array_equal(obs["obs"][2:], [0, 0])


class Count(gym.Wrapper):
    """Counts the actions that an environment gets."""

    def __init__(self, env):
        super().__init__(env)
        self.counts = np.zeros(env.action_space.n, int)

    def step(self, action):
        self.counts[action] += 1
        return self.env.step(action)


def counts_of_random_play(n_steps, seed):
    env = gym.make("MultiTask-v0", **ENV_KWARGS).unwrapped
    env.envs = {name: Count(own) for name, own in env.envs.items()}
    env.action_space.seed(seed)
    env.reset(seed=seed)
    for _ in range(n_steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return [own.counts for own in env.envs.values()]


def test_random_play_is_uniform_in_every_task():
    """CartPole has two of the three actions."""
    counts = counts_of_random_play(9_000, seed=0)
    for own, n_actions in zip(counts, (2, 3), strict=True):
        assert len(own) == n_actions and own.sum() > 600
        # Four standard deviations of a share
        assert np.abs(own / own.sum() - 1 / n_actions).max() < 4 * np.sqrt(0.25 / own.sum())
    assert all(map(np.array_equal, counts, counts_of_random_play(9_000, seed=0)))


def test_atari_games_share_stacked_frames():
    env = gym.make("MultiTaskAtari-v0", games=["Pong", "Freeway"])
    assert env.observation_space["obs"] == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert [task.n_actions for task in env.unwrapped.tasks] == [6, 3]
    obs, _ = env.reset(seed=0)
    assert not obs["obs"][:3].any() and obs["obs"][3].any()
    following = env.step(0)[0]["obs"]
    assert np.array_equal(following[2], obs["obs"][3])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("MultiTask-v0", {"env_ids": IDS}, r"observation spaces differ \(CartPole-v1 \(4,\), .*pass pad=True"),
        ("MultiTask-v0", {"env_ids": []}, "env_ids must be a list of names"),
        ("MultiTask-v0", {"env_ids": "CartPole-v1"}, "env_ids must be a list of names"),
        ("MultiTask-v0", {"env_ids": ["CartPole-v1", "CartPole-v1"]}, "names 'CartPole-v1' twice"),
        (
            "MultiTask-v0",
            {"env_ids": ["Pendulum-v1"]},
            "needs Box observations, or a Dict of them, and Disc",
        ),
        ("MultiTaskAtari-v0", {"games": ["Pong", "Pong"]}, "names 'Pong' twice"),
        ("MultiTaskAtari-v0", {"games": ["Pnog"]}, "Unknown game 'Pnog'"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(env_id, kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make(env_id, **kwargs)
