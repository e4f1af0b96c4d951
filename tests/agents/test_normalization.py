"""Agents that were trained on Dict observations behind VecNormalize."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.cli import main as teachers
from sb3_distill.agents.files import AgentError
from sb3_distill.evaluation.cli import main as evaluate

KEYS = (["vector"], ["vector", "image"])


class Parts(gym.Env):
    """A vector far from 0, an image with its channels last, and a number; episodes of five steps."""

    action_space = spaces.Discrete(4)

    def __init__(self, render_mode=None):
        # Its own, because VecNormalize replaces the image's space in it.
        self.observation_space = spaces.Dict(
            {
                "vector": spaces.Box(-100, 100, (3,), np.float32),
                "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
                "one": spaces.Discrete(3),
            }
        )

    def observe(self):
        return {
            "vector": self.np_random.normal([5, -20, 60], [1, 4, 0.1]).astype(np.float32),
            "image": self.np_random.integers(0, 256, (36, 36, 3), dtype=np.uint8),
            "one": self.np_random.integers(3),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return self.observe(), {}

    def step(self, action):
        self.n_steps += 1
        return self.observe(), float(action), self.n_steps == 5, False, {}


@pytest.fixture(autouse=True)
def registered():
    gym.register("Parts-v0", entry_point=Parts)
    yield
    del gym.registry["Parts-v0"]


def trained(keys: list[str]) -> A2C:
    env = VecNormalize(make_vec_env("Parts-v0", 2, seed=0), norm_obs_keys=keys, clip_obs=2.0, epsilon=1e-4)
    return A2C("MultiInputPolicy", env, n_steps=8, policy_kwargs={"net_arch": [16]}, seed=0, device="cpu").learn(64)


def saved(model: A2C, folder: Path) -> Path:
    model.save(folder / "agent.zip")
    model.get_vec_normalize_env().save(str(folder / "vecnormalize.pkl"))
    return folder / "agent.zip"


def raw_observations():
    env = make_vec_env("Parts-v0", 64, seed=7)
    return env.reset()


def logits(policy, obs):
    with th.no_grad():
        return policy.get_distribution(policy.obs_to_tensor(obs)[0]).distribution.logits


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("from_file", [False, True])
def test_they_answer_as_their_model(keys, from_file, tmp_path):
    model = trained(keys)
    vec_normalize, raw = model.get_vec_normalize_env(), raw_observations()
    agent = load_teacher(saved(model, tmp_path) if from_file else model, device="cpu")
    expected = vec_normalize.normalize_obs(raw)
    for key, part in agent.normalize({key: th.as_tensor(part) for key, part in raw.items()}).items():
        assert part.numpy().dtype == expected[key].dtype
        assert np.allclose(part, expected[key], rtol=1e-6, atol=1e-6)
        assert key in keys or np.array_equal(part, raw[key])
    answers, _ = agent.answer(agent.policy.obs_to_tensor(raw)[0])
    wanted = logits(model.policy, expected)
    assert th.allclose(answers.preferences, wanted, atol=1e-5)
    assert not th.allclose(logits(model.policy, raw), wanted, atol=1e-2)
    assert np.array_equal(agent.predict(raw)[0], model.predict(expected, deterministic=True)[0])
    single = {key: part[0] for key, part in raw.items()}
    assert agent.predict(single)[0] == model.predict(expected, deterministic=True)[0][0]
    for key, space in agent.observation_space.spaces.items():
        assert (key in keys) == (isinstance(space, spaces.Box) and not np.isfinite(space.low).any())


def test_their_statistics_stay_as_they_were():
    model = trained(KEYS[0])
    agent, statistics = load_teacher(model, device="cpu"), model.get_vec_normalize_env().obs_rms["vector"]
    before = statistics.mean.copy()
    model.learn(64)
    assert np.array_equal(agent.normalization.mean["vector"], before) and not np.array_equal(statistics.mean, before)


@pytest.mark.parametrize("key", ["vector", "elsewhere"])
def test_statistics_of_another_agent_are_refused(key, tmp_path):
    model = trained(KEYS[0])
    env = model.get_vec_normalize_env()
    env.obs_rms, env.norm_obs_keys = {key: RunningMeanStd(shape=(2,))}, [key]
    with pytest.raises(AgentError, match=rf"of shape \(2,\) for the key '{key}', its observations"):
        load_teacher(saved(model, tmp_path))


def test_statistics_that_lack_a_key_or_are_not_finite_are_refused(tmp_path):
    model = trained(KEYS[0])
    env = model.get_vec_normalize_env()
    env.norm_obs_keys = KEYS[1]
    with pytest.raises(AgentError, match="KeyError: 'image'"):
        load_teacher(saved(model, tmp_path))
    env.norm_obs_keys, env.obs_rms["vector"].var[1] = KEYS[0], np.nan
    with pytest.raises(AgentError, match="hold NaN"):
        load_teacher(saved(model, tmp_path))


@pytest.mark.parametrize("keys", KEYS)
def test_they_are_listed_evaluated_and_distilled(keys, tmp_path, capsys):
    path = saved(trained(keys), tmp_path)
    agent = load_teacher(path, device="cpu")
    assert teachers([str(path)]) == 0 and "mean {'vector': [" in capsys.readouterr().out
    assert teachers([str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)[0]
    assert facts["normalization"]["mean"] == {key: agent.normalization.mean[key].tolist() for key in keys}
    assert evaluate([str(path), "--env", "Parts-v0", "--n-episodes", "2", "--device", "cpu"]) == 0
    env = VecNormalize(make_vec_env("Parts-v0", 2, seed=0), norm_obs_keys=keys)
    student = PolicyDistillation(
        "MultiInputPolicy", env, teacher=agent, learning_starts=16, batch_size=8, buffer_size=100, seed=0, device="cpu"
    )
    assert student.learn(64)._n_updates > 0
