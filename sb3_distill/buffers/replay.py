"""A replay buffer of transitions for stacked images that stores every frame once."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.buffers.frames import FrameStore
from sb3_distill.envs.views import FrameStep


class FrameReplayBuffer(ReplayBuffer):
    """
    Replay buffer of transitions with stacked images. For stacks of four frames it needs an eighth of the memory of
    SB3's ``ReplayBuffer``, and gives the same samples for the same seed.

    :param buffer_size: maximum number of transitions
    :param observation_space: stacked images, channels first
    :param action_space: Action space
    :param device: device of the sampled tensors
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: unused, frames are always stored once; keeps the argument order of SB3's buffers
    :param handle_timeout_termination: do not treat the end of an episode by a time limit as a terminal state
    :param frame_channels: channels of one frame: 1 for grey, 3 for colour
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
        frame_channels: int = 1,
    ) -> None:
        if not is_image_space(observation_space, check_channels=False):
            raise ValueError(
                f"FrameReplayBuffer stores only images of dtype uint8, not {observation_space}: use SB3's ReplayBuffer."
            )
        # Skip ReplayBuffer.__init__: it allocates arrays of stacked observations, twice.
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.frame_channels = frame_channels
        # FrameSteps of the observation and the next observation of the transition to be added. The algorithm sets them
        # before every add(), if the environment stacks frames itself; otherwise they stay None.
        self.frame_steps: tuple[FrameStep | None, FrameStep | None] = (None, None)
        self.n_valid = 0
        # Allocated at the first add(): a loaded agent that only predicts does not need it.
        self.store: FrameStore | None = None
        shape = (self.buffer_size, self.n_envs)
        self.actions = np.zeros((*shape, self.action_dim), dtype=action_space.dtype)
        self.rewards = np.zeros(shape, dtype=np.float32)
        self.dones = np.zeros(shape, dtype=np.float32)
        self.timeouts = np.zeros(shape, dtype=np.float32)

    def _make_store(self) -> FrameStore:
        assert self.observation_space.shape is not None
        return FrameStore(
            # Row 2t holds the observation of step t, row 2t + 1 its next observation.
            2 * self.buffer_size,
            self.n_envs,
            self.observation_space.shape,
            self.frame_channels,
            # An episode of T steps has T + 1 frames, so keep some more frames than steps.
            n_frames=self.buffer_size + self.buffer_size // 16,
        )

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """As ``ReplayBuffer.add``."""
        if self.store is None:
            self.store = self._make_store()
        step, next_step = self.frame_steps
        self.store.put_again(2 * self.pos, obs, step)
        # At the end of an episode, next_obs is still the last observation of this episode, so its stack continues the
        # previous one. The FrameStep is that of the first observation of the next episode: set ``begins`` to False.
        next_step = next_step and next_step._replace(begins=np.zeros(self.n_envs, dtype=bool))
        self.store.put(2 * self.pos + 1, next_obs, next_step)
        self.actions[self.pos] = action.reshape((self.n_envs, self.action_dim))
        self.rewards[self.pos] = reward
        self.dones[self.pos] = done
        if self.handle_timeout_termination:
            self.timeouts[self.pos] = [info.get("TimeLimit.truncated", False) for info in infos]
        self.pos = (self.pos + 1) % self.buffer_size
        self.full = self.full or self.pos == 0
        self.n_valid = min(self.n_valid + 1, self.buffer_size)
        while not self.store.is_intact(2 * ((self.pos - self.n_valid) % self.buffer_size)):
            self.n_valid -= 1

    def size(self) -> int:
        """Number of steps of the vector environment that can be sampled."""
        return self.n_valid

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self.n_valid = 0
        self.store = None

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        Draw transitions uniformly, with replacement.

        :param batch_size: number of transitions
        :param env: VecNormalize environment whose current statistics normalize observations and rewards
        :return: the minibatch
        """
        oldest = (self.pos - self.n_valid) % self.buffer_size
        rows = (oldest + np.random.randint(0, self.n_valid, size=batch_size)) % self.buffer_size
        return self._get_samples(rows, env)

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        assert self.store is not None
        env_indices = np.random.randint(0, high=self.n_envs, size=len(batch_inds))
        ends = self.dones[batch_inds, env_indices] * (1 - self.timeouts[batch_inds, env_indices])
        data = (
            self._normalize_obs(self.store.get(2 * batch_inds, env_indices), env),
            self.actions[batch_inds, env_indices],
            self._normalize_obs(self.store.get(2 * batch_inds + 1, env_indices), env),
            ends.reshape(-1, 1),
            self._normalize_reward(self.rewards[batch_inds, env_indices].reshape(-1, 1), env),
        )
        # All arrays are copies already.
        return ReplayBufferSamples(*(self.to_torch(array, copy=False) for array in data))  # type: ignore[arg-type]
