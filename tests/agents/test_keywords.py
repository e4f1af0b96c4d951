"""Every keyword that changes what a policy computes survives its file."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, CrossQ
from sb3_contrib.ars import policies as ars
from sb3_contrib.crossq import policies as crossq
from sb3_contrib.qrdqn import policies as qrdqn
from sb3_contrib.tqc import policies as tqc
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common import policies as actor_critic
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.dqn import policies as dqn
from stable_baselines3.sac import policies as sac
from stable_baselines3.td3 import policies as td3
from torch import nn

from sb3_distill import QPD, load_teacher
from sb3_distill.base.students import student_model
from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy, ActorCriticMultiInputPolicy
from sb3_distill.networks.dqn_policies import DQNGridCnnPolicy, DQNStudentCnnPolicy
from sb3_distill.networks.extractors import GridCNN, StudentCNN
from sb3_distill.networks.policies import StudentPolicy
from tests.agents.test_spaces import Still, sample

VECTOR = spaces.Box(-1, 1, (5,), np.float32)
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
SCALED = spaces.Box(0, 1, (3, 36, 36), np.float32)
GRID = spaces.Box(0, 1, (6, 6, 3), np.uint8)
PARTS = spaces.Dict({"image": IMAGE, "scaled": SCALED, "vector": VECTOR, "one": spaces.Discrete(3)})
ARM = spaces.Box(-1e6, 1e6, (2, 2), np.float32)
COLOURS = {"features_extractor_class": NatureCNN, "features_extractor_kwargs": {"features_dim": 8}}
COMBINED = {"features_extractor_class": CombinedExtractor, "features_extractor_kwargs": {"cnn_output_dim": 8}}
FRAMES = {
    "features_extractor_class": StudentCNN,
    "features_extractor_kwargs": {"channels": (2, 3, 4), "features_dim": 8},
}

OFF_POLICY: dict[str, Any] = {"sac": SAC, "td3": TD3, "ddpg": DDPG, "tqc": TQC, "crossq": CrossQ}
# ARS has no features extractors, and the others have those of SAC.
VECTORS_ONLY = ("ars", "td3", "ddpg", "tqc", "crossq")

# What a value needs: the observations, and the keywords beside it; for gSDE, several continuous actions
NEEDS: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "vector": (VECTOR, {}),
    "flat image": (IMAGE, {"features_extractor_class": FlattenExtractor}),
    "image": (IMAGE, COLOURS),
    "scaled image": (SCALED, COLOURS),
    "dict": (PARTS, COMBINED),
    "frames": (IMAGE, FRAMES),
    # The same, scaled by the policy's class as students scale them
    "frames of ours": (IMAGE, FRAMES),
    "grid": (GRID, {"features_extractor_class": GridCNN}),
    "gsde": (VECTOR, {"use_sde": True}),
}
# Keywords of policies -> values that change what a policy computes, with what they need; none: they change nothing once
# the weights are there
POLICY: dict[str, list[tuple[Any, str]]] = {
    "net_arch": [([3], "vector"), ([7, 3], "vector"), ([], "image")],
    "activation_fn": [(nn.ELU, "vector"), (nn.LeakyReLU, "image"), (nn.ReLU, "dict"), (nn.Tanh, "vector")],
    "normalize_images": [
        (value, need) for value in (False, True) for need in ("flat image", "image", "dict", "frames")
    ],
    "features_extractor_class": [(FlattenExtractor, "flat image"), (NatureCNN, "image"), (GridCNN, "grid")],
    "features_extractor_kwargs": [],
    "n_quantiles": [(5, "vector")],
    "use_sde": [(True, "vector")],
    "full_std": [(False, "gsde"), (True, "gsde")],
    "use_expln": [(True, "gsde")],
    "squash_output": [(True, "gsde"), (False, "gsde")],
    "clip_mean": [(0.3, "gsde"), (0.0, "gsde")],
    "n_critics": [(3, "vector"), (1, "dict")],
    "batch_norm": [(False, "vector"), (False, "gsde")],
    "batch_norm_eps": [(0.5, "vector")],
    "with_bias": [(False, "vector"), (True, "vector")],
    "share_features_extractor": [(False, "image"), (False, "dict"), (False, "vector")],
    **{name: [] for name in ("ortho_init", "log_std_init", "optimizer_class", "optimizer_kwargs")},
    **{name: [] for name in ("batch_norm_momentum", "renorm_warmup_steps")},
    # The layers in few bits are read from the weights (tests/quantization/test_precision.py)
    "quantize": [],
}
# The same of features extractors, as features_extractor_kwargs
EXTRACTORS: dict[type[nn.Module], dict[str, list[tuple[Any, str]]]] = {
    FlattenExtractor: {},
    NatureCNN: {"features_dim": [(5, "image")], "normalized_image": [(True, "scaled image")]},
    CombinedExtractor: {"cnn_output_dim": [(5, "dict")], "normalized_image": [(True, "dict"), (False, "dict")]},
    StudentCNN: {
        "channels": [((1, 2, 3), "frames")],
        "features_dim": [(5, "frames")],
        "pool": [("max", "frames")],
        "standardize": [("frame", "frames"), ("scalar", "frames"), (None, "frames")],
        "normalize_images": [(False, "frames"), (True, "frames")],
    },
    GridCNN: {"channels": [(4, "grid")], "features_dim": [(5, "grid")], "pool": [("max", "grid")]},
}
# All policies that can be read, under the algorithm that reads them
POLICIES: dict[str, list[type]] = {
    "dqn": [dqn.DQNPolicy, dqn.CnnPolicy, dqn.MultiInputPolicy, DQNGridCnnPolicy, DQNStudentCnnPolicy],
    "qrdqn": [qrdqn.QRDQNPolicy, qrdqn.CnnPolicy, qrdqn.MultiInputPolicy],
    "ppo": [
        actor_critic.ActorCriticPolicy,
        actor_critic.ActorCriticCnnPolicy,
        actor_critic.MultiInputActorCriticPolicy,
    ],
    "sac": [sac.SACPolicy, sac.CnnPolicy, sac.MultiInputPolicy],
    "td3": [td3.TD3Policy, td3.CnnPolicy, td3.MultiInputPolicy],
    "ddpg": [td3.TD3Policy],
    "tqc": [tqc.TQCPolicy, tqc.CnnPolicy, tqc.MultiInputPolicy],
    "crossq": [crossq.CrossQPolicy],
    "ars": [ars.ARSPolicy, ars.ARSLinearPolicy],
    "pd": [StudentPolicy],
    "qpd": [ActorCriticMlpPolicy],
}


def keywords_of(cls: type) -> set[str]:
    """The keywords of a constructor, with those that it hands on."""
    parameters = inspect.signature(cls.__init__).parameters
    handed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    own = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    parent = next(base for base in cls.__mro__[1:] if "__init__" in vars(base) and base is not object)
    return (own | (keywords_of(parent) if handed_on else set())) - {
        *("self", "observation_space", "action_space", "lr_schedule")
    }


def test_every_keyword_was_considered():
    for algo, policies in POLICIES.items():
        for policy in policies:
            assert keywords_of(policy) <= POLICY.keys(), (algo, policy)
    for extractor, keywords in EXTRACTORS.items():
        assert keywords_of(extractor) == keywords.keys(), extractor


def cases():
    for algo, policies in POLICIES.items():
        known = set.union(*(keywords_of(policy) for policy in policies))
        for name in sorted(known):
            # Students of QPD have a plain Gaussian.
            if algo == "qpd" and name in ("use_sde", "full_std", "use_expln", "squash_output"):
                continue
            for value, need in [
                case for case in POLICY[name] if algo not in VECTORS_ONLY or case[1] in ("vector", "gsde")
            ]:
                yield pytest.param(algo, {name: value}, need, id=f"{algo}-{name}={value}-{need}")
        for keywords in EXTRACTORS.values() if algo not in VECTORS_ONLY else ():
            for name, values in keywords.items():
                for value, need in values:
                    case = {"features_extractor_kwargs": {name: value}}
                    yield pytest.param(algo, case, need, id=f"{algo}-extractor {name}={value}-{need}")


def build(algo: str, case: dict[str, Any], need: str) -> Any:
    space, beside = NEEDS[need]
    extractor = {**beside.get("features_extractor_kwargs", {}), **case.get("features_extractor_kwargs", {})}
    kwargs = {"net_arch": [6], **beside, **case, **({"features_extractor_kwargs": extractor} if extractor else {})}
    env = Still(space, ARM if kwargs.get("use_sde") or algo in OFF_POLICY else spaces.Discrete(4))
    settings = {"seed": 0, "device": "cpu", "policy_kwargs": kwargs}
    if algo == "pd":
        return student_model(StudentPolicy, kwargs, space, env.action_space, "cpu")
    if algo == "qpd":
        policy = ActorCriticMultiInputPolicy if need == "dict" else ActorCriticMlpPolicy
        teacher = PPO("MultiInputPolicy" if need == "dict" else "MlpPolicy", env, n_steps=8, batch_size=8, device="cpu")
        return QPD(policy, env, teacher, buffer_size=10, **settings)
    if algo == "ars":
        kwargs.pop("use_sde", None)
        return ARS("MlpPolicy", env, **settings)
    if algo in OFF_POLICY:
        # TD3 has no such exploration.
        sde = {"use_sde": kwargs.pop("use_sde")} if "use_sde" in kwargs else {}
        policy = POLICIES[algo][-1] if need == "dict" else POLICIES[algo][0]
        return OFF_POLICY[algo](policy, env, buffer_size=10, **sde, **settings)
    if algo == "ppo":
        use_sde = kwargs.pop("use_sde", False)
        policy = actor_critic.MultiInputActorCriticPolicy if need == "dict" else actor_critic.ActorCriticPolicy
        return PPO(policy, env, n_steps=8, batch_size=8, use_sde=use_sde, **settings)
    if algo == "qrdqn":
        policy = qrdqn.MultiInputPolicy if need == "dict" else qrdqn.QRDQNPolicy
        return QRDQN(policy, env, buffer_size=10, **settings)
    policy = {"dict": dqn.MultiInputPolicy, "frames of ours": DQNStudentCnnPolicy}.get(need, dqn.DQNPolicy)
    return DQN(policy, env, buffer_size=10, **settings)


def change_weights(policy: nn.Module) -> None:
    """Random weights, and answers that depend on the observations."""
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.3 * th.randn(parameter.shape, generator=generator))


def fields(policy: Any, obs: Any) -> list[np.ndarray]:
    """All that a policy answers: values or quantiles of actions, or its distribution and its critic."""
    # As it plays: of CrossQ, statistics are what they are between updates; frames are computed in float32.
    policy.set_training_mode(False)
    with th.no_grad():
        tensors = policy.obs_to_tensor(obs)[0]
        if hasattr(policy, "quantile_net"):
            return [policy.quantile_net(tensors).numpy()]
        if hasattr(policy, "q_net"):
            return [policy.q_net(tensors).numpy()]
        if hasattr(policy, "action_net") and not hasattr(policy, "value_net"):
            return [policy(tensors).numpy()]
        if hasattr(policy, "actor"):
            actions = policy._predict(tensors, deterministic=True)
            critic = policy.critic(tensors, actions)
            found = [actions, *([critic] if isinstance(critic, th.Tensor) else critic)]
            if hasattr(policy.actor, "get_action_dist_params"):
                found += policy.actor.get_action_dist_params(tensors)[:2]
            return [each.numpy() for each in found]
        distribution = policy.get_distribution(tensors).distribution
        critic = policy.predict_values(tensors).numpy()
        if isinstance(distribution, th.distributions.Normal):
            return [distribution.mean.numpy(), distribution.stddev.numpy(), critic]
        return [distribution.logits.numpy(), critic]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("algo", "case", "need"), list(cases()))
def test_the_file_answers_as_the_model(algo, case, need, tmp_path):
    model = build(algo, case, need)
    change_weights(model.policy)
    model.save(tmp_path / "agent")
    teacher = load_teacher(tmp_path / "agent.zip", device="cpu")
    assert teacher.algo == algo
    obs = sample(model.observation_space, 8)
    for expected, found in zip(fields(model.policy, obs), fields(teacher.policy, obs), strict=True):
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    # With squash_output, the distribution before it is the same.
    expected = model.policy.predict(obs, deterministic=True)[0]
    assert np.allclose(teacher.predict(obs)[0], expected, rtol=1e-4, atol=1e-4)
