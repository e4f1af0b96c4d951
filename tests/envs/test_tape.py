"""Environments come back to the state that they were in."""

from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

from sb3_distill.envs import tape
from sb3_distill.envs.native import native_or_same
from sb3_distill.envs.tape import install_tapes, restore_vec_env, vec_env_state


def play(env, n_steps, seed):
    """What an environment shows under random actions."""
    rng = np.random.default_rng(seed)
    shown = []
    for _ in range(n_steps):
        actions = rng.integers(env.action_space.n, size=env.num_envs)
        shown.append(env.step(actions)[:3])
    return shown


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for part, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, same)


def check_restored(make, n_steps):
    env, other = make(), make()
    try:
        for each in (env, other):
            assert install_tapes(each) is None
            each.reset()
        play(env, n_steps, seed=0)
        state = vec_env_state(env)
        assert restore_vec_env(other, state) is None
        assert_same(play(env, 60, seed=1), play(other, 60, seed=1))
    finally:
        env.close()
        other.close()


@pytest.mark.parametrize(("env_id", "vec_env_cls"), [("Pong-v5", SubprocVecEnv), ("Breakout-v5", DummyVecEnv)])
def test_atari_in_python(env_id, vec_env_cls):
    """With sticky actions, and, in the second game, lives that end before the game."""

    def make():
        return VecFrameStack(make_atari_env(f"ale_py:ALE/{env_id}", n_envs=2, seed=3, vec_env_cls=vec_env_cls), 4)

    check_restored(make, 150)


@pytest.mark.ci
def test_in_processes_that_are_spawned():
    def make():
        return make_vec_env(
            "CartPole-v1", 2, seed=0, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "spawn"}
        )

    check_restored(make, 40)


def normalized(env):
    return NormalizeReward(NormalizeObservation(env))


class Curriculum(gym.Wrapper):
    """Its rewards depend on the episodes before, which it keeps in all sorts of collections."""

    def __init__(self, env):
        super().__init__(env)
        self.lengths, self.recent, self.counts, self.by_name = [], deque(maxlen=3), {0: 0}, {"episodes": 0}
        self.mine = self.lengths

    def reset(self, **kwargs):
        self.lengths.append(0)
        self.recent.append(len(self.mine))
        self.counts[0] += 1
        self.by_name["episodes"] += 1
        return super().reset(**kwargs)

    def step(self, action):
        obs, _, *rest = super().step(action)
        self.lengths[-1] += 1
        level = len(self.mine) + sum(self.recent) + self.counts[0] + self.by_name["episodes"] + sum(self.lengths)
        return obs, float(level), *rest


def test_collections_that_outlive_episodes():
    check_restored(lambda: make_vec_env("CartPole-v1", 2, seed=0, wrapper_class=Curriculum), 150)


def test_statistics_over_all_episodes():
    check_restored(lambda: make_vec_env("CartPole-v1", 2, seed=0, wrapper_class=normalized), 150)


class Moody(gym.Wrapper):
    """Depends on something that no generator of its own says."""

    moods = iter(range(10**6))

    def step(self, action):
        obs, *rest = self.env.step(action)
        return obs + next(self.moods) % 97, *rest


def test_what_is_left_where_an_episode_is_lost():
    def make():
        return make_vec_env("CartPole-v1", 1, seed=0, wrapper_class=lambda env: normalized(Moody(env)))

    env, other = make(), make()
    for each in (env, other):
        install_tapes(each)
        each.reset()
    play(env, 100, seed=0)
    state = vec_env_state(env)
    assert restore_vec_env(other, state) == "after the same actions its observation is another one"
    rms = [each.get_attr("obs_rms")[0] for each in (env, other)]
    np.testing.assert_array_equal(rms[0].mean, rms[1].mean)
    assert rms[0].count == rms[1].count > 100


class Changer(gym.Wrapper):
    """Changes the array of its actions."""

    def step(self, action):
        result = self.env.step(action)
        action += 1
        return result


def test_actions_are_those_that_were_given():
    def make():
        return make_vec_env("Pendulum-v1", 1, seed=0, wrapper_class=Changer)

    env, other = make(), make()
    for each in (env, other):
        install_tapes(each)
        each.reset()
    actions = np.zeros((1, 1), dtype=np.float32)
    for _ in range(20):
        env.step(actions)
    assert restore_vec_env(other, vec_env_state(env)) is None


def test_an_episode_without_end_is_begun_anew(monkeypatch):
    monkeypatch.setattr(tape, "_LONGEST", 50)
    env, other = (make_vec_env("MountainCar-v0", 1, seed=0) for _ in range(2))
    for each in (env, other):
        install_tapes(each)
        each.reset()
    play(env, 51, seed=0)
    assert restore_vec_env(other, vec_env_state(env)) == "its episode had more than 50 steps"
    # The next one is kept again.
    play(env, 160, seed=0)
    assert restore_vec_env(other, vec_env_state(env)) is None


class Final(gym.Wrapper):
    """Has no subclasses."""

    def __init_subclass__(cls):
        raise TypeError("this class is final")


class Owner(gym.Wrapper):
    """Has a tape of its own."""

    tape = "mine"


def test_wrappers_of_all_kinds():
    env = DummyVecEnv([lambda: Final(gym.make("CartPole-v1"))])
    assert install_tapes(env) == "it has no wrapper that can be reached, such as Monitor"
    env.reset()
    assert vec_env_state(env)["games"] is None
    assert restore_vec_env(env, vec_env_state(env)) == "it has no wrapper that can be reached, such as Monitor"
    owner = DummyVecEnv([lambda: Owner(gym.make("CartPole-v1"))])
    assert install_tapes(owner) is None
    assert owner.get_attr("tape") == ["mine"]


def test_native_games_say_why_they_cannot_be_restored():
    # The id's own frames are skipped by the wrapper.
    sticky = native_or_same(make_atari_env("ALE/Pong-v5", n_envs=1, seed=0, env_kwargs={"frameskip": 1}))
    assert install_tapes(sticky) == "natively stepped Atari games do not tell which of their actions were sticky"
    plain = native_or_same(make_atari_env("PongNoFrameskip-v4", n_envs=1, seed=0))
    plain.reset()
    assert install_tapes(plain) is None
