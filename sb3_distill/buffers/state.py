"""What is in a replay buffer, as plain values, arrays and blocks of bytes for a state file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space

from sb3_distill.buffers.distillation import DistillationBuffer
from sb3_distill.buffers.frames import FrameStore
from sb3_distill.buffers.replay import FrameReplayBuffer
from sb3_distill.buffers.tasks import MultiTaskBuffer
from sb3_distill.state.file import Blocks

# About as many bytes has an object of Python beside its content.
_OBJECT = 48


@dataclass
class _Planes:
    """The planes of all images in a buffer, each one once: buffers share the planes of consecutive images."""

    items: list[bytes] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)

    def number(self, plane: bytes) -> int:
        number = self.numbers.setdefault(id(plane), len(self.items))
        if number == len(self.items):
            self.items.append(plane)
        return number

    def table(self, rows: list[tuple[tuple[bytes, ...], ...]]) -> np.ndarray:
        """The numbers of the planes of some rows, all of them with as many planes."""
        return np.array([[[self.number(plane) for plane in image] for image in row] for row in rows], dtype=np.int32)

    def rows(self, table: np.ndarray) -> list[tuple[tuple[bytes, ...], ...]]:
        """The rows with these numbers of planes."""
        return [tuple(tuple(self.items[number] for number in image) for image in row) for row in table.tolist()]


class _Pools(dict[int, _Planes]):
    """The planes, by their size in bytes."""

    def of(self, shape: Sequence[int]) -> _Planes:
        """Those of images ``(..., height, width)``."""
        return self.setdefault(shape[-2] * shape[-1], _Planes())


def buffer_state(buffer: ReplayBuffer) -> dict[str, Any]:
    """
    :param buffer: a replay buffer of ours or of SB3
    :return: its content, in arrays that are not copied
    """
    pools = _Pools()
    content = _read(buffer, pools)
    return {"content": content, "planes": {size: Blocks(planes.items) for size, planes in pools.items()}}


def restore_buffer(buffer: ReplayBuffer, state: dict[str, Any]) -> None:
    """
    Put back what was in a replay buffer.

    :param buffer: a buffer that was made with the same arguments
    :param state: what ``buffer_state`` returned
    """
    stored = state["planes"]
    # The first states had planes of one size alone.
    if isinstance(stored, Blocks):
        stored = {len(stored.items[0]): stored} if stored.items else {}
    _write(buffer, state["content"], _Pools({size: _Planes(blocks.items) for size, blocks in stored.items()}))


def step_bytes(buffer: ReplayBuffer, n_stack: int | None, in_memory: bool) -> int:
    """
    :param buffer: a replay buffer
    :param n_stack: how many images are stacked in an observation, of which all but one are in the observation before;
        None: not known. Then images of one or three planes count as whole ones, and of others one plane counts as new.
    :param in_memory: whether it is about memory, with the overhead of Python's objects, else about a state file
    :return: about how many bytes one step of one environment takes
    """
    return sum(_step_parts(buffer, n_stack, in_memory))


def pickle_bytes(buffer: ReplayBuffer, n_stack: int | None, n_steps: float) -> float:
    """
    :param buffer: a replay buffer
    :param n_stack: see ``step_bytes``
    :param n_steps: number of steps in it
    :return: about how many bytes the pickle of the buffer has: its arrays are whole, also where no step is in them yet
    """
    in_arrays, in_frames = _step_parts(buffer, n_stack, in_memory=False)
    return in_arrays * capacity(buffer) + in_frames * n_steps


def _step_parts(buffer: ReplayBuffer, n_stack: int | None, in_memory: bool) -> tuple[int, int]:
    """About how many bytes one step takes in arrays, and in frames that are stored once."""
    if isinstance(buffer, MultiTaskBuffer):
        return _step_parts(buffer.make_memory(1), n_stack, in_memory)
    has_answers = isinstance(buffer, DistillationBuffer)
    has_frames = has_answers or isinstance(buffer, FrameReplayBuffer)
    observed = buffer.observation_space
    parts: Any = observed.spaces.values() if isinstance(observed, spaces.Dict) else [observed]
    # The teacher's answers, one number per action and its value; or action, reward and flags
    in_arrays = 4 * (int(getattr(buffer.action_space, "n", 2 * buffer.action_dim)) + 1) if has_answers else 20
    in_frames = 0
    # Transitions hold the next observations, too.
    n_times = 1 if has_answers or buffer.optimize_memory_usage else 2
    for space in parts:
        if not (has_frames and is_image_space(space, check_channels=False)):
            in_arrays += n_times * int(np.prod(space.shape)) * space.dtype.itemsize
            continue
        n_planes, plane = space.shape[0], int(np.prod(space.shape[1:]))
        n_new = n_planes if n_planes in (1, 3) else 1
        n_new = n_new if n_stack is None else max(n_planes // n_stack, 1)
        if in_memory:
            # Tuples of planes in a tuple of environments in a list
            in_frames += n_new * (plane + _OBJECT) + n_times * (
                _OBJECT + 8 * n_planes + 8 + (_OBJECT + 8) // buffer.n_envs
            )
        else:
            in_frames += n_new * plane + n_times * 4 * n_planes
    return in_arrays, in_frames


def capacity(buffer: ReplayBuffer) -> int:
    """
    :param buffer: a replay buffer
    :return: number of steps that it holds when it is full, of all environments and tasks
    """
    if isinstance(buffer, MultiTaskBuffer):
        return buffer.n_tasks * buffer.n_envs * buffer._share
    return buffer.buffer_size * buffer.n_envs


def _read(owner: Any, pools: _Pools) -> dict[str, Any]:
    # Rows that were never written are left out.
    n_rows = owner.size() if not owner.full else owner.buffer_size
    content: dict[str, Any] = {"pos": owner.pos, "full": owner.full}
    for name, value in vars(owner).items():
        if isinstance(value, FrameStore):
            content[name] = _read_frames(value, n_rows, pools)
        elif isinstance(value, np.ndarray):
            # With optimize_memory_usage, SB3 has the next observation in the row that is written next.
            content[name] = value[: n_rows + 1]
        elif isinstance(value, dict) and name != "obs_shape":
            content[name] = {key: _read_part(part, n_rows, pools) for key, part in value.items()}
    return content


def _read_part(part: Any, n_rows: int, pools: _Pools) -> Any:
    if isinstance(part, ReplayBuffer):
        return _read(part, pools)
    return _read_frames(part, n_rows, pools) if isinstance(part, FrameStore) else part[:n_rows]


def _read_frames(store: FrameStore, n_rows: int, pools: _Pools) -> dict[str, Any]:
    planes = pools.of(store.shape)
    latest = [image for image in store.latest if image]
    return {
        "shape": list(store.shape),
        "rows": planes.table(store.rows[:n_rows]),
        "latest": planes.table([tuple(latest)]) if len(latest) == len(store.latest) else None,
    }


def _write(owner: Any, content: dict[str, Any], pools: _Pools) -> None:
    owner.pos, owner.full = content["pos"], content["full"]
    for name, value in content.items():
        current = getattr(owner, name)
        if name in ("pos", "full"):
            continue
        if isinstance(current, dict):
            for key, part in value.items():
                if name == "memories":
                    _write(owner._memory(*key), part, pools)
                else:
                    current[key] = _written(current.get(key), part, owner.buffer_size, pools)
        else:
            setattr(owner, name, _written(current, value, owner.buffer_size, pools))


def _written(current: Any, value: Any, n_rows: int, pools: _Pools) -> Any:
    """The array or the store with the saved rows; our own buffers make theirs only when they are written."""
    if isinstance(value, dict):
        if current is None:
            _, n_envs, *shape = value["shape"]
            current = FrameStore(n_rows, n_envs, tuple(shape))
        planes = pools.of(current.shape)
        rows = planes.rows(value["rows"])
        current.rows[: len(rows)] = rows
        if value["latest"] is not None:
            # In place: two stores may have the same list.
            current.latest[:] = planes.rows(value["latest"])[0]
        return current
    if current is None:
        current = np.zeros((n_rows, *value.shape[1:]), dtype=value.dtype)
    current[: len(value)] = value
    return current
