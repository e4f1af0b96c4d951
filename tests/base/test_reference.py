"""The teacher's score, with which its students are compared."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import PolicyDistillation, load_teacher

KWARGS = {"learning_starts": 10_000, "buffer_size": 200, "student_eps": 0.0, "device": "cpu", "seed": 0}


class FarApart(gym.Env):
    """The reward is 1 for the action that the observation asks for: 0 at 20, 1 at 30, both beyond ten deviations."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def _observe(self):
        self.asked = int(self.np_random.integers(2))
        return np.array([20 + 10 * self.asked], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action):
        reward = float(action == self.asked)
        self.n_steps += 1
        return self._observe(), reward, self.n_steps == 20, False, {}


@pytest.fixture
def teacher():
    """Asks for action 1 above 25."""
    model = A2C("MlpPolicy", FarApart(), policy_kwargs={"net_arch": []}, device="cpu")
    state = model.policy.action_net.state_dict()
    state["weight"].copy_(state["weight"].new_tensor([[0.0], [1.0]]))
    state["bias"].copy_(state["bias"].new_tensor([0.0, -25.0]))
    return load_teacher(model)


@pytest.mark.parametrize("evaluates", [False, True])
def test_the_teacher_plays_on_observations_before_normalization(teacher, evaluates):
    """Those behind VecNormalize are clipped, so nothing that is computed from them tells 20 from 30."""
    env = VecNormalize(make_vec_env(FarApart, 2, seed=0), norm_reward=False)
    model = PolicyDistillation("MlpPolicy", env, teacher, n_teacher_episodes=4, **KWARGS)
    eval_env = VecNormalize(make_vec_env(FarApart, 1, seed=1), norm_reward=False, training=False)
    model.learn(10, callback=EvalCallback(eval_env, verbose=0) if evaluates else None)
    assert model._reference.score == (20.0, 0.0)


def test_games_of_the_teacher_do_not_move_the_statistics(teacher):
    counts = []
    for n_episodes in (0, 4):
        env = VecNormalize(make_vec_env(FarApart, 2, seed=0), norm_reward=False)
        PolicyDistillation("MlpPolicy", env, teacher, n_teacher_episodes=n_episodes, **KWARGS).learn(40)
        assert env.training
        counts.append(env.obs_rms.count)
    # One reset more: the student begins a new episode after the teacher.
    assert counts[1] == counts[0] + 2
