"""Answers: the outputs of a teacher or a student for a batch of observations, in a form that losses can compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_distill.common.finite import has_bounds

# A torch tensor from a network, or a NumPy array in replay buffers and on disk
Array = Any
# Stands before the names of the arrays of a squashed Gaussian
_SQUASHED = "squashed_"


def _centre_and_half(actions: Array, action_space: spaces.Space | None) -> tuple[Array, Array]:
    """What is subtracted from actions, and what they are divided by, to scale them; in dimensions without bounds, 0
    and 1."""
    assert isinstance(action_space, spaces.Box)
    bounded = has_bounds(action_space).reshape(-1)
    low = np.where(bounded, action_space.low.reshape(-1).astype(np.float64), -1.0)
    high = np.where(bounded, action_space.high.reshape(-1).astype(np.float64), 1.0)
    centre, half = ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)
    if isinstance(actions, th.Tensor):
        return th.as_tensor(centre, device=actions.device), th.as_tensor(half, device=actions.device)
    return centre, half


def scale_actions(actions: Array, action_space: spaces.Space | None) -> Array:
    """
    :param actions: continuous actions ``(batch, n_dimensions)``
    :param action_space: their space
    :return: the actions scaled from its bounds to [-1, 1]; as they are in dimensions without bounds (see
        ``has_bounds``)
    """
    centre, half = _centre_and_half(actions, action_space)
    return (actions - centre) / half


def clip_scaled(scaled: th.Tensor, action_space: spaces.Box) -> th.Tensor:
    """
    :param scaled: the result of ``scale_actions``
    :param action_space: the actions
    :return: the same between -1 and 1; as they are in dimensions without bounds
    """
    bounded = th.as_tensor(has_bounds(action_space).reshape(-1), device=scaled.device)
    return th.where(bounded, scaled.clamp(-1.0, 1.0), scaled)


def unscale_actions(scaled: Array, action_space: spaces.Space | None) -> Array:
    """
    :param scaled: the result of ``scale_actions``
    :param action_space: the actions
    :return: the actions
    """
    centre, half = _centre_and_half(scaled, action_space)
    return centre + half * scaled


@dataclass(frozen=True)
class Gaussian:
    """
    A diagonal Gaussian over continuous actions.

    :param mean: ``(batch, n_dimensions)``
    :param std: standard deviations, ``(batch, n_dimensions)``
    :param squashed: whether actions are the hyperbolic tangent of what is drawn, scaled from [-1, 1] to the bounds of
        the actions, as SAC's are; otherwise they are what is drawn, clipped to the bounds
    """

    mean: Array
    std: Array
    squashed: bool = False


@dataclass(frozen=True)
class Answers:
    """
    An agent's outputs for a batch of observations: exactly one of ``q_values``, ``log_probs``, ``gaussian`` and
    ``point``, and, if the agent has a critic, ``values``.

    :param q_values: Q-values of discrete actions ``(batch, n_actions)``, or the logits of a student that is trained
        with a softmax loss (these have no scale of returns)
    :param log_probs: logarithms of the probabilities of discrete actions ``(batch, n_actions)``
    :param gaussian: a distribution over continuous actions
    :param values: the critic's values of the observations ``(batch,)``
    :param point: continuous actions of an agent without a distribution, scaled from their bounds to [-1, 1]
        ``(batch, n_dimensions)``
    :raises ValueError: none, or more than one, of the four is given
    """

    q_values: Array | None = None
    log_probs: Array | None = None
    gaussian: Gaussian | None = None
    values: Array | None = None
    point: Array | None = None

    def __post_init__(self) -> None:
        if sum(field is not None for field in (self.q_values, self.log_probs, self.gaussian, self.point)) != 1:
            raise ValueError("Answers takes exactly one of q_values, log_probs, gaussian and point.")

    @property
    def is_continuous(self) -> bool:
        """Whether the actions are continuous."""
        return self.gaussian is not None or self.point is not None

    def is_comparable(self, other: "Answers") -> bool:
        """
        :param other: another agent's answers to the same observations
        :return: whether both are distributions over the same set, so that there is a divergence between them: over
            discrete actions, or Gaussians of which both or neither are squashed
        """
        if self.gaussian is None or other.gaussian is None:
            return not self.is_continuous and not other.is_continuous
        return self.gaussian.squashed == other.gaussian.squashed

    @property
    def preferences(self) -> Array:
        """
        One number per discrete action, Q-values or log-probabilities: the greedy action is their argmax.

        :raises ValueError: the actions are continuous
        """
        if self.is_continuous:
            raise ValueError("Continuous actions have a mean and a deviation, not one number for each action.")
        return self.log_probs if self.q_values is None else self.q_values

    def masked(self, action_masks: Array) -> "Answers":
        """
        :param action_masks: which discrete actions are allowed ``(batch, n_actions)``
        :return: the answers, as tensors, with a probability of 0 for all other actions
        :raises ValueError: the actions are continuous
        """
        preferences = th.as_tensor(self.preferences)
        allowed = th.as_tensor(action_masks, dtype=th.bool, device=preferences.device).reshape(preferences.shape)
        left = preferences.masked_fill(~allowed, -th.inf)
        if self.q_values is not None:
            return replace(self, q_values=left)
        return replace(self, log_probs=left - left.logsumexp(dim=1, keepdim=True))

    @property
    def allowed(self) -> np.ndarray | None:
        """Which discrete actions are allowed ``(batch, n_actions)``; None: all of them, or the actions are
        continuous."""
        if self.is_continuous:
            return None
        allowed: np.ndarray = th.as_tensor(self.preferences).cpu().numpy() > -np.inf
        return None if allowed.all() else allowed

    def scaled_actions(self, action_space: spaces.Box) -> th.Tensor:
        """
        :param action_space: the continuous actions
        :return: the greedy actions as tensors, clipped to their bounds and scaled from these to [-1, 1]. Where a mean
            is clipped, its gradient is that of the clipped action: otherwise a mean beyond its bounds could never learn
            to come back.
        """
        if self.gaussian is None:
            return th.as_tensor(self.point)
        mean = th.as_tensor(self.gaussian.mean)
        if self.gaussian.squashed:
            return mean.tanh()
        scaled = scale_actions(mean, action_space)
        return scaled + (clip_scaled(scaled, action_space) - scaled).detach()

    def greedy(self, action_space: spaces.Space) -> np.ndarray:
        """
        :param action_space: the actions
        :return: the actions of highest preference, or the means, as the environment takes them: ``(batch,)`` if they
            are discrete, ``(batch, ...)`` within their bounds if they are continuous
        """
        if not isinstance(action_space, spaces.Box):
            return th.as_tensor(self.preferences).argmax(dim=1).cpu().numpy()
        if self.gaussian is not None and not self.gaussian.squashed:
            # As it is, not scaled there and back: to the last bit
            actions = self.gaussian.mean
        else:
            actions = unscale_actions(self.scaled_actions(action_space), action_space)
        shaped = th.as_tensor(actions).cpu().numpy().reshape(-1, *action_space.shape)
        return np.clip(shaped, action_space.low, action_space.high)

    def sample(self, rngs: Sequence[np.random.Generator], action_space: spaces.Space | None = None) -> np.ndarray:
        """
        Draw one action for every observation, each with a generator of its own: which other observations are in the
        batch changes nothing. With state-dependent exploration (gSDE), SB3 keeps the matrix that makes the noise for
        several steps; here the noise of every step is drawn anew. At each step for itself its distribution is SB3's.

        :param rngs: a generator for each observation, or one that stands there several times
        :param action_space: the actions, to whose bounds squashed actions and points are scaled
        :return: the actions, ``(batch,)`` if they are discrete, ``(batch, n_dimensions)`` if they are continuous, which
            can be beyond the bounds; of Q-values and of points, which are no distribution, the greedy ones
        """
        answers = self.map(lambda array: th.as_tensor(array).detach().cpu().numpy())
        if answers.gaussian is not None:
            mean, std = answers.gaussian.mean, answers.gaussian.std
            noise = np.stack([rng.standard_normal(mean.shape[1:]) for rng in rngs])
            drawn = (mean + std * noise).astype(mean.dtype)
            return unscale_actions(np.tanh(drawn), action_space) if answers.gaussian.squashed else drawn
        if answers.point is not None:
            return unscale_actions(answers.point, action_space)
        if answers.log_probs is None:
            return answers.preferences.argmax(axis=1)
        # The inverse of the cumulative distribution; in float64, so that rounding adds nothing to small probabilities
        log_probs = answers.log_probs.astype(np.float64)
        cumulative = np.exp(log_probs - log_probs.max(axis=1, keepdims=True)).cumsum(axis=1)
        thresholds = np.array([rng.random() for rng in rngs]) * cumulative[:, -1]
        return (cumulative <= thresholds[:, None]).sum(axis=1)

    def arrays(self) -> dict[str, Array]:
        """All fields that are not None, by name; a Gaussian as "mean" and "std", a squashed one as "squashed_mean"
        and "squashed_std"."""
        found = {"q_values": self.q_values, "log_probs": self.log_probs, "point": self.point}
        if self.gaussian is not None:
            prefix = _SQUASHED if self.gaussian.squashed else ""
            found |= {f"{prefix}mean": self.gaussian.mean, f"{prefix}std": self.gaussian.std}
        found["values"] = self.values
        return {name: array for name, array in found.items() if array is not None}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> "Answers":
        """
        :param arrays: the result of ``arrays``, or rows of it
        :return: the answers
        """
        gaussian = None
        for prefix in ("", _SQUASHED):
            if f"{prefix}mean" in arrays:
                gaussian = Gaussian(arrays[f"{prefix}mean"], arrays[f"{prefix}std"], bool(prefix))
        return cls(arrays.get("q_values"), arrays.get("log_probs"), gaussian, arrays.get("values"), arrays.get("point"))

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
    # Such teachers have no masks; which actions a task has, the student's policy knows.
    allowed: ClassVar[None] = None

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
