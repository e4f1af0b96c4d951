"""Whatever the spaces and the keywords: a student answers as it did, however it is read."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO
from torch import nn

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.evaluation.scoring import score_agent
from sb3_distill.export.export import FLOAT_FILE, export_agent
from sb3_distill.export.runner import PolicyRunner

ENV_ID = "Drawn-v0"


class Drawn(gym.Env):
    """Observations drawn from the space, and returns that tell the actions."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.n = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.n += 1
        return self.observation_space.sample(), float(self.n * np.sum(action)), self.n == 5, False, {}


@st.composite
def boxes(draw):
    dtype = np.dtype(draw(st.sampled_from(["uint8", "int8", "int32", "int64", "float32", "float64", "bool"])))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    if dtype == np.bool_:
        return spaces.Box(0, 1, shape, dtype.type)
    low = draw(st.sampled_from([0, 1, 3] if dtype == np.uint8 else [-7, 0, 2]))
    high = draw(st.sampled_from([4, 10, 100] + ([255] if dtype == np.uint8 else [])))
    lows, highs = np.full(shape, low, dtype), np.full(shape, high, dtype)
    kind = draw(st.sampled_from(["equal", "of each entry", "unbounded"]))
    if kind == "of each entry":
        highs.flat[0] -= 1
    elif kind == "unbounded" and dtype.kind == "f":
        lows.flat[0], highs.flat[-1] = -np.inf, np.inf
    return spaces.Box(lows, highs, shape, dtype.type)


@st.composite
def images(draw):
    channels, channels_first = draw(st.sampled_from([1, 3, 4])), draw(st.booleans())
    shape = (channels, 36, 40) if channels_first else (36, 40, channels)
    return spaces.Box(0, 255, shape, np.uint8)


PARTS = st.one_of(
    boxes(),
    images(),
    st.integers(1, 4).map(spaces.MultiBinary),
    st.lists(st.integers(2, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete),
    st.integers(2, 5).map(spaces.Discrete),
)
KEYS = st.sampled_from(["a", "it's", 'the "b"', "c (d, e"])
OBSERVATIONS = st.one_of(PARTS, st.dictionaries(KEYS, PARTS, min_size=1, max_size=3).map(spaces.Dict))
CONTINUOUS = st.sampled_from([(1,), (3,), (2, 2)]).map(lambda shape: spaces.Box(-2, 0.5, shape, np.float32))
KEYWORDS = st.fixed_dictionaries(
    {
        "net_arch": st.sampled_from([[], [6], [6, 5]]),
        "activation_fn": st.sampled_from([nn.ReLU, nn.Tanh, nn.ELU]),
        "normalize_images": st.booleans(),
    }
)


def train(algo: str, policy: str, env: gym.Env, kwargs: dict[str, Any]) -> Any:
    """A student that has learned a little, of a teacher that has learned nothing."""
    common = {"seed": 0, "device": "cpu"}
    of_teacher = "MultiInputPolicy" if policy == "MultiInputPolicy" else "MlpPolicy"
    arguments = {"n_teacher_episodes": 0, "learning_starts": 8, "buffer_size": 32, "batch_size": 8, **common, **kwargs}
    if algo == "pd":
        small = {"net_arch": [4]}
        teacher: Any = DQN(of_teacher, env, buffer_size=10, policy_kwargs=small, **common)
        return PolicyDistillation(policy, env, teacher, **arguments).learn(24)
    teacher = PPO(of_teacher, env, n_steps=8, batch_size=8, policy_kwargs={"net_arch": [4]}, **common)
    return QPD(policy, env, teacher, **arguments).learn(24)


def observations(space: spaces.Space, n: int = 12) -> Any:
    space.seed(1)
    drawn = [space.sample() for _ in range(n)]
    return (
        {key: np.stack([obs[key] for obs in drawn]) for key in space}
        if isinstance(space, spaces.Dict)
        else np.stack(drawn)
    )


def answers(policy: Any, obs: Any) -> np.ndarray:
    """What a student's policy computes for its actions."""
    with th.no_grad():
        answered = policy.answer(policy.obs_to_tensor(obs)[0])
    return (answered.gaussian.mean if answered.gaussian is not None else answered.preferences).numpy()


def check_export(agent: Teacher, source: Any, folder: Any, obs: Any, expected: np.ndarray) -> None:
    arguments = {"env_id": ENV_ID, "n_observations": 12, "max_disagreement": 1.0}
    if not isinstance(agent.observation_space, spaces.Box):
        with pytest.raises(AgentError, match="is no chain of layers"):
            export_agent(source, folder, **arguments)
        return
    description = export_agent(source, folder, **arguments)
    if FLOAT_FILE not in description.files:
        # Quantized: an input on the border between two levels may fall to either side.
        assert all(file.disagreement <= 0.5 for file in description.files.values())
        return
    actions, logits = PolicyRunner(folder / FLOAT_FILE).predict(obs)
    assert actions.shape == agent.predict(obs)[0].shape
    if agent.algo == "qpd" and isinstance(agent.action_space, spaces.Discrete):
        logits = th.as_tensor(logits).log_softmax(dim=1).numpy()
    assert np.allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algo", ["pd", "qpd"])
def test_students_answer_the_same_however_they_are_read(algo, tmp_path_factory):
    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        space = data.draw(OBSERVATIONS)
        discrete = st.integers(2, 4).map(spaces.Discrete)
        actions = data.draw(discrete if algo == "pd" else st.one_of(discrete, CONTINUOUS))
        is_image = 36 in (space.shape or ())
        policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
        policy_kwargs = data.draw(KEYWORDS)
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else ()
        # Then, SB3 takes every part of three axes for an image, and these are too small for its convolutions.
        if any(len(part.shape or ()) == 3 and 36 not in part.shape for part in parts):
            policy_kwargs["normalize_images"] = True
        kwargs: dict[str, Any] = {"policy_kwargs": policy_kwargs}
        if is_image and data.draw(st.booleans()):
            policy = "Net5Policy"
        if algo == "qpd":
            policy_kwargs["share_features_extractor"] = data.draw(st.booleans())
            if data.draw(st.booleans()):
                kwargs |= dict.fromkeys(("weight_bits", "activation_bits"), 4)
        gym.register(ENV_ID, lambda: Drawn(space, actions))
        folder = tmp_path_factory.mktemp("student")
        try:
            compare(train(algo, policy, gym.make(ENV_ID), kwargs), folder)
        finally:
            del gym.registry[ENV_ID]

    check()


def compare(model: Any, folder: Any) -> None:
    path = folder / "student.zip"
    model.save(path)
    obs = observations(model.observation_space)
    expected, actions = answers(model.policy, obs), model.predict(obs, deterministic=True)[0]
    in_memory = load_teacher(model, device="cpu")
    returns = score_agent(in_memory, ENV_ID, 2).returns
    read = {
        "load": load_teacher(type(model).load(path, device="cpu"), device="cpu"),
        "load_teacher": load_teacher(path, device="cpu"),
        "allow_pickle": load_teacher(path, device="cpu", allow_pickle=True),
    }
    for way, agent in read.items():
        assert agent.policy.observation_space == model.observation_space, way
        assert agent.action_space == model.action_space, way
        assert np.allclose(answers(agent.policy, obs), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()), way
        assert np.allclose(agent.predict(obs)[0], actions, atol=1e-4), way
        assert np.allclose(score_agent(agent, ENV_ID, 2).returns, returns, atol=1e-3), way
    check_export(in_memory, model, folder / "memory", obs, expected)
    check_export(read["load_teacher"], path, folder / "file", obs, expected)
