"""The distillation losses: pure functions of the teacher's and the student's vectors over actions.

Every loss takes ``(batch, n_actions)`` tensors (Q-values or log-probabilities), sums over the actions and returns one
number per example; the caller averages them. Losses are computed in float32 or a wider type, even if the networks use
a narrower one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch as th
from gymnasium import spaces
from torch.nn import functional as F

from sb3_distill.common.answers import Answers, Gaussian
from sb3_distill.common.utils import unknown_choice

# Used instead of log(0) = -inf, so that 0 * log(0) is 0 and not NaN when q / temperature exceeds the range of float32
_LOG_ZERO = -1e30


def _check(teacher: th.Tensor, student: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    if teacher.ndim != 2 or teacher.shape != student.shape:
        raise ValueError(
            "A distillation loss compares two tensors of the same shape (batch, n_actions), but the teacher's is "
            f"{tuple(teacher.shape)} and the student's is {tuple(student.shape)}."
        )
    dtype = th.promote_types(th.promote_types(teacher.dtype, student.dtype), th.float32)
    return teacher.to(dtype), student.to(dtype)


def _log_probs(logits: th.Tensor, temperature: float) -> th.Tensor:
    """Logarithm of ``softmax(logits / temperature)``, finite for every finite input."""
    shifted = logits - logits.amax(dim=1, keepdim=True).detach()
    return F.log_softmax((shifted / temperature).clamp(min=_LOG_ZERO), dim=1)


def nll_loss(teacher: th.Tensor, student: th.Tensor) -> th.Tensor:
    """
    Negative log-likelihood of the teacher's greedy action (Rusu et al. 2015, section 3.2, first loss):
    ``-log softmax(q^S)[argmax q^T]``.

    :param teacher: the teacher's Q-values or log-probabilities, ``(batch, n_actions)``
    :param student: the student's, same shape
    :return: the losses ``(batch,)``
    """
    teacher, student = _check(teacher, student)
    return F.nll_loss(_log_probs(student, 1.0), teacher.argmax(dim=1), reduction="none")


def mse_loss(teacher: th.Tensor, student: th.Tensor) -> th.Tensor:
    """
    Squared error (Rusu et al. 2015, section 3.2, second loss): ``||q^T - q^S||^2``,
    summed over the actions.

    :param teacher: the teacher's Q-values or log-probabilities, ``(batch, n_actions)``
    :param student: the student's, same shape
    :return: the losses ``(batch,)``
    """
    teacher, student = _check(teacher, student)
    return (teacher - student).square().sum(dim=1)


def kl_loss(
    teacher: th.Tensor,
    student: th.Tensor,
    temperature: float = 0.01,
    student_temperature: float = 1.0,
) -> th.Tensor:
    """
    Forward Kullback-Leibler divergence ``sum_a p^T ln(p^T / p^S)`` with ``p^T = softmax(q^T / temperature)``.

    ``student_temperature=1`` is Rusu et al. 2015, section 3.2, third loss; ``student_temperature=temperature`` is
    the loss of Actor-Mimic compression (section 2.2) and of Sun & Fazli 2019, Eq. 1.

    :param teacher: the teacher's Q-values or log-probabilities, ``(batch, n_actions)``
    :param student: the student's, same shape
    :param temperature: divides the teacher's numbers before the softmax; below 1 sharpens the distribution
    :param student_temperature: divides the student's numbers before the softmax
    :return: the losses ``(batch,)``
    """
    teacher, student = _check(teacher, student)
    teacher_log_probs = _log_probs(teacher, temperature)
    student_log_probs = _log_probs(student, student_temperature)
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum(dim=1)


def reverse_kl_loss(
    teacher: th.Tensor,
    student: th.Tensor,
    temperature: float = 0.01,
    student_temperature: float = 1.0,
) -> th.Tensor:
    """
    Reverse Kullback-Leibler divergence ``sum_a p^S ln(p^S / p^T)`` (Sun & Fazli 2019, Eq. 6).

    :param teacher: the teacher's Q-values or log-probabilities, ``(batch, n_actions)``
    :param student: the student's, same shape
    :param temperature: divides the teacher's numbers before the softmax; below 1 sharpens the distribution
    :param student_temperature: divides the student's numbers before the softmax
    :return: the losses ``(batch,)``
    """
    # The divergence is the same function with the two roles exchanged.
    return kl_loss(student, teacher, student_temperature, temperature)


def gaussian_kl_loss(teacher: Gaussian, student: Gaussian, temperature: float = 1.0) -> th.Tensor:
    """
    KL divergence ``KL(teacher || student)`` between diagonal Gaussians, in closed form, summed over the dimensions of
    the action. The teacher's variance is multiplied by the temperature, which is the same as raising its density to the
    power ``1 / temperature``.

    :param teacher: the teacher's mean and standard deviation, ``(batch, n_dimensions)`` each
    :param student: the student's, same shapes
    :param temperature: multiplies the teacher's variance; below 1 sharpens the distribution
    :return: the losses ``(batch,)``
    """
    teacher_log_std = teacher.std.log().float() + 0.5 * math.log(temperature)
    student_log_std = student.std.log().float()
    variance_ratio = (2 * (teacher_log_std - student_log_std)).exp()
    distance = (teacher.mean.float() - student.mean.float()).square() * (-2 * student_log_std).exp()
    divergence = student_log_std - teacher_log_std + 0.5 * (variance_ratio + distance - 1)
    return divergence.sum(dim=1)


def action_loss(teacher: th.Tensor, student: th.Tensor) -> th.Tensor:
    """
    Huber loss between continuous actions, summed over their dimensions. For answers between which there is no
    divergence: an agent without a distribution, or Gaussians of which only one is squashed.

    :param teacher: the teacher's greedy actions, scaled from their bounds to [-1, 1], ``(batch, n_dimensions)``
    :param student: the student's, likewise
    :return: the losses ``(batch,)``
    """
    return F.huber_loss(student.float(), teacher.float(), reduction="none").sum(dim=1)


def proximal_loss(losses: th.Tensor, ratio: th.Tensor, clip_range: float) -> th.Tensor:
    """
    The distillation loss of Spigler 2025 (arXiv 2407.15134): ``max(ratio, 1 - clip_range) KL(teacher || student)``.
    Both factors are never negative, so that the clipping from above, which PPO has, would do nothing.

    :param losses: the divergences ``(batch,)``
    :param ratio: probability of the student's action now, divided by that at the time of play ``(batch,)``
    :param clip_range: the clipping parameter of PPO
    :return: the losses ``(batch,)``
    """
    return ratio.clamp(min=1.0 - clip_range) * losses


LOSSES: dict[str, Callable[..., th.Tensor]] = {
    "kl": kl_loss,
    "reverse_kl": reverse_kl_loss,
    "nll": nll_loss,
    "mse": mse_loss,
}


@dataclass(frozen=True)
class DistillationLoss:
    """
    A named loss with its temperatures, checked once at construction.

    :param name: one of ``LOSSES``: "kl", "reverse_kl", "nll", "mse"
    :param temperature: divides the teacher's numbers ("kl" and "reverse_kl" only)
    :param student_temperature: divides the student's numbers ("kl" and "reverse_kl" only)
    :param action_space: the student's continuous actions ("kl" only): where there is no divergence between the answers,
        actions are compared (see ``action_loss``)
    :raises ValueError: unknown name, or a temperature that is not a positive finite number
    """

    name: str = "kl"
    temperature: float = 0.01
    student_temperature: float = 1.0
    action_space: spaces.Box | None = None

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ValueError(unknown_choice("loss", self.name, LOSSES))
        for field in ("temperature", "student_temperature"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{field} must be a positive finite number (the papers use 0.01 or 1), not {value!r}.")

    @property
    def has_temperature(self) -> bool:
        """Whether the loss depends on the temperatures."""
        return self.name in ("kl", "reverse_kl")

    def __call__(self, teacher: Answers, student: Answers) -> th.Tensor:
        """
        :param teacher: the teacher's answers
        :param student: the student's, to the same observations
        :return: the losses ``(batch,)``
        :raises ValueError: this loss is not defined for answers of these kinds
        """
        if teacher.is_continuous and student.is_continuous and self.name == "kl":
            if teacher.gaussian is not None and student.gaussian is not None and teacher.is_comparable(student):
                # Squashing is the same function on both sides, which leaves the divergence as it is.
                return gaussian_kl_loss(teacher.gaussian, student.gaussian, self.temperature)
            if self.action_space is not None:
                return action_loss(*(each.scaled_actions(self.action_space) for each in (teacher, student)))
        loss_fn = LOSSES[self.name]
        if self.has_temperature:
            return loss_fn(teacher.preferences, student.preferences, self.temperature, self.student_temperature)
        return loss_fn(teacher.preferences, student.preferences)


def compare_actions(
    teacher: Answers, student: Answers, action_space: spaces.Space | None = None
) -> dict[str, th.Tensor]:
    """
    Measure how similarly teacher and student act, for the log.

    :param teacher: the teacher's answers
    :param student: the student's, to the same observations
    :param action_space: the student's actions, if they are continuous
    :return: for discrete actions "agreement", the share of observations in which both have the same greedy action; for
        continuous actions "action_distance", the mean absolute difference between the greedy actions of both, scaled
        from their bounds to [-1, 1]
    """
    if isinstance(action_space, spaces.Box):
        distances = student.scaled_actions(action_space) - teacher.scaled_actions(action_space)
        return {"action_distance": distances.abs().mean()}
    same_action = student.preferences.argmax(dim=1) == teacher.preferences.argmax(dim=1)
    return {"agreement": same_action.float().mean()}


def entropies(answers: Answers) -> th.Tensor:
    """
    :param answers: distributions over actions
    :return: their entropies ``(batch,)``; of squashed Gaussians, which have no closed form, those before the squashing
    """
    if answers.gaussian is not None:
        return (answers.gaussian.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=1)
    return -(answers.log_probs.exp() * answers.log_probs).sum(dim=1)  # type: ignore[union-attr]
