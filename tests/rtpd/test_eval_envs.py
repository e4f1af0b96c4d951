"""Evaluations play in an environment like that of the training."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.atari_wrappers import MaxAndSkipEnv
from stable_baselines3.common.env_util import make_atari_env, make_vec_env, unwrap_wrapper
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize, VecTransposeImage

from sb3_distill.envs.native import native_or_same
from sb3_distill.rtpd.callbacks import eval_env_maker
from tests.rtpd.students import make

IMAGE = spaces.Box(0, 255, (36, 40, 1), np.uint8)


class Pictures(gym.Env):
    """Episodes of five random pictures with the channels last."""

    action_space = spaces.Discrete(2)

    def __init__(self, vector=False):
        self.observation_space = spaces.Dict({"vector": spaces.Box(-1, 1, (2,)), "image": IMAGE}) if vector else IMAGE

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


@pytest.fixture(autouse=True)
def registered():
    gym.register("Pictures-v0", entry_point=Pictures, max_episode_steps=5)
    yield
    del gym.registry["Pictures-v0"]


@pytest.mark.parametrize(("vector", "normalized"), [(False, False), (True, False), (True, True)])
def test_images_with_the_channels_last(vector, normalized, tmp_path):
    env = make_vec_env("Pictures-v0", 1, env_kwargs={"vector": vector})
    if normalized:
        # In the other order SB3's own replay buffer takes no step.
        env = VecNormalize(VecTransposeImage(env), norm_reward=False, norm_obs_keys=["vector"])
    policy = "MultiInputPolicy" if vector else "CnnPolicy"
    model = make(
        env=env,
        policy=policy,
        students={"small": policy if vector else "Net5Policy"},
        policy_kwargs={"net_arch": [8]},
        learning_starts=10,
        batch_size=4,
        eval_freq=4,
        n_eval_episodes=1,
        results_dir=str(tmp_path),
    ).learn(24)
    assert {entry["mean_reward"] for entry in model.evaluations} == {5.0}


@pytest.mark.parametrize("first", ["transposed", "normalized"])
def test_wrappers_stand_in_the_order_of_the_training(first):
    env = make_vec_env("Pictures-v0", 1, env_kwargs={"vector": True})
    kwargs = {"norm_reward": False, "norm_obs_keys": ["vector"]}
    if first == "transposed":
        env = VecNormalize(VecTransposeImage(env), **kwargs)
    else:
        env = VecTransposeImage(VecNormalize(env, **kwargs))
    copied = eval_env_maker(env)(2)
    assert type(copied) is type(env) and type(copied.venv) is type(env.venv)
    assert copied.observation_space == env.observation_space
    copied.close()


def test_names_that_agree_in_their_first_letters(tmp_path, capsys):
    names = ["a_student_whose_name_is_long_enough_" + letter for letter in "ab"]
    students = {name: "MlpPolicy" for name in names}
    model = make(students=students, eval_freq=10, n_eval_episodes=1, results_dir=str(tmp_path), verbose=1).learn(200)
    assert {entry["player"] for entry in model.evaluations} == {"teacher", *names}
    printed = capsys.readouterr().out
    assert all(f"{name}_mean_reward" in printed for name in names)


def test_atari_games_keep_the_settings_of_the_training():
    env = make_atari_env("PongNoFrameskip-v4", 1, wrapper_kwargs={"screen_size": 42, "frame_skip": 2})
    made = eval_env_maker(native_or_same(VecTransposeImage(VecFrameStack(env, 3))))(1)
    assert made.observation_space.shape == (3, 42, 42)
    assert unwrap_wrapper(made.unwrapped.envs[0], MaxAndSkipEnv)._skip == 2
