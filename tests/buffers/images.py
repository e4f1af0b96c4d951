"""Play of games that show images, for the tests of memories and recordings."""

from collections.abc import Iterator

import numpy as np
from gymnasium import spaces

SIZE = 5
N_ACTIONS = 3
# Padded as by SB3's VecFrameStack, as by Gymnasium's wrapper, nothing but single images, and a screen that stands still
KINDS = ("zero", "repeat", "single", "still")


def images(n_stack: int = 4, channels: int = 1) -> spaces.Box:
    """Space of stacks of frames with so many planes each."""
    return spaces.Box(0, 255, (n_stack * channels, SIZE, SIZE), np.uint8)


def played(
    rng: np.random.Generator,
    n_envs: int,
    n_steps: int,
    n_stack: int = 4,
    channels: int = 1,
    kind: str = "zero",
    p_done: float = 0.2,
) -> Iterator[tuple]:
    """
    Transitions as ``ReplayBuffer.add`` takes them: the next observation is the one that follows, or the last one of an
    episode that has ended, of which half are by a time limit.
    """

    def frames() -> np.ndarray:
        shape = (n_envs, channels, SIZE, SIZE)
        return np.full(shape, 7, np.uint8) if kind == "still" else rng.integers(0, 3, size=shape, dtype=np.uint8)

    def begin() -> np.ndarray:
        stacks = np.repeat(frames()[:, None], n_stack, axis=1)
        if kind == "zero":
            stacks[:, :-1] = 0
        return stacks.reshape(n_envs, -1, SIZE, SIZE)

    obs = begin()
    for _ in range(n_steps):
        next_obs = np.concatenate([obs[:, channels:], frames()], axis=1)
        if kind == "single":
            next_obs = rng.integers(0, 3, size=obs.shape, dtype=np.uint8)
        dones = rng.random(n_envs) < p_done
        infos = [
            {"terminal_observation": last, "TimeLimit.truncated": bool(rng.random() < 0.5)} if done else {}
            for done, last in zip(dones, next_obs, strict=True)
        ]
        actions = rng.integers(N_ACTIONS, size=n_envs)
        yield obs, next_obs, actions, rng.normal(size=n_envs).astype(np.float32), dones, infos
        obs = np.where(dones[:, None, None, None], begin(), next_obs)


def n_planes(*stores) -> int:
    """Number of planes in memory, each counted once."""
    return len({id(plane) for store in stores for row in store.rows for image in row for plane in image})
