import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_distill.buffers.distillation import DistillationBuffer
from sb3_distill.buffers.frames import FrameStore
from sb3_distill.envs.views import FrameStep
from tests.buffers.records import step_record

SIZE = 5


def stacked_play(rng, n_envs, n_steps, n_stack, p_done, padding, channels=1):
    """
    Stacks as VecFrameStack gives them (zero padding), as Gymnasium does (repeated), or unrelated ones; and where
    episodes begin.
    """
    stacks = np.zeros((n_envs, n_stack, channels, SIZE, SIZE), np.uint8)
    for step in range(n_steps):
        frames = rng.integers(0, 4, size=(n_envs, channels, SIZE, SIZE), dtype=np.uint8)
        stacks = np.roll(stacks, -1, axis=1)
        stacks[:, -1] = frames
        starts = np.array([step == 0 or rng.random() < p_done for _ in range(n_envs)])
        for env in range(n_envs):
            if starts[env]:
                stacks[env] = frames[env] if padding == "repeat" else 0
                stacks[env, -1] = frames[env]
            if padding == "unrelated":
                stacks[env] = rng.integers(0, 4, size=stacks[env].shape)
        yield stacks.reshape(n_envs, n_stack * channels, SIZE, SIZE).copy(), starts


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_envs=st.integers(1, 4),
    n_rows=st.integers(1, 12),
    n_steps=st.integers(1, 60),
    n_stack=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    padding=st.sampled_from(["zero", "told", "repeat", "unrelated"]),
)
def test_every_stack_comes_back_exactly(seed, n_envs, n_rows, n_steps, n_stack, channels, padding):
    rng = np.random.default_rng(seed)
    space = spaces.Box(0, 255, (n_stack * channels, SIZE, SIZE), np.uint8)
    buffer = DistillationBuffer(
        n_rows * n_envs,
        space,
        spaces.Discrete(2),
        "cpu",
        n_envs=n_envs,
        frame_channels=channels,
    )
    history = []
    for serial, (stacks, starts) in enumerate(stacked_play(rng, n_envs, n_steps, n_stack, 0.2, padding, channels)):
        buffer.add(step_record(stacks, frame_step=FrameStep(serial, starts) if padding == "told" else None))
        history.append(stacks)
        assert 1 <= buffer.size() <= min(len(history), n_rows)
        for age in range(buffer.size()):
            rows = np.full(n_envs, (buffer.pos - 1 - age) % buffer.buffer_size)
            rebuilt = buffer.stores[""].get(rows, np.arange(n_envs))
            assert np.array_equal(rebuilt, history[-1 - age])
    if padding != "unrelated":
        assert buffer.size() == min(n_steps, n_rows)


def test_one_frame_is_stored_per_step():
    rng = np.random.default_rng(0)
    store = FrameStore(n_rows=100, n_envs=2, shape=(4, SIZE, SIZE))
    for row, (stacks, _) in enumerate(stacked_play(rng, 2, 100, 4, 0.1, "zero")):
        store.put(row, stacks)
    assert store.n_frames == 200


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n_envs=st.integers(1, 3), n_steps=st.integers(1, 40))
def test_samples_pair_observations_with_their_own_answers(seed, n_envs, n_steps):
    space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (4, SIZE, SIZE), np.uint8),
            "vector": spaces.Box(-1, 1, (2,), np.float32),
            "discrete": spaces.Discrete(5),
        }
    )
    np.random.seed(seed)
    rng = np.random.default_rng(seed)
    buffer = DistillationBuffer(16 * n_envs, space, spaces.Discrete(3), "cpu", n_envs=n_envs)
    for step, (stacks, _) in enumerate(stacked_play(rng, n_envs, n_steps, 4, 0.2, "zero")):
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


def test_steps_that_the_memory_was_not_given_break_no_stack():
    """It begins in the middle of an episode, and some steps are missing later: a callback stopped ``learn``, say."""
    space = spaces.Box(0, 255, (3, SIZE, SIZE), np.uint8)
    buffer = DistillationBuffer(10, space, spaces.Discrete(2), "cpu")
    frames = np.arange(1, 10, dtype=np.uint8)[:, None, None] * np.ones((9, SIZE, SIZE), np.uint8)
    for first in (0, 1, 4, 5):
        step = FrameStep(first, np.zeros(1, bool))
        buffer.add(step_record(frames[None, first : first + 3], frame_step=step))
    rebuilt = buffer.stores[""].get(np.arange(4), np.zeros(4, int))
    assert rebuilt[:, :, 0, 0].tolist() == [[1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8]]


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
