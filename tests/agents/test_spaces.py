"""Spaces come from the file as the agent had them."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.evaluation.cli import main as evaluate
from tests.helpers import preferences


class Still(gym.Env):
    """An environment that is registered nowhere and never ends."""

    def __init__(self, observation_space, action_space=None):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(3) if action_space is None else action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


BYTES = np.arange(12, dtype=np.uint8).reshape(3, 4)
SPACES = {
    "grid of bits": spaces.Box(0, 1, (3, 5, 5), np.uint8),
    "grid of levels, channels last": spaces.Box(0, 10, (5, 5, 3), np.uint8),
    "bytes of several bounds": spaces.Box(BYTES, BYTES + 9, dtype=np.uint8),
    "long bytes": spaces.Box(0, 2, (2, 40, 40), np.uint8),
    "booleans": spaces.Box(0, 1, (2, 3), np.bool_),
    "integers": spaces.Box(-5, 7, (3,), np.int64),
    "floats of several bounds": spaces.Box(np.array([-1.5, -np.inf], np.float32), np.array([2, 3], np.float32)),
    "double": spaces.Box(-1, 1, (4,), np.float64),
    "binary": spaces.MultiBinary(4),
    "several discrete": spaces.MultiDiscrete([3, 2]),
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict(
        {
            "it's": spaces.Box(0, 10, (4, 4, 1), np.uint8),
            'a "b" (c': spaces.Box(0, 1, (40, 40, 1), np.bool_),
            "binary": spaces.MultiBinary(3),
            "several": spaces.MultiDiscrete([2, 3]),
            "vector": spaces.Box(np.array([-1, -2], np.float32), np.array([1, np.inf], np.float32)),
            "one": spaces.Discrete(4),
        }
    ),
}


def unstated():
    """Bounds that differ where numpy does not print them."""
    low = np.zeros((2, 40, 40), np.uint8)
    low[0, 0, 0] = 1
    return spaces.Box(low, low + 9, dtype=np.uint8)


def sample(space, n=16):
    space.seed(0)
    drawn = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([obs[key] for obs in drawn]) for key in space.spaces}
    return np.stack(drawn)


def agrees(model, path):
    """Whether the file is read with the model's space, and answers as the model does."""
    teacher = load_teacher(path, device="cpu")
    assert teacher.observation_space == model.observation_space
    obs = sample(model.observation_space)
    with th.no_grad():
        expected = model.q_net(model.policy.obs_to_tensor(obs)[0])
    tensors = {key: th.as_tensor(value) for key, value in obs.items()} if isinstance(obs, dict) else th.as_tensor(obs)
    assert th.allclose(preferences(teacher, tensors), expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("name", SPACES)
def test_agents_are_read_with_their_own_space(name, tmp_path):
    policy = "MultiInputPolicy" if name == "dict" else "MlpPolicy"
    model = DQN(policy, Still(SPACES[name]), buffer_size=10, seed=0, device="cpu")
    model.save(tmp_path / "agent")
    agrees(model, tmp_path / "agent.zip")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_boxes_of_any_bounds_and_type(data, tmp_path_factory):
    dtype = data.draw(st.sampled_from([np.uint8, np.int8, np.int32, np.float32, np.float64, np.bool_]))
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    low, high = (0, 1) if dtype is np.bool_ else sorted(data.draw(st.tuples(st.integers(0, 60), st.integers(61, 120))))
    space = spaces.Box(low, high, shape, dtype)
    path = tmp_path_factory.mktemp("agent") / "agent.zip"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DQN("MlpPolicy", Still(space), buffer_size=10, seed=0, device="cpu", policy_kwargs={"net_arch": [4]})
    model.save(path)
    agrees(model, path)


def test_continuous_actions_keep_their_bounds(tmp_path):
    action_space = spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0.5], np.float32))
    model = PPO("MlpPolicy", Still(spaces.Box(-1, 1, (3,)), action_space), n_steps=8, batch_size=8, device="cpu")
    model.save(tmp_path / "agent")
    teacher = load_teacher(tmp_path / "agent.zip", device="cpu")
    assert teacher.action_space == action_space
    obs = 100 * sample(model.observation_space)
    assert np.allclose(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0], atol=1e-6)


def test_what_neither_file_nor_environment_states_is_asked_for(tmp_path):
    """Of long arrays numpy prints the ends alone: bounds that differ there are not stated."""
    space = unstated()
    model = DQN("MlpPolicy", Still(space), buffer_size=10, device="cpu")
    model.save(tmp_path / "agent")
    with pytest.raises(AgentError, match=r"does not state the observation_space \(Box\).*pass env_id="):
        load_teacher(tmp_path / "agent.zip")
    gym.register("Still-v0", entry_point=lambda: Still(space))
    try:
        teacher = load_teacher(tmp_path / "agent.zip", env_id="Still-v0")
    finally:
        del gym.registry["Still-v0"]
    assert teacher.observation_space == space


def test_constructors_know_the_space_of_their_own_environment(tmp_path):
    DQN("MlpPolicy", Still(unstated()), buffer_size=10, device="cpu").save(tmp_path / "dqn")
    PPO("MlpPolicy", Still(unstated()), n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    kwargs = {"n_teacher_episodes": 0, "learning_starts": 8, "device": "cpu", "policy_kwargs": {"net_arch": [4]}}
    for cls, path in ((PolicyDistillation, tmp_path / "dqn.zip"), (QPD, tmp_path / "ppo.zip")):
        model = cls("MlpPolicy", Still(unstated()), teacher=path, **kwargs)
        assert model.teacher.observation_space == unstated()
        model.learn(20).save(tmp_path / "student")
        student = cls.load(tmp_path / "student", env=Still(unstated()))
        # The student finds its teacher again.
        student.learn(4)
        with pytest.raises(AgentError, match="in Python: import it, or pass env_id= or env="):
            load_teacher(tmp_path / "student.zip")
        assert load_teacher(tmp_path / "student.zip", env=Still(unstated())).observation_space == unstated()
    # An environment of other spaces says nothing.
    other = Still(spaces.Box(0, 9, (2, 40, 41), np.uint8))
    with pytest.raises(AgentError, match="does not state the observation_space"):
        load_teacher(tmp_path / "dqn.zip", env=other)


@pytest.mark.parametrize("algo", ["pd", "qpd"])
@pytest.mark.parametrize("key", ["it's", "binary", "several", 'a "b" (c'])
def test_students_of_dicts_are_what_they_were(algo, key, tmp_path):
    space = spaces.Dict({key: SPACES["dict"][key], "vector": spaces.Box(-1, 1, (3,))})
    teacher_class, cls = (DQN, PolicyDistillation) if algo == "pd" else (PPO, QPD)
    kwargs = {"buffer_size": 10} if algo == "pd" else {"n_steps": 8, "batch_size": 8}
    teacher_class("MultiInputPolicy", Still(space), seed=0, device="cpu", **kwargs).save(tmp_path / "teacher")
    model = cls(
        "MultiInputPolicy",
        Still(space),
        tmp_path / "teacher.zip",
        n_teacher_episodes=0,
        learning_starts=8,
        device="cpu",
    )
    model.learn(24).save(tmp_path / "student")
    gym.register("Still-v0", entry_point=lambda: Still(space), max_episode_steps=10)
    try:
        loaded = load_teacher(tmp_path / "student.zip", device="cpu")
        assert loaded.observation_space == space and loaded.facts.taught_by == str(tmp_path / "teacher.zip")
        obs = sample(space)
        expected, _ = model.predict(obs, deterministic=True)
        assert np.array_equal(loaded.predict(obs)[0], expected)
        assert np.array_equal(cls.load(tmp_path / "student").predict(obs, deterministic=True)[0], expected)
        assert evaluate([str(tmp_path / "student.zip"), "--env", "Still-v0", "-n", "1", "--device", "cpu"]) == 0
    finally:
        del gym.registry["Still-v0"]


@pytest.mark.parametrize("full_std", [True, False])
def test_state_dependent_exploration_of_actions_of_two_axes(full_std, tmp_path):
    actions = spaces.Box(-1, 1, (2, 3))
    model = PPO(
        "MlpPolicy",
        Still(spaces.Box(-1, 1, (3,)), actions),
        n_steps=8,
        batch_size=8,
        use_sde=True,
        policy_kwargs={"full_std": full_std, "net_arch": [7]},
        device="cpu",
    )
    model.save(tmp_path / "agent")
    teacher = load_teacher(tmp_path / "agent.zip", device="cpu")
    obs = sample(model.observation_space)
    assert np.allclose(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0], atol=1e-6)
    student = QPD(
        "MlpPolicy",
        Still(spaces.Box(-1, 1, (3,)), actions),
        tmp_path / "agent.zip",
        n_teacher_episodes=0,
        learning_starts=8,
        device="cpu",
    )
    assert student.learn(24)._n_updates > 0 and student.predict(obs)[0].shape == (16, 2, 3)
