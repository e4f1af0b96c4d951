import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_distill.buffers.replay import FrameReplayBuffer
from sb3_distill.envs.views import FrameStep

SIZE = 5
N_ACTIONS = 3


def play(rng, n_envs, n_steps, n_stack, p_done, padding):
    """Transitions as ``OffPolicyAlgorithm`` stores them: the next observation is the observation that follows, or the
    last one of an episode that has ended."""

    def frame():
        return rng.integers(0, 3, size=(SIZE, SIZE), dtype=np.uint8)

    def start(first):
        return np.stack([(first if padding == "repeat" else np.zeros_like(first))] * (n_stack - 1) + [first])

    obs = np.stack([start(frame()) for _ in range(n_envs)])
    for _ in range(n_steps):
        next_obs = np.concatenate([obs[:, 1:], np.stack([frame() for _ in range(n_envs)])[:, None]], axis=1)
        if padding == "unrelated":
            next_obs = rng.integers(0, 3, size=obs.shape, dtype=np.uint8)
        done = rng.random(n_envs) < p_done
        infos = [{"TimeLimit.truncated": bool(end and rng.random() < 0.5)} for end in done]
        yield obs, next_obs, rng.integers(N_ACTIONS, size=n_envs), rng.normal(size=n_envs), done, infos
        obs = next_obs.copy()
        for env in np.flatnonzero(done):
            obs[env] = start(frame())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_envs=st.integers(1, 3),
    n_rows=st.integers(1, 12),
    n_steps=st.integers(1, 40),
    n_stack=st.integers(1, 4),
    padding=st.sampled_from(["zero", "told", "repeat", "unrelated"]),
)
def test_transitions_come_back_exactly(seed, n_envs, n_rows, n_steps, n_stack, padding):
    rng = np.random.default_rng(seed)
    space = spaces.Box(0, 255, (n_stack, SIZE, SIZE), np.uint8)
    buffer = FrameReplayBuffer(n_rows * n_envs, space, spaces.Discrete(N_ACTIONS), "cpu", n_envs=n_envs)
    history = []
    starts = np.ones(n_envs, bool)
    for serial, transition in enumerate(play(rng, n_envs, n_steps, n_stack, 0.2, padding)):
        done = transition[4]
        if padding == "told":
            # As the algorithm says before every transition
            buffer.frame_steps = FrameStep(serial, starts), FrameStep(serial + 1, done)
        buffer.add(*transition)
        starts = done
        history.append(transition)
        assert 1 <= buffer.size() <= min(len(history), n_rows)
        for age in range(buffer.size()):
            row = (buffer.pos - 1 - age) % buffer.buffer_size
            obs, next_obs, *_ = history[-1 - age]
            rows, envs = np.full(n_envs, row), np.arange(n_envs)
            assert np.array_equal(buffer.store.get(2 * rows, envs), obs)
            assert np.array_equal(buffer.store.get(2 * rows + 1, envs), next_obs)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_samples_are_those_of_sb3(n_envs):
    space, actions = spaces.Box(0, 255, (4, SIZE, SIZE), np.uint8), spaces.Discrete(N_ACTIONS)
    buffers = [cls(300, space, actions, "cpu", n_envs=n_envs) for cls in (ReplayBuffer, FrameReplayBuffer)]
    for transition in play(np.random.default_rng(0), n_envs, 90, 4, 0.1, "zero"):
        for buffer in buffers:
            buffer.add(*transition)
    samples = []
    for buffer in buffers:
        np.random.seed(1)
        samples.append(buffer.sample(64))
    for ours, theirs in zip(*reversed(samples), strict=True):
        assert (ours is None and theirs is None) or (ours.dtype == theirs.dtype and (ours == theirs).all())


def test_frames_are_stored_once():
    space = spaces.Box(0, 255, (4, SIZE, SIZE), np.uint8)
    buffer = FrameReplayBuffer(200, space, spaces.Discrete(N_ACTIONS), "cpu", n_envs=2)
    for transition in play(np.random.default_rng(0), 2, 100, 4, 0.0, "zero"):
        buffer.add(*transition)
    assert buffer.store.n_frames == 2 * (100 + 1) and buffer.size() == 100


def test_other_observations_are_refused():
    with pytest.raises(ValueError, match="images of dtype uint8"):
        FrameReplayBuffer(10, spaces.Box(-1, 1, (4,)), spaces.Discrete(2))


@pytest.mark.parametrize("told", [False, True])
def test_a_static_screen_takes_one_frame_per_step(told):
    space = spaces.Box(0, 255, (4, SIZE, SIZE), np.uint8)
    buffer = FrameReplayBuffer(100, space, spaces.Discrete(N_ACTIONS), "cpu")
    frame = np.full((SIZE, SIZE), 7, np.uint8)
    stack = np.stack([np.zeros_like(frame)] * 3 + [frame])[None]
    for step in range(100):
        following = np.concatenate([stack[:, 1:], frame[None, None]], axis=1)
        done = np.array([step % 30 == 29])
        if told:
            buffer.frame_steps = FrameStep(step, np.array([step % 30 == 0])), FrameStep(step + 1, done)
        buffer.add(stack, following, np.zeros(1, int), np.zeros(1), done, [{}])
        stack = np.stack([np.zeros_like(frame)] * 3 + [frame])[None] if done[0] else following
    # And one more where an episode begins
    assert buffer.store.n_frames == 100 + 4
    assert buffer.size() == 100


def test_episodes_that_are_left_do_not_go_on():
    """``learn`` resets the environment: what follows has nothing to do with the last observation."""
    space = spaces.Box(0, 255, (2, SIZE, SIZE), np.uint8)
    buffer = FrameReplayBuffer(10, space, spaces.Discrete(N_ACTIONS), "cpu")
    first, second, other, last = (np.full((SIZE, SIZE), value, np.uint8) for value in (1, 2, 3, 4))
    black = np.zeros_like(first)
    rest = np.zeros(1, int), np.zeros(1), np.zeros(1, bool), [{}]
    nowhere, everywhere = np.zeros(1, bool), np.ones(1, bool)
    buffer.frame_steps = FrameStep(1, everywhere), FrameStep(2, nowhere)
    buffer.add(np.stack([black, first])[None], np.stack([first, second])[None], *rest)
    # The reset is a step too.
    buffer.frame_steps = FrameStep(3, everywhere), FrameStep(4, nowhere)
    buffer.add(np.stack([black, other])[None], np.stack([other, last])[None], *rest)
    rows, envs = np.arange(4), np.zeros(4, int)
    assert buffer.store.get(rows, envs)[:, :, 0, 0].tolist() == [[0, 1], [1, 2], [0, 3], [3, 4]]
