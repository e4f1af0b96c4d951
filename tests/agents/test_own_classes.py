"""Agents with policy classes and features extractors of the user's own."""

from collections import OrderedDict

import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces
from sb3_contrib import QRDQN
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_distill import QPD, PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy
from sb3_distill.networks.extractors import StudentCNN
from sb3_distill.networks.policies import StudentPolicy


class OwnExtractor(BaseFeaturesExtractor):
    """What no stock extractor computes, in a layer of its own."""

    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, 5)
        self.own = nn.Linear(4, 5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.own(observations).sin()


class OwnStudent(StudentPolicy):
    pass


class OwnActorCriticStudent(ActorCriticMlpPolicy):
    pass


class OwnDQN(DQNPolicy):
    pass


class OwnQRDQN(QRDQNPolicy):
    pass


class OwnActorCritic(ActorCriticPolicy):
    pass


EXTRACTOR = {"features_extractor_class": OwnExtractor, "net_arch": [8]}
PD, PPO_KWARGS = {"n_teacher_episodes": 0, "device": "cpu", "seed": 0}, {"n_steps": 8, "batch_size": 8, "seed": 0}


def pd(policy, **kwargs):
    return PolicyDistillation(policy, "CartPole-v1", DQN("MlpPolicy", "CartPole-v1", buffer_size=10), **PD, **kwargs)


def qpd(policy, **kwargs):
    return QPD(policy, "CartPole-v1", PPO("MlpPolicy", "CartPole-v1", **PPO_KWARGS), **PD, **kwargs)


AGENTS = {
    "pd, own extractor": ("pd", lambda: pd("MlpPolicy", policy_kwargs=EXTRACTOR)),
    "pd, own policy": ("pd", lambda: pd(OwnStudent)),
    "qpd, own extractor": ("qpd", lambda: qpd("MlpPolicy", policy_kwargs=EXTRACTOR)),
    "qpd, own policy": ("qpd", lambda: qpd(OwnActorCriticStudent)),
    "qpd, own extractor, bits": ("qpd", lambda: qpd("MlpPolicy", policy_kwargs=EXTRACTOR, weight_bits=4)),
    "dqn, own policy": ("dqn", lambda: DQN(OwnDQN, "CartPole-v1", buffer_size=10, device="cpu")),
    "qrdqn, own policy": ("qrdqn", lambda: QRDQN(OwnQRDQN, "CartPole-v1", buffer_size=10, device="cpu")),
    "ppo, own policy": ("ppo", lambda: PPO(OwnActorCritic, "CartPole-v1", device="cpu", **PPO_KWARGS)),
    "rtpd, own extractor": (
        "dqn",
        lambda: RealTimeDistillDQN(
            "MlpPolicy", "CartPole-v1", ["MlpPolicy"], buffer_size=10, device="cpu", policy_kwargs=EXTRACTOR
        ),
    ),
    "rtpd, own policy": (
        "dqn",
        lambda: RealTimeDistillDQN(OwnDQN, "CartPole-v1", ["MlpPolicy"], buffer_size=10, device="cpu"),
    ),
}


@pytest.mark.parametrize("name", AGENTS)
def test_own_classes_load_where_the_file_is_trusted(name, tmp_path):
    algo, make = AGENTS[name]
    model = make()
    model.save(tmp_path / "agent")
    with pytest.raises(
        AgentError, match=r"is not one of SB3's own .*load it with allow_pickle=True .export: --allow-pickle"
    ):
        load_teacher(tmp_path / "agent.zip")
    teacher = load_teacher(tmp_path / "agent.zip", allow_pickle=True, device="cpu")
    assert teacher.algo == algo
    obs = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    assert np.array_equal(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0])
    ours, theirs = teacher.policy.state_dict(), model.policy.state_dict()
    assert ours.keys() == theirs.keys() and all(th.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(("folder", "make"), [("dqn", lambda: pd("MlpPolicy")), ("ppo", lambda: qpd("MlpPolicy"))])
def test_students_in_folders_of_other_algorithms(folder, make, tmp_path):
    path = tmp_path / "logs" / folder / "CartPole-v1_1" / "CartPole-v1.zip"
    path.parent.mkdir(parents=True)
    student = make()
    student.save(path)
    assert load_teacher(path, device="cpu").algo == load_teacher(student).algo == {"dqn": "pd", "ppo": "qpd"}[folder]


def test_stock_agents_with_our_extractor(tmp_path):
    env = make_vec_env(lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=3), 1)
    extractor = {"features_extractor_class": StudentCNN, "features_extractor_kwargs": {"channels": (4, 4, 4)}}
    kwargs = {"normalize_images": False, "net_arch": [], **extractor}
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, policy_kwargs=kwargs, seed=0, device="cpu")
    model.save(tmp_path / "ppo" / "Fake-v0_1" / "Fake-v0")
    settings = tmp_path / "ppo" / "Fake-v0_1" / "Fake-v0"
    settings.mkdir()
    (settings / "config.yml").write_text(yaml.dump(OrderedDict(policy="CnnPolicy", policy_kwargs=kwargs)))
    obs = model.env.reset()
    actions = load_teacher(tmp_path / "ppo" / "Fake-v0_1", device="cpu").predict(obs)[0]
    assert np.array_equal(actions, model.predict(obs, deterministic=True)[0])
