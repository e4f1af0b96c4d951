"""Image students begin with the largest filters of their teacher."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.base.inheritance import inherit_filters
from sb3_distill.envs.minatar import register_minatar
from sb3_distill.networks.policies import STUDENT_POLICIES
from tests.base.test_resuming import KWARGS

FRAMES = spaces.Box(0, 255, (4, 84, 84), np.uint8)
ACTIONS = spaces.Discrete(3)
register_minatar()


PIXELS = th.randint(0, 256, (8, 4, 84, 84), dtype=th.uint8, generator=th.Generator().manual_seed(0))


class Screen(gym.Env):
    """Says what its spaces are."""

    observation_space, action_space = FRAMES, ACTIONS


@pytest.fixture(scope="module")
def teacher():
    agent = DQN("CnnPolicy", Screen(), seed=0, device="cpu", buffer_size=1)
    with th.no_grad():
        for conv in convs(agent.policy.q_net):
            conv.weight.mul_(th.linspace(0.5, 1.5, conv.out_channels).roll(3)[:, None, None, None])
            conv.bias.normal_(generator=th.Generator().manual_seed(1))
    return load_teacher(agent)


def convs(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def student(name="Net3Policy", **kwargs):
    th.manual_seed(0)
    policy = STUDENT_POLICIES[name](FRAMES, ACTIONS, lambda _: 1e-3, **kwargs)
    policy.fit_frame_scalers(PIXELS)
    return policy


@pytest.mark.parametrize("standardize", ["scalar", None])
def test_the_first_layer_computes_the_same_of_the_pixels(standardize, teacher):
    policy = student(features_extractor_kwargs={"standardize": standardize})
    head = [parameter.clone() for parameter in policy.q_net.features_extractor.linear.parameters()]
    assert inherit_filters(policy, teacher)
    extractor, theirs = policy.q_net.features_extractor, convs(teacher.policy.q_net)
    own = convs(policy)
    pixels = PIXELS.float()
    with th.no_grad():
        shown = own[0](extractor.scaler(pixels))
        expected = theirs[0](pixels / 255)
    kept = theirs[0].weight.flatten(1).norm(dim=1).topk(16).indices.sort().values
    assert th.allclose(shown, expected[:, kept], atol=1e-4)
    # The next layer reads the filters that were kept, and keeps its own largest.
    weight = theirs[1].weight[:, kept]
    rows = weight.flatten(1).norm(dim=1).topk(16).indices.sort().values
    assert th.equal(own[1].weight, weight[rows]) and th.equal(own[1].bias, theirs[1].bias[rows])
    # Layers after the convolutions stay as they were.
    assert all(th.equal(*pair) for pair in zip(head, extractor.linear.parameters(), strict=True))


def test_a_student_of_the_same_size_has_all_filters(teacher):
    policy = student("CnnPolicy")
    assert inherit_filters(policy, teacher)
    pixels = PIXELS.float()
    extractor, theirs = policy.q_net.features_extractor, teacher.policy.q_net.features_extractor
    with th.no_grad():
        assert th.allclose(extractor.cnn(extractor.scaler(pixels)), theirs.cnn(pixels / 255), atol=1e-3)


def test_students_that_cannot_inherit_stay_as_they_were(teacher):
    wide = student(features_extractor_kwargs={"channels": (33, 16, 16)})
    mlp = STUDENT_POLICIES["MlpPolicy"](spaces.Box(-1, 1, (4,)), ACTIONS, lambda _: 1e-3)
    for policy in (wide, mlp):
        before = [parameter.clone() for parameter in policy.parameters()]
        assert not inherit_filters(policy, teacher)
        assert all(th.equal(*pair) for pair in zip(before, policy.parameters(), strict=True))


def learn(cls, policy, agent, n_timesteps=120, **kwargs):
    env = make_vec_env("MinAtar/Breakout-v1", 1, seed=0)
    own = {**KWARGS, "n_teacher_episodes": 0, "verbose": 1, "init_from_teacher": True, **kwargs}
    return cls(policy, env, agent, **own).learn(n_timesteps)


def test_in_a_run(capsys):
    env = make_vec_env("MinAtar/Breakout-v1", 1, seed=0)
    small = learn(PolicyDistillation, "GridCnnPolicy", DQN("MlpPolicy", env, seed=1, device="cpu"))
    assert "begins with filters" not in capsys.readouterr().out
    # A student teaches one with fewer filters.
    narrow = {"policy_kwargs": {"features_extractor_kwargs": {"channels": 4}}}
    for init, said in ((True, True), (False, False)):
        learn(PolicyDistillation, "GridCnnPolicy", small, init_from_teacher=init, **narrow)
        assert ("begins with filters" in capsys.readouterr().out) == said
    # A student that has learned already keeps its own.
    model = learn(PolicyDistillation, "GridCnnPolicy", small, **narrow)
    capsys.readouterr()
    model.learn(120)
    assert "begins with filters" not in capsys.readouterr().out


def test_quantized_students_inherit_too(capsys):
    env = make_vec_env("MinAtar/Breakout-v1", 1, seed=0)
    agent = PPO("MlpPolicy", env, seed=1, device="cpu", n_steps=8, batch_size=8)
    first = learn(QPD, "GridCnnPolicy", agent)
    assert "begins with filters" not in capsys.readouterr().out
    quantized = learn(QPD, "GridCnnPolicy", first, weight_bits=4, activation_bits=8, n_timesteps=200)
    assert "begins with filters" in capsys.readouterr().out
    assert np.isfinite(quantized.stored_bytes())
