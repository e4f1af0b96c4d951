"""Storage of observations: as whole arrays, or, for stacked images, with every frame stored once."""

import numpy as np

from sb3_distill.envs.views import FrameStep


class ArrayStore:
    """
    Stores whole observations, one row per step of the vector environment.

    :param n_rows: number of rows of the ring buffer
    :param n_envs: number of observations per row
    :param shape: shape of one observation
    :param dtype: type of one observation
    """

    def __init__(self, n_rows: int, n_envs: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.array = np.zeros((n_rows, n_envs, *shape), dtype=dtype)

    def put(self, row: int, obs: np.ndarray, step: FrameStep | None = None) -> None:
        """Write the observations ``(n_envs, *shape)`` of one step."""
        self.array[row] = obs.reshape(self.array.shape[1:])

    def get(self, rows: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """Read the observations at these positions, ``(batch, *shape)``."""
        return self.array[rows, envs]

    def is_intact(self, row: int) -> bool:
        """Whether the observations of a written row are still complete."""
        return True


class FrameStore:
    """
    Stores stacked images as single frames: an observation is ``n_stack`` indices into a ring buffer of frames.

    Consecutive stacks share all frames except the newest, so only one frame is stored per step. ``get`` returns every
    stack exactly as the environment returned it. An environment that stacks frames itself tells which stacks continue
    the previous ones (``FrameStep``). For all other environments, the pixels are compared. This works across episode
    ends, and with zero or repeated padding. A stack that does not continue the previous one is stored with all of its
    frames; then the oldest observations are overwritten earlier.

    :param n_rows: number of rows of the ring buffer of observations
    :param n_envs: number of observations per row
    :param shape: ``(n_stack * frame_channels, height, width)``
    :param frame_channels: channels of one frame: 1 for grey, 3 for colour
    :param n_frames: number of frames to keep for each environment, by default one per row
    """

    def __init__(
        self,
        n_rows: int,
        n_envs: int,
        shape: tuple[int, ...],
        frame_channels: int = 1,
        n_frames: int | None = None,
    ) -> None:
        self.shape = shape
        self.n_stack = shape[0] // frame_channels
        # The oldest observations also need the n_stack - 1 frames before their newest one. And the frames of a current
        # stack must not be overwritten by the other environments: each of these can store n_stack frames per step, for
        # n_stack steps.
        self.capacity = ((n_frames or n_rows) + self.n_stack * (self.n_stack + 1)) * n_envs
        # Slot 0 is the black frame that pads a stack after a reset.
        self.frames = np.zeros((self.capacity + 1, frame_channels, *shape[1:]), dtype=np.uint8)
        self.n_frames = 0
        self.slots = np.zeros((n_rows, n_envs, self.n_stack), dtype=np.int32)
        # For each row, the serial number of the oldest frame in its stacks
        self.oldest_frame = np.zeros(n_rows, dtype=np.int64)
        self._last_slots: np.ndarray | None = None
        # Serial number of the step (see FrameStep) that was written last; None if unknown
        self._last_serial: int | None = None

    def put(self, row: int, obs: np.ndarray, step: FrameStep | None = None) -> None:
        """
        Write the stacks of one step.

        :param row: the row to write
        :param obs: ``(n_envs, n_stack * frame_channels, height, width)``
        :param step: the ``FrameStep`` of the stacks; None: compare the pixels
        """
        stacks = self._split(obs)
        follows = self._follows(step, distance=1)
        goes_on = ~step.begins if follows and step is not None else self._moved_on(stacks)
        slots = np.zeros_like(self.slots[row])
        for env, stack in enumerate(stacks):
            if goes_on[env] and self._last_slots is not None:
                slots[env, :-1] = self._last_slots[env, 1:]
                slots[env, -1] = self._append(stack[-1])
            elif follows:
                # An episode begins: all frames but the newest are black.
                slots[env, -1] = self._append(stack[-1])
            else:
                slots[env] = self._append_stack(stack)
        self._link(row, slots, step)

    def put_again(self, row: int, obs: np.ndarray, step: FrameStep | None = None) -> None:
        """
        Write stacks that are normally equal to the ones written last: the next observation of one transition is the
        observation of the following one. Equal stacks store no new frame. A stack that differs, or that begins an
        episode, is stored with all of its frames.

        :param row: the row to write
        :param obs: ``(n_envs, n_stack * frame_channels, height, width)``
        :param step: the ``FrameStep`` of the stacks; None: compare the pixels
        """
        if self._last_slots is None:
            self.put(row, obs, step)
            return
        stacks = self._split(obs)
        follows = self._follows(step, distance=0)
        again = ~step.begins if follows and step is not None else _all_equal(self.frames[self._last_slots], stacks)
        slots = self._last_slots.copy()
        for env in np.flatnonzero(~again):
            slots[env] = self._append_stack(stacks[env])
        self._link(row, slots, step)

    def _split(self, obs: np.ndarray) -> np.ndarray:
        return obs.reshape(len(obs), self.n_stack, *self.frames.shape[1:])

    def _follows(self, step: FrameStep | None, distance: int) -> bool:
        """Whether ``step`` is known to be ``distance`` steps after the step that was written last."""
        return step is not None and self._last_serial is not None and step.serial == self._last_serial + distance

    def _moved_on(self, stacks: np.ndarray) -> np.ndarray:
        """For each environment, whether its stack continues its previous one, by comparison of the pixels."""
        if self._last_slots is None:
            return np.zeros(len(stacks), dtype=bool)
        return _all_equal(self.frames[self._last_slots[:, 1:]], stacks[:, :-1])

    def _append(self, frame: np.ndarray) -> int:
        slot = self.n_frames % self.capacity + 1
        self.frames[slot] = frame
        self.n_frames += 1
        return slot

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

    def _link(self, row: int, slots: np.ndarray, step: FrameStep | None) -> None:
        self.slots[row] = slots
        self.oldest_frame[row] = self._oldest_serial(slots)
        self._last_slots = slots
        self._last_serial = None if step is None else step.serial

    def _oldest_serial(self, slots: np.ndarray) -> int:
        """Serial number of the oldest of the frames in these slots, none of which has been overwritten."""
        used = slots[slots > 0] - 1
        if len(used) == 0:
            return self.n_frames
        newest = self.n_frames - 1
        return int(newest - ((newest - used) % self.capacity).max())

    def serials(self, slots: np.ndarray) -> np.ndarray:
        """
        :param slots: indices of frames that have not been overwritten
        :return: the serial numbers of the frames (0 for the first frame that was stored); -1 for the black frame
        """
        newest = self.n_frames - 1
        return np.where(slots > 0, newest - (newest - (slots - 1)) % self.capacity, -1).astype(np.int32)

    def frame(self, serial: int) -> np.ndarray:
        """
        :param serial: serial number of a frame
        :return: the frame, ``(frame_channels, height, width)``
        """
        return self.frames[serial % self.capacity + 1]

    def get(self, rows: np.ndarray, envs: np.ndarray) -> np.ndarray:
        """Rebuild the stacks at these positions, ``(batch, n_stack * frame_channels, height, width)``."""
        return self.frames[self.slots[rows, envs]].reshape(len(rows), *self.shape)

    def is_intact(self, row: int) -> bool:
        """Whether no frame of this row has been overwritten."""
        return bool(self.oldest_frame[row] >= self.n_frames - self.capacity)


def _all_equal(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each pair of stacks, whether all of their pixels are equal."""
    return (some == others).reshape(len(others), -1).all(axis=1)
