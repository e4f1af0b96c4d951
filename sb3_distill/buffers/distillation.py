"""The replay buffer of distillation: observations with the teacher's answers. Each frame of an image is stored once."""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.buffers.frames import FrameStore
from sb3_distill.buffers.record import StepRecord
from sb3_distill.common.answers import Answers
from sb3_distill.common.utils import to_device


class DistillationSamples(NamedTuple):
    """A minibatch: observations in the format of the policy's input, and the teacher's answers, all as tensors."""

    observations: th.Tensor | dict[str, th.Tensor]
    answers: Answers


class DistillationBuffer(ReplayBuffer):
    """
    Replay buffer of Rusu et al. 2015, section 3.2: observations paired with the teacher's output for every action.

    Its arrays are allocated at the first ``add``, not at construction, so a loaded student that only predicts does not
    need their memory.

    :param buffer_size: maximum number of observations
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: device of the sampled tensors
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: unused, frames are always stored once; keeps the argument order of SB3's buffers
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
    ) -> None:
        # As in SB3's DictReplayBuffer, skip ReplayBuffer.__init__: it allocates arrays of stacked observations, twice.
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = False
        self.stores: dict[str, np.ndarray | FrameStore] = {}
        # The teacher's answers, one array per name in ``Answers.arrays``
        self.answers: dict[str, np.ndarray] = {}

    def _allocate(self, answers: Answers) -> None:
        subspaces = (
            self.observation_space.spaces
            if isinstance(self.observation_space, spaces.Dict)
            else {"": self.observation_space}
        )
        for key, space in subspaces.items():
            assert space.shape is not None and space.dtype is not None
            if is_image_space(space, check_channels=False):
                self.stores[key] = FrameStore(self.buffer_size, self.n_envs, space.shape)
            else:
                self.stores[key] = np.zeros((self.buffer_size, self.n_envs, *space.shape), dtype=space.dtype)
        for name, array in answers.arrays().items():
            self.answers[name] = np.zeros((self.buffer_size, *array.shape), dtype=np.float32)

    def add(self, record: StepRecord) -> None:  # type: ignore[override]
        """
        Store one step of the vector environment.

        :param record: the step
        """
        obs, answers = record.observations, record.answers
        assert isinstance(answers, Answers)
        if not self.stores:
            self._allocate(answers)
        if answers.arrays().keys() != self.answers.keys():
            raise ValueError(
                f"The replay buffer holds the {', '.join(self.answers)} of a teacher of another kind; this one gives "
                f"{', '.join(answers.arrays())}: call replay_buffer.reset() before the student learns from it."
            )
        for key, store in self.stores.items():
            store[self.pos] = obs[key] if isinstance(obs, dict) else obs
        for name, array in answers.arrays().items():
            self.answers[name][self.pos] = array
        self.pos = (self.pos + 1) % self.buffer_size
        self.full = self.full or self.pos == 0

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self.stores = {}
        self.answers = {}

    def to_torch(self, array: np.ndarray, copy: bool = True) -> th.Tensor:
        """As SB3's, through pinned memory to a GPU."""
        return to_device(array.copy() if copy else array, self.device)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> DistillationSamples:  # type: ignore[override]
        """
        Draw observations uniformly, with replacement.

        :param batch_size: number of observations
        :param env: VecNormalize environment whose current statistics normalize the observations
        :return: the minibatch
        """
        ages = np.random.randint(0, self.size(), size=batch_size)
        rows = (self.pos - 1 - ages) % self.buffer_size
        envs = np.random.randint(0, self.n_envs, size=batch_size)
        arrays = {key: store[rows, envs] for key, store in self.stores.items()}
        obs: Any = self._normalize_obs(arrays if isinstance(self.observation_space, spaces.Dict) else arrays[""], env)
        # The arrays are copies of the stored ones already.
        tensors = (
            {key: self.to_torch(value, copy=False) for key, value in obs.items()}
            if isinstance(obs, dict)
            else self.to_torch(obs, copy=False)
        )
        answers = {name: self.to_torch(array[rows, envs], copy=False) for name, array in self.answers.items()}
        return DistillationSamples(tensors, Answers.of_arrays(answers))

    def sample_observations(
        self, n_observations: int, env: VecNormalize | None = None
    ) -> th.Tensor | dict[str, th.Tensor]:
        """
        Draw observations from which to estimate statistics.

        :param n_observations: number of observations
        :param env: see ``sample``
        :return: observations in the format of the policy's input
        """
        return self.sample(n_observations, env).observations
