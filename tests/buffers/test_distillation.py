"""The memory of observations with the teacher's answers holds exactly the last ones."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_distill.buffers.distillation import DistillationBuffer
from tests.buffers.images import KINDS, images, n_planes, played
from tests.buffers.records import step_record

SPACES = {
    "stack": images(4),
    "colour stack": images(4, 3),
    "single image": images(1, 3),
    "four planes": images(1, 4),
    "two planes": spaces.Box(0, 255, (2, 6, 3), np.uint8),
    "bytes": spaces.Box(0, 10, (3, 5, 5), np.uint8),
    "vector": spaces.Box(-9, 9, (3,), np.float64),
    "discrete": spaces.Discrete(5),
    "binary": spaces.MultiBinary((2, 2)),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), n_envs=st.integers(1, 3), buffer_size=st.integers(1, 30), n_steps=st.integers(1, 60))
def test_it_holds_what_sb3s_buffer_holds(data, n_envs, buffer_size, n_steps):
    """The same observations of any space, in the same places."""
    names = data.draw(st.lists(st.sampled_from(sorted(SPACES)), min_size=1, max_size=4, unique=True))
    kind, p_done = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from([0.0, 0.1, 0.6]))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    is_dict = len(names) > 1 or data.draw(st.booleans())
    space = spaces.Dict({name: SPACES[name] for name in names}) if is_dict else SPACES[names[0]]
    channels = {"stack": (4, 1), "colour stack": (4, 3), "single image": (1, 3), "four planes": (1, 4)}
    plays = {}
    for name in names:
        if name in channels:
            plays[name] = [step[0] for step in played(rng, n_envs, n_steps, *channels[name], kind, p_done)]
        else:
            SPACES[name].seed(int(rng.integers(1000)))
            plays[name] = [np.array([SPACES[name].sample() for _ in range(n_envs)]) for _ in range(n_steps)]
    actions = spaces.Discrete(2)
    buffer = DistillationBuffer(buffer_size, space, actions, "cpu", n_envs=n_envs)
    theirs = (DictReplayBuffer if is_dict else ReplayBuffer)(buffer_size, space, actions, "cpu", n_envs=n_envs)
    nothing = np.zeros(n_envs)
    for step in range(n_steps):
        obs = {name: play[step] for name, play in plays.items()} if is_dict else plays[names[0]][step]
        buffer.add(step_record(obs))
        theirs.add(obs, obs, nothing, nothing, nothing, [{}] * n_envs)
    assert (buffer.pos, buffer.full, buffer.size()) == (theirs.pos, theirs.full, theirs.size())
    assert buffer.size() == min(n_steps, max(buffer_size // n_envs, 1))
    rows, envs = (index.ravel() for index in np.indices((buffer.size(), n_envs)))
    for name, store in buffer.stores.items():
        expected = (theirs.observations[name] if is_dict else theirs.observations)[rows, envs]
        assert np.array_equal(store[rows, envs].reshape(expected.shape), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["zero", "repeat", "still"])
def test_one_frame_is_stored_per_step(kind, channels):
    buffer = DistillationBuffer(120, images(4, channels), spaces.Discrete(2), "cpu", n_envs=2)
    for obs, *_ in played(np.random.default_rng(0), 2, 200, 4, channels, kind, p_done=0.1):
        buffer.add(step_record(obs))
    # The first stack in memory has three older frames, and there is the black plane.
    assert n_planes(buffer.stores[""]) <= channels * 2 * (60 + 3) + 1
    assert buffer.size() == 60


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n_envs=st.integers(1, 3), n_steps=st.integers(1, 40))
def test_samples_pair_observations_with_their_own_answers(seed, n_envs, n_steps):
    space = spaces.Dict(
        {
            "image": images(),
            "vector": spaces.Box(-1, 1, (2,), np.float32),
            "discrete": spaces.Discrete(5),
        }
    )
    np.random.seed(seed)
    rng = np.random.default_rng(seed)
    buffer = DistillationBuffer(16 * n_envs, space, spaces.Discrete(3), "cpu", n_envs=n_envs)
    for step, (stacks, *_) in enumerate(played(rng, n_envs, n_steps)):
        label = step * 10 + np.arange(n_envs)
        stacks[:, -1, 0, 0] = label % 256
        vector = np.stack([label, -label], axis=1).astype(np.float32)
        obs = {"image": stacks, "vector": vector, "discrete": label % 5}
        buffer.add(step_record(obs, np.repeat(label[:, None], 3, axis=1)))
    samples = buffer.sample(32)
    label = samples.answers.q_values[:, 0].numpy()
    assert samples.answers.q_values.shape == (32, 3)
    assert np.array_equal(samples.observations["vector"].numpy()[:, 0], label)
    assert np.array_equal(samples.observations["image"].numpy()[:, -1, 0, 0], label % 256)
    assert np.array_equal(samples.observations["discrete"].numpy().ravel(), label % 5)
    assert label.min() >= (n_steps - buffer.size()) * 10


def test_sampling_reaches_every_stored_observation_and_no_other():
    buffer = DistillationBuffer(6, spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.Discrete(2), "cpu", n_envs=2)
    for step in range(5):
        buffer.add(step_record(np.array([[step], [step + 100]], np.float32)))
    np.random.seed(0)
    seen = set(buffer.sample(500).observations.numpy().ravel())
    assert seen == {2, 3, 4, 102, 103, 104}


def test_memory_is_taken_as_it_fills():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    buffer = DistillationBuffer(10_000_000, space, spaces.Discrete(2), "cpu")
    assert not buffer.stores
    with pytest.raises(ValueError):
        buffer.sample(1)


def test_samples_do_not_share_memory_with_the_buffer():
    buffer = DistillationBuffer(4, spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2), "cpu")
    buffer.add(step_record(np.zeros((1, 2), np.float32)))
    samples = buffer.sample(3)
    samples.observations.fill_(1)
    samples.answers.q_values.fill_(1)
    again = buffer.sample(3)
    assert not again.observations.any() and not again.answers.q_values.any()
