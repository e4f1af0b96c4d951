"""Files of strangers for agents with continuous actions, and environments that do not fit them."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy

from sb3_distill import QPD, Answers, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.rebuild.off_policy import build_sac
from sb3_distill.visualize.tsne import _is_same
from tests.agents.test_continuous_teachers import Arm

SMALL: dict[str, Any] = {"buffer_size": 10, "seed": 0, "device": "cpu"}
OBSERVATIONS = spaces.Box(-1, 1, (3,))
LARGEST = np.finfo(np.float32).max


@pytest.fixture(scope="module")
def weights() -> dict[str, th.Tensor]:
    return SACPolicy(OBSERVATIONS, spaces.Box(-1, 1, (1,)), lambda _: 0.0, net_arch=[4]).state_dict()


@pytest.mark.parametrize(
    "actions",
    [spaces.Discrete(5), spaces.MultiBinary(1), spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(-LARGEST, LARGEST, (1,))],
)
def test_actions_must_be_bounded(weights: dict[str, th.Tensor], actions: spaces.Space) -> None:
    with pytest.raises(AgentError, match="SAC has continuous actions with finite bounds, but this file states"):
        build_sac(weights, OBSERVATIONS, actions, {})


def test_an_actor_alone_is_named(weights: dict[str, th.Tensor]) -> None:
    actor = {name: tensor for name, tensor in weights.items() if name.startswith("actor.")}
    with pytest.raises(AgentError, match="weights of the critic are missing: save the whole SAC agent"):
        build_sac(actor, OBSERVATIONS, spaces.Box(-1, 1, (1,)), {})


@pytest.mark.parametrize("model_class, policy_class", [(SAC, SACPolicy), (TD3, TD3Policy)])
def test_policies_of_ones_own_are_named_and_load_with_pickle(
    model_class: Any, policy_class: Any, tmp_path: Path
) -> None:
    own = type("OwnPolicy", (policy_class,), {"__module__": __name__})
    globals()["OwnPolicy"] = own
    model = model_class(own, "Pendulum-v1", policy_kwargs={"net_arch": [4]}, **SMALL)
    model.save(tmp_path / "agent")
    with pytest.raises(AgentError, match="policy_class is not one of SB3's own"):
        load_teacher(tmp_path / "agent.zip")
    teacher = load_teacher(tmp_path / "agent.zip", allow_pickle=True)
    obs = np.ones((2, 3), np.float32)
    assert np.allclose(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0], atol=1e-6)


def test_other_bounds_need_a_wrapper() -> None:
    teacher = TD3("MlpPolicy", RescaleAction(gym.make("Pendulum-v1"), -1, 1), policy_kwargs={"net_arch": [4]}, **SMALL)
    kwargs: dict[str, Any] = {"teacher": teacher, "n_teacher_episodes": 0, "allow_env_mismatch": True, "device": "cpu"}
    with pytest.raises(ValueError, match=r"answers on the scale of its own bounds.*RescaleAction"):
        QPD("MlpPolicy", "Pendulum-v1", **kwargs)
    QPD("MlpPolicy", RescaleAction(gym.make("Pendulum-v1"), -1, 1), **kwargs)


class FarArm(Arm):
    """Its actions have no bounds, but for those that their type has."""

    action_space = spaces.Box(-LARGEST, LARGEST, (2,))


class FarTeacher:
    observation_space = FarArm.observation_space
    action_space = FarArm.action_space

    def answer(self, obs: th.Tensor, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        return Answers(point=3.0 * obs[:, :2]), None


def test_actions_without_bounds_are_compared_as_they_are() -> None:
    kwargs: dict[str, Any] = {"teacher": FarTeacher(), "n_teacher_episodes": 0, "device": "cpu", "value_coef": 0.0}
    model = QPD("MlpPolicy", FarArm(), weight_bits=None, learning_starts=50, **kwargs).learn(100)
    samples = model.replay_buffer.sample(16)
    means = model.policy.get_distribution(samples.observations).distribution.mean
    distances = (means - 3.0 * samples.observations[:, :2]).abs()
    losses, metrics = model.student_loss(model.student, samples)
    assert float(metrics["action_distance"]) == pytest.approx(float(distances.mean()))
    huber = th.where(distances < 1, 0.5 * distances**2, distances - 0.5)
    assert losses.tolist() == pytest.approx(huber.sum(dim=1).tolist(), rel=1e-4)
    with pytest.raises(ValueError, match="squash_output=True needs continuous actions with bounds, not Box"):
        QPD("MlpPolicy", FarArm(), policy_kwargs={"squash_output": True}, **kwargs)


def test_entropy_needs_a_divergence() -> None:
    with pytest.raises(ValueError, match=r"ent_coef=0.01 rewards a wide distribution.*leave ent_coef at 0"):
        QPD(
            "MlpPolicy",
            "Pendulum-v1",
            teacher=TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, **SMALL),
            ent_coef=0.01,
            device="cpu",
        )


def test_every_student_needs_a_divergence_for_its_entropy() -> None:
    teacher = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, **SMALL)
    squashed = {"policy_kwargs": {"squash_output": True}, "ent_coef": 0.01, "rollout_policy": "teacher"}
    kwargs = {"teacher": teacher, "n_teacher_episodes": 0, "device": "cpu", **squashed}
    QPD("MlpPolicy", "Pendulum-v1", **kwargs)
    with pytest.raises(ValueError, match=r"students\['clipped'\]: ent_coef=0.01 rewards a wide distribution"):
        QPD("MlpPolicy", "Pendulum-v1", students={"clipped": {"policy_kwargs": {}}}, **kwargs)


def test_teachers_of_other_kinds_of_actions_are_named() -> None:
    with pytest.raises(ValueError, match="choose a teacher with actions of the same kind"):
        QPD(
            "MlpPolicy",
            "Pendulum-v1",
            teacher=DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, **SMALL),
            device="cpu",
        )


def test_layers_without_bias_are_compared() -> None:
    first, second = (th.nn.Linear(2, 2, bias=False) for _ in range(2))
    assert _is_same(first, first) and not _is_same(first, second) and not _is_same(first, th.nn.Linear(2, 2))
