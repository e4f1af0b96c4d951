"""The distillation memory: observations with the teacher's answers, image frames stored once."""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecNormalize

Obs = np.ndarray | dict[str, np.ndarray]


class DistillationSamples(NamedTuple):
    """A minibatch: observations as the policy takes them, and the teacher's ``(batch, n_actions)`` answers."""

    observations: th.Tensor | dict[str, th.Tensor]
    teacher_logits: th.Tensor


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


class DistillationBuffer(ReplayBuffer):
    """
    Replay memory of Rusu et al. 2015, section 3.2: observations paired with the teacher's output for every action.

    The memory is taken from the system as it fills, not at construction: a loaded student that only predicts needs
    none of it.

    :param buffer_size: maximum number of observations
    :param observation_space: Observation space
    :param action_space: Action space (Discrete)
    :param device: device of the sampled tensors
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: frames are always stored once; kept for SB3's constructor order
    :param frame_channels: planes of one frame of a stacked image: 1 for grey, 3 for colour
    :param n_outputs: numbers that the teacher answers with; one for every action by default
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        frame_channels: int = 1,
        n_outputs: int | None = None,
    ) -> None:
        # As SB3's DictReplayBuffer: the arrays of ReplayBuffer itself (stacked observations, twice) are not wanted.
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = optimize_memory_usage
        self.frame_channels = frame_channels
        self.n_outputs = n_outputs
        self.handle_timeout_termination = False
        self.n_valid = 0
        self.stores: dict[str, ArrayStore | FrameStore] = {}
        self.teacher_logits = np.zeros((0, 0, 0), dtype=np.float32)

    def _allocate(self) -> None:
        subspaces = (
            self.observation_space.spaces
            if isinstance(self.observation_space, spaces.Dict)
            else {"": self.observation_space}
        )
        for key, space in subspaces.items():
            assert space.shape is not None and space.dtype is not None
            if is_image_space(space, check_channels=False):
                self.stores[key] = FrameStore(self.buffer_size, self.n_envs, space.shape, self.frame_channels)
            else:
                self.stores[key] = ArrayStore(self.buffer_size, self.n_envs, space.shape, space.dtype)
        n_outputs = self.n_outputs or int(self.action_space.n)  # type: ignore[attr-defined]
        self.teacher_logits = np.zeros((self.buffer_size, self.n_envs, n_outputs), dtype=np.float32)

    def add(self, obs: Obs, teacher_logits: np.ndarray) -> None:  # type: ignore[override]
        """
        Store one step of the vector environment.

        :param obs: observations ``(n_envs, ...)``, not normalised
        :param teacher_logits: the teacher's output for them, ``(n_envs, n_actions)``
        """
        if not self.stores:
            self._allocate()
        for key, store in self.stores.items():
            store.put(self.pos, obs[key] if isinstance(obs, dict) else obs)
        self.teacher_logits[self.pos] = teacher_logits
        self.pos = (self.pos + 1) % self.buffer_size
        self.full = self.full or self.pos == 0
        self.n_valid = min(self.n_valid + 1, self.buffer_size)
        while not all(store.is_intact((self.pos - self.n_valid) % self.buffer_size) for store in self.stores.values()):
            self.n_valid -= 1

    def size(self) -> int:
        """Number of steps of the vector environment that can be sampled."""
        return self.n_valid

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.n_valid = 0
        self.stores = {}

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> DistillationSamples:  # type: ignore[override]
        """
        Draw observations uniformly, with replacement.

        :param batch_size: number of observations
        :param env: VecNormalize environment whose current statistics normalise the observations
        :return: the minibatch
        """
        ages = np.random.randint(0, self.n_valid, size=batch_size)
        rows = (self.pos - 1 - ages) % self.buffer_size
        envs = np.random.randint(0, self.n_envs, size=batch_size)
        arrays = {key: store.get(rows, envs) for key, store in self.stores.items()}
        obs: Any = self._normalize_obs(arrays if isinstance(self.observation_space, spaces.Dict) else arrays[""], env)
        # The arrays are fresh copies of the stored ones: no second copy is needed.
        tensors = (
            {key: self.to_torch(value, copy=False) for key, value in obs.items()}
            if isinstance(obs, dict)
            else self.to_torch(obs, copy=False)
        )
        return DistillationSamples(tensors, self.to_torch(self.teacher_logits[rows, envs], copy=False))
