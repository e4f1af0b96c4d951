"""Where observations are kept: whole, or image frames once each."""

import numpy as np

Obs = np.ndarray | dict[str, np.ndarray]


class ArrayStore:
    """
    Keeps observations whole, one row per step of the vector environment.

    :param n_rows: rows of the ring
    :param n_envs: observations per row
    :param shape: shape of one observation
    :param dtype: its type
    """

    def __init__(self, n_rows: int, n_envs: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.array = np.zeros((n_rows, n_envs, *shape), dtype=dtype)

    def put(self, row: int, obs: np.ndarray) -> None:
        """Write the observations ``(n_envs, *shape)`` of one step."""
        self.array[row] = obs.reshape(self.array.shape[1:])

    def get(self, rows: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """Read the observations at these positions, ``(batch, *shape)``."""
        return self.array[rows, envs]

    def is_intact(self, row: int) -> bool:
        """Whether a row that was written can still be read."""
        return True


class FrameStore:
    """
    Keeps stacked images as single frames: an observation is ``n_stack`` indices into a ring of frames.

    Consecutive stacks share all frames but the newest, so one frame per step is stored. Whether they do is read off
    the pixels, so that every stack comes back exactly as the environment gave it: across episode ends, with zero or
    repeated padding, and even when nothing chains (then all frames of the stack are stored, and the oldest
    observations leave the memory earlier).

    :param n_rows: rows of the ring of observations
    :param n_envs: observations per row
    :param shape: ``(n_stack * frame_channels, height, width)``
    :param frame_channels: planes of one frame: 1 for grey, 3 for colour
    :param n_frames: frames to keep for each environment, one per row by default
    """

    def __init__(
        self, n_rows: int, n_envs: int, shape: tuple[int, ...], frame_channels: int = 1, n_frames: int | None = None
    ) -> None:
        self.shape = shape
        self.n_stack = shape[0] // frame_channels
        # The oldest observations need the n_stack - 1 frames before their own; and a stack in the making must never be
        # overwritten by those of its neighbours, each of which may store n_stack frames at each of n_stack steps.
        self.capacity = ((n_frames or n_rows) + self.n_stack * (self.n_stack + 1)) * n_envs
        # Slot 0 is the black frame that pads a stack after a reset.
        self.frames = np.zeros((self.capacity + 1, frame_channels, *shape[1:]), dtype=np.uint8)
        self.n_frames = 0
        self.slots = np.zeros((n_rows, n_envs, self.n_stack), dtype=np.int32)
        # The serial number of the oldest frame that a row needs.
        self.oldest_frame = np.zeros(n_rows, dtype=np.int64)
        self._last_row: int | None = None

    def _append(self, frame: np.ndarray) -> int:
        slot = self.n_frames % self.capacity + 1
        self.frames[slot] = frame
        self.n_frames += 1
        return slot

    def put(self, row: int, obs: np.ndarray) -> None:
        """Write the stacks ``(n_envs, n_stack * frame_channels, height, width)`` of one step."""
        stacks = obs.reshape(len(obs), self.n_stack, *self.frames.shape[1:])
        if self._last_row is None:
            chained = np.zeros(len(stacks), dtype=bool)
            last_slots = self.slots[row]
        else:
            last_slots = self.slots[self._last_row].copy()
            shared = self.frames[last_slots[:, 1:]] == stacks[:, :-1]
            chained = shared.reshape(len(stacks), -1).all(axis=1)
        for env, stack in enumerate(stacks):
            if chained[env]:
                self.slots[row, env, :-1] = last_slots[env, 1:]
                self.slots[row, env, -1] = self._append(stack[-1])
            elif self._last_row is not None and np.array_equal(self.frames[last_slots[env]], stack):
                # A next observation comes again as the observation of the step that follows.
                self.slots[row, env] = last_slots[env]
            else:
                self.slots[row, env] = self._append_stack(stack)
        self.oldest_frame[row] = self._oldest_serial(self.slots[row])
        self._last_row = row

    def _append_stack(self, stack: np.ndarray) -> list[int]:
        slots: list[int] = []
        for position, frame in enumerate(stack):
            if not frame.any():
                slots.append(0)
            elif position > 0 and slots[-1] and np.array_equal(frame, stack[position - 1]):
                slots.append(slots[-1])
            else:
                slots.append(self._append(frame))
        return slots

    def _oldest_serial(self, slots: np.ndarray) -> int:
        """Serial number of the oldest frame in these slots, all of them written within the last lap of the ring."""
        used = slots[slots > 0] - 1
        if len(used) == 0:
            return self.n_frames
        newest = self.n_frames - 1
        return int(newest - ((newest - used) % self.capacity).max())

    def get(self, rows: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """Rebuild the stacks at these positions, ``(batch, n_stack * frame_channels, height, width)``."""
        return self.frames[self.slots[rows, envs]].reshape(len(rows), *self.shape)

    def is_intact(self, row: int) -> bool:
        """Whether no frame of this row has been overwritten."""
        return bool(self.oldest_frame[row] >= self.n_frames - self.capacity)
