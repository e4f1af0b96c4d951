"""A replay buffer with a separate part for every task (Rusu et al. 2015, section 3.3)."""

from abc import abstractmethod
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.buffers.distillation import DistillationBuffer
from sb3_distill.buffers.record import StepRecord
from sb3_distill.buffers.replay import FrameReplayBuffer, without_memory_warning
from sb3_distill.common.answers import Answers, TaskAnswers
from sb3_distill.common.utils import unknown_choice, without_task

TASK_SAMPLING = ("random", "equal")
Memory = TypeVar("Memory", bound=ReplayBuffer)


# For each task of a minibatch: the buffers it is drawn from, each with the number of observations to draw
Drawn = list[tuple[int, list[tuple[Memory, int]]]]


class MultiTaskSamples(NamedTuple):
    """
    A minibatch of one or more tasks.

    :param observations: observations in the format of the policy's input, those of one task after those of another;
        the tasks themselves are on the CPU
    :param answers: by task, in the same order, the answers of its teacher to the task's observations
    """

    observations: dict[str, th.Tensor]
    answers: dict[int, Answers]


class MultiTaskBuffer(ReplayBuffer, Generic[Memory]):
    """
    A replay buffer with the same capacity for every task. All environments that play a task add to its part.

    Every pair of task and environment has a buffer of its own, so that consecutive frames stay together.

    :param buffer_size: capacity for each task
    :param observation_space: ``Dict(obs, task)``
    :param action_space: Action space
    :param device: device of the sampled tensors
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: unused, frames are always stored once; keeps the argument order of SB3's buffers
    :param task_sampling: "random": each minibatch comes from one task chosen at random, as in the paper; "equal": each
        minibatch has an equal share of every task
    :raises ValueError: unknown ``task_sampling``
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        task_sampling: str = "random",
    ) -> None:
        if task_sampling not in TASK_SAMPLING:
            raise ValueError(unknown_choice("task_sampling", task_sampling, TASK_SAMPLING))
        # As in SB3's DictReplayBuffer, skip ReplayBuffer.__init__: its arrays are not needed.
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = True
        self.task_sampling = task_sampling
        assert isinstance(observation_space["task"], spaces.Discrete)
        self.n_tasks = int(observation_space["task"].n)
        self.memories: dict[tuple[int, int], Memory] = {}

    @abstractmethod
    def make_memory(self, n_rows: int) -> Memory:
        """
        :param n_rows: capacity
        :return: an empty buffer for one task and one environment
        """

    def _memory(self, task: int, env: int) -> Memory:
        if (task, env) not in self.memories:
            self.memories[task, env] = self.make_memory(self._share)
        return self.memories[task, env]

    @property
    def _share(self) -> int:
        return max(self.buffer_size // self.n_envs, 1)

    @property
    def has_all_tasks(self) -> bool:
        """Whether every task has observations. Before that, updates would train only some of the tasks."""
        return len(self._tasks_at_hand()) == self.n_tasks

    def _tasks_at_hand(self) -> list[int]:
        return sorted({task for (task, _), memory in self.memories.items() if memory.size() > 0})

    def size(self) -> int:
        """Number of observations, of all tasks together, that can be sampled, divided by the number of environments."""
        return sum(memory.size() for memory in self.memories.values()) // self.n_envs

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self.memories = {}

    def _draw(self, batch_size: int, task_sampling: str) -> Drawn[Memory]:
        """Choose the tasks of a minibatch, and how many observations to draw from each of their buffers."""
        tasks = self._tasks_at_hand()
        if task_sampling == "random":
            counts = {tasks[np.random.randint(len(tasks))]: batch_size}
        else:
            # If the batch size is not a multiple of the number of tasks, random tasks get one observation more.
            extra = set(np.random.permutation(tasks)[: batch_size % len(tasks)].tolist())
            counts = {task: batch_size // len(tasks) + (task in extra) for task in tasks}
        drawn = []
        for task, count in counts.items():
            memories = [memory for (owner, _), memory in self.memories.items() if owner == task and memory.size() > 0]
            sizes = np.array([memory.size() for memory in memories])
            shares = np.random.multinomial(count, sizes / sizes.sum())
            drawn.append((task, [(memory, int(n)) for memory, n in zip(memories, shares, strict=True) if n > 0]))
        return [(task, parts) for task, parts in drawn if parts]

    def _task_tensor(self, drawn: Drawn[Memory]) -> th.Tensor:
        tasks = [task for task, parts in drawn for _, count in parts for _ in range(count)]
        # On the CPU, where it is read (see ``MultiTaskQNetwork``)
        return th.tensor(tasks).reshape(-1, 1)


class MultiTaskDistillationBuffer(MultiTaskBuffer[DistillationBuffer]):
    """A multi-task buffer of observations with the answers of each task's teacher."""

    def make_memory(self, n_rows: int) -> DistillationBuffer:
        """As ``MultiTaskBuffer.make_memory``."""
        assert isinstance(self.observation_space, spaces.Dict) and isinstance(self.action_space, spaces.Discrete)
        return DistillationBuffer(n_rows, without_task(self.observation_space), self.action_space, self.device)

    def add(self, record: StepRecord) -> None:  # type: ignore[override]
        """
        Store one step of the vector environment.

        :param record: the step
        """
        assert isinstance(record.observations, dict) and isinstance(record.answers, TaskAnswers)
        for env, task in enumerate(np.reshape(record.observations["task"], -1).tolist()):
            one = slice(env, env + 1)
            self._memory(task, env).add(
                StepRecord(
                    without_task({key: part[one] for key, part in record.observations.items()}),
                    record.episode_starts[one],
                    record.answers.of_env(env),
                    record.actions[one],
                    record.rewards[one],
                    record.dones[one],
                    record.infos[one],
                )
            )

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> MultiTaskSamples:  # type: ignore[override]
        """
        Draw observations uniformly, with replacement, from one task or from all tasks (see ``task_sampling``).

        :param batch_size: number of observations
        :param env: unused, multi-task environments have no VecNormalize
        :return: the minibatch
        """
        return self._samples(self._draw(batch_size, self.task_sampling))

    def sample_observations(self, n_observations: int, env: VecNormalize | None = None) -> dict[str, th.Tensor]:
        """
        Draw observations from which to estimate statistics: an equal share of every task, for any ``task_sampling``.

        :param n_observations: number of observations
        :param env: unused, multi-task environments have no VecNormalize
        :return: observations in the format of the policy's input
        """
        return self.sample_equally(n_observations).observations

    def sample_equally(self, n_observations: int) -> MultiTaskSamples:
        """
        :param n_observations: number of observations
        :return: an equal share of every task, for any ``task_sampling``
        """
        return self._samples(self._draw(n_observations, "equal"))

    def _samples(self, drawn: Drawn[DistillationBuffer]) -> MultiTaskSamples:
        samples = {task: [memory.sample(count) for memory, count in parts] for task, parts in drawn}
        shown: list[Any] = [sample.observations for of_task in samples.values() for sample in of_task]
        parts = shown if isinstance(shown[0], dict) else [{"obs": part} for part in shown]
        obs = {key: th.cat([part[key] for part in parts]) for key in parts[0]}
        answers = {
            task: Answers.concatenate([sample.answers for sample in of_task]) for task, of_task in samples.items()
        }
        return MultiTaskSamples({**obs, "task": self._task_tensor(drawn)}, answers)


class MultiTaskReplayBuffer(MultiTaskBuffer[ReplayBuffer]):
    """A multi-task buffer of transitions, for the multi-task DQN."""

    def make_memory(self, n_rows: int) -> ReplayBuffer:
        """As ``MultiTaskBuffer.make_memory``."""
        assert isinstance(self.observation_space, spaces.Dict)
        space = self.observation_space["obs"]
        buffer_class = FrameReplayBuffer if is_image_space(space, check_channels=False) else ReplayBuffer
        with without_memory_warning():
            return buffer_class(n_rows, space, self.action_space, self.device)

    def add(  # type: ignore[override]
        self,
        obs: dict[str, np.ndarray],
        next_obs: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """As ``ReplayBuffer.add``."""
        for env, task in enumerate(np.reshape(obs["task"], -1).tolist()):
            one = slice(env, env + 1)
            self._memory(task, env).add(
                obs["obs"][one], next_obs["obs"][one], action[one], reward[one], done[one], infos[one]
            )

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        Draw transitions uniformly, with replacement, from one task or from all tasks (see ``task_sampling``).

        :param batch_size: number of transitions
        :param env: unused, multi-task environments have no VecNormalize
        :return: the minibatch
        """
        drawn = self._draw(batch_size, self.task_sampling)
        samples = [memory.sample(count) for _, parts in drawn for memory, count in parts]
        # The task does not change within a transition, so observations and next observations share this tensor.
        tasks = self._task_tensor(drawn)
        return ReplayBufferSamples(
            {"obs": th.cat([sample.observations for sample in samples]), "task": tasks},  # type: ignore[arg-type]
            th.cat([sample.actions for sample in samples]),
            {"obs": th.cat([sample.next_observations for sample in samples]), "task": tasks},  # type: ignore[arg-type]
            th.cat([sample.dones for sample in samples]),
            th.cat([sample.rewards for sample in samples]),
        )
