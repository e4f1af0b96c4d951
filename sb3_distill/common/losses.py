"""The distillation losses: pure functions of the teacher's and the student's vectors over actions.

Every loss takes ``(batch, n_actions)`` tensors (Q-values or logits), returns a scalar with
``reduction="batchmean"`` semantics (summed over actions, averaged over the batch) and computes in float32
at least, whatever the precision of the networks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch as th
from torch.nn import functional as F

from sb3_distill.common.utils import unknown_choice

# Finite stand-in for log(0): keeps 0 * log(0) at 0 when q / temperature leaves the range of float32.
_LOG_ZERO = -1e30


def _check(teacher_logits: th.Tensor, student_logits: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    if teacher_logits.ndim != 2 or teacher_logits.shape != student_logits.shape:
        raise ValueError(
            "A distillation loss compares two tensors of the same shape (batch, n_actions), but the teacher's is "
            f"{tuple(teacher_logits.shape)} and the student's is {tuple(student_logits.shape)}."
        )
    dtype = th.promote_types(th.promote_types(teacher_logits.dtype, student_logits.dtype), th.float32)
    return teacher_logits.to(dtype), student_logits.to(dtype)


def _log_probs(logits: th.Tensor, temperature: float) -> th.Tensor:
    """Logarithm of ``softmax(logits / temperature)``, finite for every finite input."""
    shifted = logits - logits.amax(dim=1, keepdim=True).detach()
    return F.log_softmax((shifted / temperature).clamp(min=_LOG_ZERO), dim=1)


def nll_loss(teacher_logits: th.Tensor, student_logits: th.Tensor) -> th.Tensor:
    """
    Negative log-likelihood of the teacher's greedy action (Rusu et al. 2015, section 3.2, first loss):
    ``-log softmax(q^S)[argmax q^T]``.

    :param teacher_logits: the teacher's Q-values or logits, ``(batch, n_actions)``
    :param student_logits: the student's, same shape
    :return: the loss, a scalar
    """
    teacher_logits, student_logits = _check(teacher_logits, student_logits)
    return F.nll_loss(_log_probs(student_logits, 1.0), teacher_logits.argmax(dim=1))


def mse_loss(teacher_logits: th.Tensor, student_logits: th.Tensor) -> th.Tensor:
    """
    Squared error (Rusu et al. 2015, section 3.2, second loss): ``||q^T - q^S||^2``,
    summed over the actions and averaged over the batch.

    :param teacher_logits: the teacher's Q-values or logits, ``(batch, n_actions)``
    :param student_logits: the student's, same shape
    :return: the loss, a scalar
    """
    teacher_logits, student_logits = _check(teacher_logits, student_logits)
    return (teacher_logits - student_logits).square().sum(dim=1).mean()


def kl_loss(
    teacher_logits: th.Tensor,
    student_logits: th.Tensor,
    temperature: float = 0.01,
    student_temperature: float = 1.0,
) -> th.Tensor:
    """
    Forward Kullback-Leibler divergence ``sum_a p^T ln(p^T / p^S)`` with ``p^T = softmax(q^T / temperature)``.

    ``student_temperature=1`` is Rusu et al. 2015, section 3.2, third loss; ``student_temperature=temperature`` is
    the loss of Actor-Mimic compression (section 2.2) and of Sun & Fazli 2019, Eq. 1.

    :param teacher_logits: the teacher's Q-values or logits, ``(batch, n_actions)``
    :param student_logits: the student's, same shape
    :param temperature: what the teacher's logits are divided by; below 1 sharpens
    :param student_temperature: what the student's logits are divided by
    :return: the loss, a scalar
    """
    teacher_logits, student_logits = _check(teacher_logits, student_logits)
    teacher_log_probs = _log_probs(teacher_logits, temperature)
    student_log_probs = _log_probs(student_logits, student_temperature)
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum(dim=1).mean()


def reverse_kl_loss(
    teacher_logits: th.Tensor,
    student_logits: th.Tensor,
    temperature: float = 0.01,
    student_temperature: float = 1.0,
) -> th.Tensor:
    """
    Reverse Kullback-Leibler divergence ``sum_a p^S ln(p^S / p^T)`` (Sun & Fazli 2019, Eq. 6).

    :param teacher_logits: the teacher's Q-values or logits, ``(batch, n_actions)``
    :param student_logits: the student's, same shape
    :param temperature: what the teacher's logits are divided by; below 1 sharpens
    :param student_temperature: what the student's logits are divided by
    :return: the loss, a scalar
    """
    # The divergence is the same function with the two roles exchanged.
    return kl_loss(student_logits, teacher_logits, student_temperature, temperature)


def gaussian_kl_loss(
    teacher_mean: th.Tensor,
    teacher_log_std: th.Tensor,
    student_mean: th.Tensor,
    student_log_std: th.Tensor,
    temperature: float = 1.0,
) -> th.Tensor:
    """
    KL divergence from the teacher's diagonal Gaussian to the student's, in closed form; summed over the dimensions of
    the action, averaged over the batch. The temperature scales the teacher's variance, as raising its density to the
    power ``1 / temperature`` does.

    :param teacher_mean: ``(batch, n_dimensions)``
    :param teacher_log_std: logarithm of the teacher's standard deviations, same shape
    :param student_mean: same shape
    :param student_log_std: same shape
    :param temperature: below 1 sharpens
    :return: the loss, a scalar
    """
    teacher_log_std = teacher_log_std.float() + 0.5 * math.log(temperature)
    student_log_std = student_log_std.float()
    variance_ratio = (2 * (teacher_log_std - student_log_std)).exp()
    distance = (teacher_mean.float() - student_mean.float()).square() * (-2 * student_log_std).exp()
    divergence = student_log_std - teacher_log_std + 0.5 * (variance_ratio + distance - 1)
    return divergence.sum(dim=1).mean()


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
    :param temperature: divides the teacher's logits ("kl" and "reverse_kl" only)
    :param student_temperature: divides the student's logits ("kl" and "reverse_kl" only)
    :raises ValueError: unknown name, or a temperature that is not a positive finite number
    """

    name: str = "kl"
    temperature: float = 0.01
    student_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ValueError(unknown_choice("loss", self.name, LOSSES))
        for field in ("temperature", "student_temperature"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{field} must be a positive finite number (the papers use 0.01 or 1), not {value!r}.")

    def __call__(self, teacher_logits: th.Tensor, student_logits: th.Tensor) -> th.Tensor:
        """
        :param teacher_logits: the teacher's Q-values or logits, ``(batch, n_actions)``
        :param student_logits: the student's, same shape
        :return: the loss, a scalar
        """
        loss_fn = LOSSES[self.name]
        if self.name in ("kl", "reverse_kl"):
            return loss_fn(teacher_logits, student_logits, self.temperature, self.student_temperature)
        return loss_fn(teacher_logits, student_logits)
