"""What an agent answers to a batch of observations: the one form in which teachers and students are compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th

# A tensor where it comes from a network, an array in memories and on disk
Array = Any


@dataclass(frozen=True)
class Gaussian:
    """
    A diagonal Gaussian over continuous actions.

    :param mean: ``(batch, n_dimensions)``
    :param std: standard deviations, same shape
    """

    mean: Array
    std: Array


@dataclass(frozen=True)
class Answers:
    """
    One of three kinds of answers, and the critic's values where there is a critic.

    :param q_values: Q-values of discrete actions ``(batch, n_actions)``; or the outputs of a student that is trained to
        have the teacher's softmax, which are on no scale
    :param log_probs: logarithms of the probabilities of discrete actions ``(batch, n_actions)``
    :param gaussian: a distribution over continuous actions
    :param values: values of the observations ``(batch,)``
    :raises ValueError: not exactly one kind
    """

    q_values: Array | None = None
    log_probs: Array | None = None
    gaussian: Gaussian | None = None
    values: Array | None = None

    def __post_init__(self) -> None:
        if (self.q_values is not None) + (self.log_probs is not None) + (self.gaussian is not None) != 1:
            raise ValueError("Answers are exactly one of q_values, log_probs and gaussian.")

    @property
    def preferences(self) -> Array:
        """
        One number per discrete action, the largest for the preferred one: Q-values or log-probabilities.

        :raises ValueError: the actions are continuous
        """
        if self.gaussian is not None:
            raise ValueError("Continuous actions have a mean and a deviation, not one number for each action.")
        return self.log_probs if self.q_values is None else self.q_values

    def sample(self) -> th.Tensor:
        """
        Draw actions from the distribution, with torch's global generator.

        :return: ``(batch,)``, or ``(batch, n_dimensions)`` where they are continuous
        :raises ValueError: Q-values are no distribution
        """
        if self.gaussian is not None:
            return th.normal(self.gaussian.mean, self.gaussian.std)
        if self.log_probs is None:
            raise ValueError("Q-values are no distribution over actions that could be sampled from.")
        return th.multinomial(self.log_probs.softmax(dim=1), 1, replacement=True).squeeze(1)

    def arrays(self) -> dict[str, Array]:
        """Whatever is there, by name."""
        gaussian = {} if self.gaussian is None else {"mean": self.gaussian.mean, "std": self.gaussian.std}
        found = {"q_values": self.q_values, "log_probs": self.log_probs, **gaussian, "values": self.values}
        return {name: array for name, array in found.items() if array is not None}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> "Answers":
        """
        :param arrays: what ``arrays`` gave, or rows of it
        :return: the answers
        """
        gaussian = Gaussian(arrays["mean"], arrays["std"]) if "mean" in arrays else None
        return cls(arrays.get("q_values"), arrays.get("log_probs"), gaussian, arrays.get("values"))

    @classmethod
    def concatenate(cls, several: Sequence["Answers"]) -> "Answers":
        """
        :param several: answers of one kind, as tensors
        :return: all of them, one after the other
        """
        arrays = [each.arrays() for each in several]
        return cls.of_arrays({name: th.cat([each[name] for each in arrays]) for name in arrays[0]})

    def map(self, function: Callable[[Array], Array]) -> "Answers":
        """
        :param function: of one array, such as taking rows of it
        :return: the answers with every array changed by it
        """
        return self.of_arrays({name: function(array) for name, array in self.arrays().items()})

    def numpy(self) -> "Answers":
        """The same on the CPU, as arrays."""
        return self.map(lambda tensor: tensor.cpu().numpy())


@dataclass(frozen=True)
class TaskAnswers:
    """
    The answers of several tasks' teachers to a batch of observations.

    :param tasks: the task of each observation ``(batch,)``
    :param by_task: of each task's teacher, to the task's observations in their order
    """

    tasks: np.ndarray
    by_task: dict[int, Answers]

    @property
    def preferences(self) -> th.Tensor:
        """One number per action ``(batch, n_actions)``; minus infinity for actions that a task does not have."""
        own = {task: answers.preferences for task, answers in self.by_task.items()}
        first = next(iter(own.values()))
        n_actions = max(preferences.shape[1] for preferences in own.values())
        padded = first.new_full((len(self.tasks), n_actions), -th.inf)
        for task, preferences in own.items():
            padded[np.flatnonzero(self.tasks == task), : preferences.shape[1]] = preferences
        return padded

    def of_env(self, env: int) -> Answers:
        """
        :param env: index of an observation
        :return: the answers to it alone, ``(1, ...)``
        """
        task = int(self.tasks[env])
        row = int((self.tasks[:env] == task).sum())
        return self.by_task[task].map(lambda array: array[row : row + 1])

    def numpy(self) -> "TaskAnswers":
        """The same on the CPU, as arrays."""
        return TaskAnswers(self.tasks, {task: answers.numpy() for task, answers in self.by_task.items()})
