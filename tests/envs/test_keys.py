"""Environments that add a key to the observations."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env

from sb3_distill import RenderedFrames, StackedEntries


def test_entries_are_stacked() -> None:
    env = StackedEntries(gym.make("Pendulum-v1"), [0, 1], n_stack=3)
    check_env(env)
    obs, _ = env.reset(seed=0)
    seen = [obs["state"][:2]] * 3
    assert np.array_equal(obs["positions"], np.concatenate(seen))
    for _ in range(4):
        obs, *_ = env.step(env.action_space.sample())
        seen.append(obs["state"][:2])
        assert np.array_equal(obs["positions"], np.concatenate(seen[-3:]))


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_pictures_do_not_depend_on_the_render_mode(render_mode: str | None) -> None:
    env = RenderedFrames(gym.make("CartPole-v1", render_mode=render_mode), size=42, n_stack=2)
    assert env.observation_space["pixels"] == spaces.Box(0, 255, (2, 42, 42), np.uint8)  # type: ignore[index]
    first, _ = env.reset(seed=0)
    assert np.array_equal(first["pixels"][0], first["pixels"][1])
    seen = [first["pixels"][1]]
    for _ in range(8):
        obs, *_ = env.step(1)
        assert np.array_equal(obs["pixels"][0], seen[-1])
        seen.append(obs["pixels"][1])
    assert (seen[-1] != seen[0]).any() and seen[-1].min() < 200
    assert env.unwrapped.render_mode == render_mode
    env.close()


@pytest.mark.parametrize(
    ("wrapper", "env_id", "kwargs", "message"),
    [
        (StackedEntries, "Pendulum-v1", {"entries": [0, 3]}, r"indices from 0 to 2, not \[0, 3\]"),
        (StackedEntries, "Pendulum-v1", {"entries": []}, r"indices from 0 to 2, not \[\]"),
        (StackedEntries, "FrozenLake-v1", {"entries": [0]}, r"a vector, not Discrete\(16\)"),
        (StackedEntries, "Pendulum-v1", {"entries": [0], "n_stack": 0}, "n_stack must be at least 1, not 0"),
        (RenderedFrames, "CartPole-v1", {"key": "state"}, "another name than 'state'"),
    ],
)
def test_what_cannot_be_added_is_named(wrapper: type, env_id: str, kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrapper(gym.make(env_id), **kwargs)
