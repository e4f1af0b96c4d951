"""What is read from an environment, wherever it is played."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_distill import PolicyDistillation
from sb3_distill.envs.inspection import env_arguments_of, env_id_of


class Field(gym.Env):
    """Takes any argument."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def __init__(self, field=None, render_mode=None):
        self.field = field

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


class Quiet(Field):
    """Its text does not tell its id."""

    def __str__(self):
        return "quiet"


@pytest.fixture(autouse=True)
def registered():
    gym.register("Field-v0", entry_point=Field, kwargs={"field": np.arange(3)}, max_episode_steps=5)
    # A lambda, which cannot be pickled
    gym.register("Lambda-v0", entry_point=lambda **kwargs: Field(**kwargs), max_episode_steps=5)
    gym.register("Quiet-v0", entry_point=lambda **kwargs: Quiet(**kwargs), max_episode_steps=5)
    yield
    for name in ("Field-v0", "Lambda-v0", "Quiet-v0"):
        del gym.registry[name]


def elsewhere(env_id, n_envs=1, **kwargs):
    # Forked, so that the other process knows what is registered here.
    return make_vec_env(env_id, n_envs, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}, **kwargs)


@pytest.mark.parametrize(
    ("field", "differs"),
    [
        (np.arange(3), False),
        (np.arange(4), True),
        (np.zeros(3), True),
        ([np.arange(3)], True),
        ({"a": np.arange(3)}, True),
        (None, True),
        ("text", True),
    ],
)
def test_arrays_as_arguments(field, differs):
    env = make_vec_env("Field-v0", 1, env_kwargs={"field": field})
    assert (list(env_arguments_of(env)) == ["field"]) == differs


@pytest.mark.parametrize("make", [make_vec_env, elsewhere])
def test_ids(make):
    for env_id in ("CartPole-v1", "Field-v0", "sb3_distill:MultiTask-v0"):
        env = make(env_id, env_kwargs={"env_ids": ["CartPole-v1"]} if "MultiTask" in env_id else None)
        assert env_id_of(env) == env_id.rpartition(":")[2]
        env.close()
    env = make(Field)
    assert env_id_of(env) is None
    env.close()


@pytest.mark.parametrize(("name", "told"), [("Lambda-v0", "Lambda-v0"), ("Quiet-v0", None)])
def test_learning_in_processes_whose_specification_cannot_be_pickled(name, told):
    teacher = DQN("MlpPolicy", name, buffer_size=10, device="cpu")
    env = elsewhere(name, n_envs=2)
    model = PolicyDistillation("MlpPolicy", env, teacher, learning_starts=8, device="cpu")
    with pytest.warns(UserWarning, match="score is not measured.*cannot be pickled, such as a lambda"):
        model.learn(16)
    assert model.learn(100, reset_num_timesteps=False)._n_updates > 0 and env_id_of(env) == told
    env.close()


def test_arguments_that_cannot_be_pickled():
    env = elsewhere("Field-v0", env_kwargs={"field": lambda: 1})
    assert env_id_of(env) == "Field-v0"
    with pytest.raises(ValueError, match=r"other processes, which cannot say .* such as a lambda.*DummyVecEnv"):
        env_arguments_of(env)
    assert env.reset().shape == (1, 2)
    env.close()
