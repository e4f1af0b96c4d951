"""Agents of SAC, TQC, CrossQ, TD3, DDPG and ARS answer as the SB3 models that they come from."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import ARS, TQC, CrossQ, MaskablePPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3 import DDPG, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.nn import functional as F

from sb3_distill import load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.cli import main
from tests.helpers import TRAINED_AGENTS

RUNS = sorted(run for algo in ("sac", "tqc", "ddpg", "ars") for run in TRAINED_AGENTS.glob(f"{algo}/*_1"))


class Arm(gym.Env):
    """Moves nothing, and has actions whose bounds are neither alike nor symmetric."""

    observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float64)
    action_space = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([3.0, 0.5], np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=5), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.np_random.normal(size=5), float(action[0]), False, self.np_random.random() < 0.1, {}


def make(algorithm: type[BaseAlgorithm], policy_kwargs: Any = None, env: Any = None, **kwargs: Any) -> Any:
    if algorithm is not ARS:
        kwargs = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8, **kwargs}
    policy_kwargs = {"net_arch": [8], **({} if policy_kwargs is None else policy_kwargs)}
    return algorithm(
        "MlpPolicy", env or DummyVecEnv([Arm]), policy_kwargs=policy_kwargs, seed=0, device="cpu", **kwargs
    )


WIDTHS = {"net_arch": {"pi": [7, 6], "qf": [5]}, "activation_fn": th.nn.ELU}
OFF_POLICY: dict[str, Callable[[], Any]] = {
    **{
        cls.__name__.lower() + name: lambda cls=cls, kwargs=kwargs: make(cls, kwargs)
        for cls in (SAC, TQC, CrossQ, TD3, DDPG)
        for name, kwargs in {"": None, "-widths": WIDTHS}.items()
    },
    **{
        cls.__name__.lower() + "-gsde": lambda cls=cls: make(cls, {"clip_mean": 0.3}, use_sde=True)
        for cls in (SAC, TQC, CrossQ)
    },
    "tqc-quantiles": lambda: make(TQC, {"n_quantiles": 3, "n_critics": 4}),
    "sac-one-critic": lambda: make(SAC, {"n_critics": 1}),
    "sac-shared": lambda: make(SAC, {"share_features_extractor": True}),
}


def observations(n: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 5))


def loaded_twice(model: Any, folder: Path) -> list[Teacher]:
    """From its file, and from the model itself."""
    model.save(folder / "agent")
    return [load_teacher(folder / "agent.zip", device="cpu"), load_teacher(model, device="cpu")]


@pytest.mark.parametrize("name", OFF_POLICY)
def test_actors_with_a_critic_answer_as_their_models(name, tmp_path):
    model = OFF_POLICY[name]().learn(30)
    obs = observations()
    tensor = th.as_tensor(obs)
    actor = model.policy.actor
    model.policy.set_training_mode(False)
    for teacher in loaded_twice(model, tmp_path):
        assert teacher.algo == name.partition("-")[0] and teacher.kind == "actor-critic"
        assert teacher.action_space == model.action_space
        expected = model.predict(obs, deterministic=True)[0]
        assert np.allclose(teacher.predict(obs)[0], expected, rtol=1e-6, atol=1e-6)
        answers, state = teacher.answer(tensor, with_values=True)
        assert state is None and teacher.answer(tensor)[0].values is None
        scaled = th.as_tensor(model.policy.scale_action(expected))
        assert th.allclose(answers.scaled_actions(model.action_space), scaled, atol=1e-5)
        with th.no_grad():
            # Where the agent itself would act
            values = model.critic(tensor, scaled)
            if isinstance(model, TQC):
                values = values.flatten(1).mean(dim=1)
            else:
                values = th.cat(values, dim=1).min(dim=1).values
            assert th.allclose(answers.values, values, rtol=1e-4, atol=1e-5)
            if isinstance(model, TD3):
                assert answers.point is not None
                continue
            mean, log_std, keywords = actor.get_action_dist_params(tensor)
            normal = actor.action_dist.proba_distribution(mean, log_std, **keywords).distribution
        assert answers.gaussian is not None and answers.gaussian.squashed
        assert th.allclose(answers.gaussian.mean, normal.mean, atol=1e-6)
        assert th.allclose(answers.gaussian.std, normal.stddev, atol=1e-6)


@pytest.mark.parametrize("name", ["sac", "sac-gsde", "td3"])
def test_drawn_actions_are_those_of_the_model(name):
    """In mean and deviation, within the bounds; agents without a distribution draw nothing."""
    model = OFF_POLICY[name]()
    teacher = load_teacher(model, device="cpu")
    obs = np.repeat(observations(1), 4_000, axis=0)
    th.manual_seed(0)
    drawn = teacher.sample(obs, [np.random.default_rng(0)] * len(obs))[0]
    expected = teacher.predict(obs, deterministic=False)[0]
    if name == "td3":
        assert np.allclose(drawn, model.predict(obs)[0], atol=1e-6)
    assert np.allclose(drawn.mean(axis=0), expected.mean(axis=0), atol=0.05)
    assert np.allclose(drawn.std(axis=0), expected.std(axis=0), atol=0.05)
    assert model.action_space.contains(drawn.min(axis=0)) and model.action_space.contains(drawn.max(axis=0))


def random_weights(policy: Any) -> None:
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(th.randn(parameter.shape, generator=generator))


ARS_POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("MlpPolicy", {}),
    "wide": ("MlpPolicy", {"net_arch": [9, 4], "activation_fn": th.nn.Tanh}),
    "unsquashed": ("MlpPolicy", {"squash_output": False}),
    "no bias": ("MlpPolicy", {"with_bias": False}),
    "no layer": ("MlpPolicy", {"net_arch": []}),
    "linear": ("LinearPolicy", {}),
    "squashed linear": ("LinearPolicy", {"squash_output": True, "with_bias": True}),
}


@pytest.mark.parametrize("env", [Arm, lambda: gym.make("CartPole-v1")], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", ARS_POLICIES)
def test_ars_answers_as_its_models(name, env, tmp_path):
    policy, kwargs = ARS_POLICIES[name]
    model = ARS(policy, DummyVecEnv([env]), policy_kwargs=kwargs, zero_policy=False, seed=0, device="cpu")
    random_weights(model.policy)
    obs = np.random.default_rng(0).normal(size=(64, *model.observation_space.shape))
    for teacher in loaded_twice(model, tmp_path):
        assert teacher.algo == "ars" and not teacher.has_critic
        expected = model.predict(obs)[0]
        assert np.allclose(teacher.predict(obs)[0], expected, rtol=1e-6, atol=1e-6)
        answers, _ = teacher.answer(th.as_tensor(obs), with_values=True)
        assert answers.values is None
        if isinstance(model.action_space, spaces.Discrete):
            assert np.array_equal(answers.preferences.argmax(dim=1).numpy(), expected)
        else:
            unscaled = answers.sample([np.random.default_rng()] * 64, model.action_space)
            assert np.allclose(unscaled, expected, atol=1e-5)


def test_ars_files_of_early_versions_are_read(tmp_path):
    """Their linear policies had one layer, no sequence of layers."""
    model = ARS("LinearPolicy", DummyVecEnv([Arm]), zero_policy=False, seed=0, device="cpu")
    model.save(tmp_path / "agent")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stored = io.BytesIO()
    th.save({"action_net.weight": model.policy.action_net[0].weight.detach()}, stored)
    with zipfile.ZipFile(tmp_path / "agent.zip", "w") as archive:
        for name, content in {**members, "policy.pth": stored.getvalue()}.items():
            archive.writestr(name, content)
    assert np.allclose(
        load_teacher(tmp_path / "agent.zip").predict(observations())[0], model.predict(observations())[0]
    )


@pytest.mark.parametrize("algorithm", [SAC, TD3, ARS])
def test_statistics_of_vecnormalize_are_used(algorithm, tmp_path):
    env = VecNormalize(DummyVecEnv([Arm]), clip_obs=1.5)
    model = make(algorithm, env=env)
    random_weights(model.policy)
    env.reset()
    for _ in range(20):
        env.step(np.array([env.action_space.sample()]))
    env.save(str(tmp_path / "vecnormalize.pkl"))
    raw = observations() * 3
    expected = model.predict(env.normalize_obs(raw), deterministic=True)[0]
    for teacher in loaded_twice(model, tmp_path):
        assert np.allclose(teacher.predict(raw)[0], expected, atol=1e-5)
        scaled = teacher.answer(th.as_tensor(raw))[0].scaled_actions(model.action_space)
        assert np.allclose(scaled, model.policy.scale_action(expected), atol=1e-5)


def test_squashed_agents_of_ppo(tmp_path):
    model = PPO(
        "MlpPolicy", DummyVecEnv([Arm]), use_sde=True, policy_kwargs={"squash_output": True}, seed=0, device="cpu"
    )
    random_weights(model.policy)
    for teacher in loaded_twice(model, tmp_path):
        answers, _ = teacher.answer(th.as_tensor(observations()))
        assert answers.gaussian is not None and answers.gaussian.squashed
        expected = model.policy.scale_action(model.predict(observations(), deterministic=True)[0])
        assert np.allclose(answers.scaled_actions(model.action_space), expected, atol=1e-5)


def test_agents_with_masks_are_known(tmp_path):
    """Also in a folder of another algorithm."""
    env = InvalidActionEnvDiscrete()
    model = MaskablePPO(MaskableActorCriticPolicy, env, n_steps=8, batch_size=8, device="cpu")
    (tmp_path / "ppo" / "CartPole-v1_1").mkdir(parents=True)
    path = tmp_path / "ppo" / "CartPole-v1_1" / "CartPole-v1.zip"
    model.save(path)
    for source in (model, path):
        assert load_teacher(source).algo == "ppo_mask"


def test_the_verb_lists_them(tmp_path, capsys):
    for algorithm in (SAC, TD3, DDPG, TQC, CrossQ, ARS):
        run = tmp_path / algorithm.__name__.lower() / "Arm-v0_1"
        (run / "Arm-v0").mkdir(parents=True)
        make(algorithm).save(run / "Arm-v0")
        (run / "Arm-v0" / "args.yml").write_text("env: Arm-v0\n")
    assert main(["teachers", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "Arm-v0_1" in line]) == 6


def plain_actions(algo: str, weights: dict[str, th.Tensor], obs: th.Tensor) -> th.Tensor:
    """The agent's scaled actions with nothing but torch's functions."""
    if algo == "ars":
        return F.linear(obs, weights["action_net.weight"]).clamp(-1, 1)
    body = "actor.mu" if algo == "ddpg" else "actor.latent_pi"
    layers = sorted({int(name.split(".")[2]) for name in weights if name.startswith(f"{body}.")})
    hidden = obs
    for position, layer in enumerate(layers):
        hidden = F.linear(hidden, weights[f"{body}.{layer}.weight"], weights[f"{body}.{layer}.bias"])
        if algo != "ddpg" or position < len(layers) - 1:
            hidden = hidden.relu()
    if algo == "ddpg":
        return hidden.tanh()
    head = "actor.mu.0" if "actor.mu.0.weight" in weights else "actor.mu"
    mean = F.linear(hidden, weights[f"{head}.weight"], weights[f"{head}.bias"])
    # gSDE's mean is clipped.
    return (mean.clamp(-2, 2) if head.endswith("0") else mean).tanh()


@pytest.mark.skipif(not RUNS, reason="no trained agents at hand: set RL_TRAINED_AGENTS")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_zoo_agents_act_as_plain_torch(run):
    teacher = load_teacher(run, device="cpu")
    assert f"{teacher.algo}/{teacher.env_id}_1" == f"{run.parent.name}/{run.name}"
    with zipfile.ZipFile(next(run.glob("*.zip"))) as archive:
        weights = th.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
    raw = np.random.default_rng(0).normal(size=(64, *teacher.observation_space.shape)).astype(np.float32)
    seen = raw
    if teacher.normalization is not None:
        env = VecNormalize(make_vec_env("Pendulum-v1"))
        env.observation_space = teacher.observation_space
        env.obs_rms.mean, env.obs_rms.var = teacher.normalization.mean, teacher.normalization.var
        seen = env.normalize_obs(raw)
    scaled = plain_actions(run.parent.name, weights, th.as_tensor(seen).float())
    low, high = teacher.action_space.low, teacher.action_space.high
    expected = low + 0.5 * (scaled.numpy() + 1) * (high - low)
    assert np.allclose(teacher.predict(raw)[0], expected, atol=1e-4)
    assert np.allclose(teacher.answer(th.as_tensor(raw))[0].scaled_actions(teacher.action_space), scaled, atol=1e-4)
