"""What the memory keeps is what the teacher saw, however a run is left and taken up again."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.envs.atari import NativeAtariVecEnv

KWARGS = {"learning_starts": 10_000, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}


def breakout(n_envs=2):
    return VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs, seed=0), 4)


class Seen(BaseCallback):
    """Keeps the observations of all steps that are stored, and stops after so many."""

    def __init__(self):
        super().__init__()
        self.observations = []
        self.n_left = 0

    def _on_step(self):
        self.n_left -= 1
        self.observations.append(self.locals["record"].observations.copy())
        return self.n_left > 0


@pytest.mark.parametrize("between", ["play", "reset"])
def test_native_games_that_are_left_and_taken_up_again(between):
    model = PolicyDistillation(
        "Net5Policy", breakout(), A2C("CnnPolicy", breakout(), device="cpu", seed=0), buffer_size=600, **KWARGS
    )
    assert isinstance(model.env.unwrapped, NativeAtariVecEnv)
    seen = Seen()
    for n_steps in (40, 70, 60):
        # Unlike in SB3, the last step is stored, too: the game has gone on.
        seen.n_left = n_steps
        model.learn(10_000, callback=seen, reset_num_timesteps=between == "reset")
        if between == "play":
            evaluate_policy(model, model.get_env(), n_eval_episodes=1, warn=False)
    store = model.replay_buffer.stores[""]
    rows = len(seen.observations)
    assert rows == 40 + 70 + 60 == model.replay_buffer.size()
    rebuilt = [store[np.full(2, row), np.arange(2)] for row in range(rows)]
    assert np.array_equal(rebuilt, seen.observations)


def test_the_teacher_sees_observations_before_normalization():
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=0), clip_obs=0.5)
    model = PolicyDistillation(
        "MlpPolicy", env, A2C("MlpPolicy", "CartPole-v1", device="cpu"), buffer_size=200, **KWARGS
    )
    raw = []

    def keep(local, _):
        raw.append((local["record"].observations.copy(), env.get_original_obs()))
        return True

    model.learn(100, callback=keep)
    # What the environment gave in one step is what the teacher answers to in the next.
    for (_, given), (answered, _) in itertools.pairwise(raw):
        assert np.array_equal(given, answered)
    assert model.get_env() is env and not np.array_equal(raw[5][0], model._last_obs)


def test_images_whose_rewards_are_normalized():
    def images():
        env = make_vec_env(lambda: FakeImageEnv(screen_height=40, screen_width=40, discrete=True), 2, seed=0)
        return VecFrameStack(env, 4)

    teacher = A2C("CnnPolicy", images(), device="cpu", seed=0)
    for env in (VecFrameStack(VecNormalize(images().venv, norm_obs=False), 4), VecNormalize(images(), norm_obs=False)):
        model = PolicyDistillation("MlpPolicy", env, teacher, buffer_size=200, **KWARGS).learn(50)
        assert model.replay_buffer.stores[""].shape == (100, 2, 4, 40, 40)


class ImageAndVector(gym.Env):
    """An image whose channels are last, which SB3 transposes, beside a vector that is normalised."""

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (40, 40, 3), np.uint8), "vector": spaces.Box(-100, 100, (2,), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.n_steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.n_steps += 1
        return self.observation_space.sample(), 1.0, self.n_steps == 8, False, {}


def test_images_are_transposed_for_the_teacher_too():
    teacher = A2C("MultiInputPolicy", ImageAndVector(), device="cpu", seed=0)
    env = VecNormalize(make_vec_env(ImageAndVector, 1, seed=0), norm_obs_keys=["vector"])
    kwargs = {**KWARGS, "n_teacher_episodes": 1, "buffer_size": 50}
    model = QPD("MultiInputPolicy", env, teacher, weight_bits=None, **kwargs).learn(20)
    samples = model.replay_buffer.sample(20)
    with th.no_grad():
        expected = teacher.policy.get_distribution(samples.observations).distribution.logits
    assert th.allclose(samples.answers.log_probs, expected, atol=1e-5)
    assert samples.observations["vector"].abs().max() > 10 and model._reference.mean_reward == 8.0


def test_frames_that_are_stacked_after_normalization_are_refused():
    env = VecFrameStack(VecNormalize(make_vec_env("CartPole-v1", 1)), 3)
    teacher = A2C("MlpPolicy", VecFrameStack(make_vec_env("CartPole-v1", 1), 3), device="cpu")
    with pytest.raises(ValueError, match=r"the other way round, VecNormalize\(VecFrameStack\(\.\.\.\)\)"):
        QPD("MlpPolicy", env, teacher, **KWARGS)


def test_the_state_of_a_teacher_goes_from_step_to_step():
    """No agent of today has a memory; one that has gets its state back, and is told where episodes begin."""
    teacher = load_teacher(A2C("MlpPolicy", "CartPole-v1", device="cpu", seed=0))
    model = PolicyDistillation("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=0), teacher, buffer_size=200, **KWARGS)
    answer, calls, dones = teacher.answer, [], [np.ones(2, bool)]

    def count(obs, state=None, episode_start=None, with_values=False):
        calls.append((state, episode_start.copy()))
        return answer(obs)[0], len(calls)

    teacher.answer = count
    for _ in range(2):
        model.learn(200, lambda local, _: dones.append(local["dones"].copy()) or True, reset_num_timesteps=False)
    assert [state for state, _ in calls] == [None, *range(1, len(calls))]
    assert np.array_equal([starts for _, starts in calls], dones[:-1])
    # Episodes end, and the second call goes on in the first one's.
    assert np.sum(dones[1:]) > 0 and len(calls) == 200
