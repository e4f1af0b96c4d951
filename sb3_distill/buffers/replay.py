"""SB3's replay buffer for images, with every frame stored once."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space

from sb3_distill.buffers.frames import FrameStore
from sb3_distill.common.utils import to_device


@contextmanager
def without_memory_warning() -> Iterator[None]:
    """
    Make buffers of SB3 without its warning that they may not fit: ours comes with ``learn``, and counts what is kept.

    :return: a context
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This system does not have apparently enough memory")
        yield


class FrameReplayBuffer(ReplayBuffer):
    """
    Replay buffer of transitions with images. For stacks of four frames it needs an eighth of the memory of SB3's
    ``ReplayBuffer``, for single frames half of it, and it gives the same samples for the same seed.

    :param buffer_size: maximum number of transitions
    :param observation_space: images, channels first
    :param action_space: Action space
    :param device: device of the sampled tensors
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: unused, frames are always stored once; keeps the argument order of SB3's buffers
    :param handle_timeout_termination: do not treat the end of an episode by a time limit as a terminal state
    :raises ValueError: the observations are not images
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        if not is_image_space(observation_space, check_channels=False):
            raise ValueError(
                f"FrameReplayBuffer stores only images of dtype uint8, not {observation_space}: use SB3's ReplayBuffer."
            )
        # SB3 allocates arrays for observations of this space. They are replaced, so they are to be small.
        pixel = spaces.Box(0, 255, (1,), np.uint8)
        super().__init__(
            buffer_size, pixel, action_space, device, n_envs, handle_timeout_termination=handle_timeout_termination
        )
        assert observation_space.shape is not None
        self.observation_space = observation_space
        self.obs_shape = observation_space.shape
        self.observations, self.next_observations = (  # type: ignore[assignment]
            FrameStore(self.buffer_size, n_envs, observation_space.shape) for _ in range(2)
        )
        # The next observation of a transition is the observation of the one that follows.
        self.next_observations.latest = self.observations.latest  # type: ignore[attr-defined]

    def to_torch(self, array: np.ndarray, copy: bool = True) -> th.Tensor:
        """As SB3's, through pinned memory to a GPU."""
        return to_device(array.copy() if copy else array, self.device)
