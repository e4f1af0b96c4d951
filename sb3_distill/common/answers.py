"""Answers: the outputs of a teacher or a student for a batch of observations, in a form that losses can compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th

# A torch tensor from a network, or a NumPy array in replay buffers and on disk
Array = Any


@dataclass(frozen=True)
class Gaussian:
    """
    A diagonal Gaussian over continuous actions.

    :param mean: ``(batch, n_dimensions)``
    :param std: standard deviations, ``(batch, n_dimensions)``
    """

    mean: Array
    std: Array


@dataclass(frozen=True)
class Answers:
    """
    An agent's outputs for a batch of observations: exactly one of ``q_values``, ``log_probs`` and ``gaussian``, and, if
    the agent has a critic, ``values``.

    :param q_values: Q-values of discrete actions ``(batch, n_actions)``, or the logits of a student that is trained
        with a softmax loss (these have no scale of returns)
    :param log_probs: logarithms of the probabilities of discrete actions ``(batch, n_actions)``
    :param gaussian: a distribution over continuous actions
    :param values: the critic's values of the observations ``(batch,)``
    :raises ValueError: none, or more than one, of ``q_values``, ``log_probs`` and ``gaussian`` is given
    """

    q_values: Array | None = None
    log_probs: Array | None = None
    gaussian: Gaussian | None = None
    values: Array | None = None

    def __post_init__(self) -> None:
        if (self.q_values is not None) + (self.log_probs is not None) + (self.gaussian is not None) != 1:
            raise ValueError("Answers takes exactly one of q_values, log_probs and gaussian.")

    @property
    def preferences(self) -> Array:
        """
        One number per discrete action, Q-values or log-probabilities: the greedy action is their argmax.

        :raises ValueError: the actions are continuous
        """
        if self.gaussian is not None:
            raise ValueError("Continuous actions have a mean and a deviation, not one number for each action.")
        return self.log_probs if self.q_values is None else self.q_values

    def sample(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """
        Draw one action for every observation, each with a generator of its own: which other observations are in the
        batch changes nothing. With state-dependent exploration (gSDE), SB3 keeps the matrix that makes the noise for
        several steps; here the noise of every step is drawn anew. At each step for itself its distribution is SB3's.

        :param rngs: a generator for each observation, or one that stands there several times
        :return: the actions, ``(batch,)`` if they are discrete, ``(batch, n_dimensions)`` if they are continuous; of
            Q-values, which are no distribution, the greedy ones
        """
        answers = self.map(lambda array: th.as_tensor(array).detach().cpu().numpy())
        if answers.gaussian is not None:
            mean, std = answers.gaussian.mean, answers.gaussian.std
            noise = np.stack([rng.standard_normal(mean.shape[1:]) for rng in rngs])
            return (mean + std * noise).astype(mean.dtype)
        if answers.log_probs is None:
            return answers.preferences.argmax(axis=1)
        # The inverse of the cumulative distribution; in float64, so that rounding adds nothing to small probabilities
        log_probs = answers.log_probs.astype(np.float64)
        cumulative = np.exp(log_probs - log_probs.max(axis=1, keepdims=True)).cumsum(axis=1)
        thresholds = np.array([rng.random() for rng in rngs]) * cumulative[:, -1]
        return (cumulative <= thresholds[:, None]).sum(axis=1)

    def arrays(self) -> dict[str, Array]:
        """All fields that are not None, by name; the Gaussian as "mean" and "std"."""
        gaussian = {} if self.gaussian is None else {"mean": self.gaussian.mean, "std": self.gaussian.std}
        found = {"q_values": self.q_values, "log_probs": self.log_probs, **gaussian, "values": self.values}
        return {name: array for name, array in found.items() if array is not None}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> "Answers":
        """
        :param arrays: the result of ``arrays``, or rows of it
        :return: the answers
        """
        gaussian = Gaussian(arrays["mean"], arrays["std"]) if "mean" in arrays else None
        return cls(arrays.get("q_values"), arrays.get("log_probs"), gaussian, arrays.get("values"))

    @classmethod
    def concatenate(cls, several: Sequence["Answers"]) -> "Answers":
        """
        :param several: answers with the same fields, as tensors
        :return: their concatenation along the batch
        """
        arrays = [each.arrays() for each in several]
        return cls.of_arrays({name: th.cat([each[name] for each in arrays]) for name in arrays[0]})

    def map(self, function: Callable[[Array], Array]) -> "Answers":
        """
        :param function: a function of one array, for instance one that selects rows
        :return: the answers with the function applied to every array
        """
        return self.of_arrays({name: function(array) for name, array in self.arrays().items()})

    def numpy(self) -> "Answers":
        """These answers as NumPy arrays."""
        return self.map(lambda tensor: tensor.cpu().numpy())


@dataclass(frozen=True)
class TaskAnswers:
    """
    The answers of the teachers of several tasks to one batch of observations.

    :param tasks: the index of each observation's task ``(batch,)``
    :param by_task: by task, the answers of its teacher to the task's observations, in the order of the observations
    """

    tasks: np.ndarray
    by_task: dict[int, Answers]

    @property
    def preferences(self) -> th.Tensor:
        """One number per action ``(batch, n_actions)``; minus infinity for actions that do not exist in the task."""
        own = {task: answers.preferences for task, answers in self.by_task.items()}
        first = next(iter(own.values()))
        n_actions = max(preferences.shape[1] for preferences in own.values())
        padded = first.new_full((len(self.tasks), n_actions), -th.inf)
        for task, preferences in own.items():
            padded[np.flatnonzero(self.tasks == task), : preferences.shape[1]] = preferences
        return padded

    def of_env(self, env: int) -> Answers:
        """
        :param env: index of an observation in the batch
        :return: the answers to this observation, ``(1, ...)``
        """
        task = int(self.tasks[env])
        row = int((self.tasks[:env] == task).sum())
        return self.by_task[task].map(lambda array: array[row : row + 1])

    def numpy(self) -> "TaskAnswers":
        """These answers as NumPy arrays."""
        return TaskAnswers(self.tasks, {task: answers.numpy() for task, answers in self.by_task.items()})
