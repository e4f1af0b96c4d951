"""The memory of transitions with single frames is SB3's to the bit."""

import pickle

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_distill.buffers.replay import FrameReplayBuffer
from tests.buffers.images import KINDS, N_ACTIONS, images, n_planes, played


def assert_same_samples(buffers, seed, batch_size=64):
    samples = []
    for buffer in buffers:
        np.random.seed(seed)
        samples.append(buffer.sample(batch_size))
    for first, second in zip(*samples, strict=True):
        assert (first is None and second is None) or (first.dtype == second.dtype and (first == second).all())


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_envs=st.integers(1, 3),
    buffer_size=st.integers(1, 30),
    n_steps=st.integers(1, 60),
    n_stack=st.integers(1, 4),
    channels=st.sampled_from([1, 2, 3]),
    kind=st.sampled_from(KINDS),
    p_done=st.sampled_from([0.0, 0.1, 0.6]),
    timeouts=st.booleans(),
)
def test_samples_are_those_of_sb3(seed, n_envs, buffer_size, n_steps, n_stack, channels, kind, p_done, timeouts):
    """Also once it is full and begins anew."""
    rng = np.random.default_rng(seed)
    buffers = [
        cls(
            buffer_size,
            images(n_stack, channels),
            spaces.Discrete(N_ACTIONS),
            "cpu",
            n_envs=n_envs,
            handle_timeout_termination=timeouts,
        )
        for cls in (ReplayBuffer, FrameReplayBuffer)
    ]
    for step, transition in enumerate(played(rng, n_envs, n_steps, n_stack, channels, kind, p_done)):
        for buffer in buffers:
            buffer.add(*transition)
        assert len({(buffer.pos, buffer.full, buffer.size(), buffer.buffer_size) for buffer in buffers}) == 1
        if step % 10 == 9:
            assert_same_samples(buffers, seed)
    assert_same_samples(buffers, seed)
    assert_same_samples([buffers[0], pickle.loads(pickle.dumps(buffers[1]))], seed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_continuous_actions_have_the_type_of_sb3(dtype):
    actions = spaces.Box(-1, 1, (2,), dtype)
    buffers = [cls(10, images(), actions, "cpu") for cls in (ReplayBuffer, FrameReplayBuffer)]
    rng = np.random.default_rng(0)
    for obs, next_obs, _, *rest in played(rng, 1, 15):
        action = rng.uniform(-1, 1, size=(1, 2)).astype(dtype)
        for buffer in buffers:
            buffer.add(obs, next_obs, action, *rest)
    assert_same_samples(buffers, 0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["zero", "repeat", "still"])
def test_frames_are_stored_once(kind, channels):
    buffer = FrameReplayBuffer(120, images(4, channels), spaces.Discrete(N_ACTIONS), "cpu", n_envs=2)
    n_ends = []
    for transition in played(np.random.default_rng(0), 2, 200, 4, channels, kind, p_done=0.1):
        buffer.add(*transition)
        n_ends.append(transition[4].sum())
    # An episode of n steps has n + 1 frames. The first stack in memory has older ones, and there is the black plane.
    n_frames = 2 * 60 + sum(n_ends[-60:]) + 2 * 4
    assert n_planes(buffer.observations, buffer.next_observations) <= channels * n_frames + 1
    assert buffer.size() == 60


def test_single_images_take_half_of_sb3s_memory():
    buffer = FrameReplayBuffer(100, images(1, 3), spaces.Discrete(N_ACTIONS), "cpu")
    for transition in played(np.random.default_rng(0), 1, 150, 1, 3, "single", p_done=0.0):
        buffer.add(*transition)
    assert n_planes(buffer.observations, buffer.next_observations) == 3 * (100 + 1)


def test_memory_is_taken_as_it_fills():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    FrameReplayBuffer(1_000_000, space, spaces.Discrete(2), "cpu")


def test_other_observations_are_refused():
    with pytest.raises(ValueError, match="images of dtype uint8"):
        FrameReplayBuffer(10, spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
