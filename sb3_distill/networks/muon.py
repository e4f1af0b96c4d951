"""The optimizer Muon (Jordan et al. 2024) for small convolutional networks."""

from collections.abc import Iterable
from typing import Any

import torch as th

from sb3_distill.networks.stepping import ParameterWiseOptimizer

# Jordan et al. 2024: coefficients of the quintic iteration that brings singular values near 1
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_N_ITERATIONS = 5


class Muon(ParameterWiseOptimizer):
    """
    Momentum whose updates are orthogonalised: all directions of a weight matrix move by the same amount. Biases, and
    other parameters with one dimension, are updated by Adam.

    PyTorch's ``Muon`` takes matrices alone, and works in bfloat16. Here the filters of a convolution are the rows of a
    matrix (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). Updates are scaled so that their root mean
    square is the learning rate, whatever the shape of the matrix (as in Liu et al. 2025, arXiv 2502.16982, Eq. 4, who
    take a fifth of it).

    :param params: the parameters
    :param lr: learning rate
    :param momentum: share of the earlier gradients in the momentum (Nesterov's)
    :param betas: Adam's, for parameters with one dimension
    :param eps: added to denominators
    :raises ValueError: an argument is out of range
    """

    def __init__(
        self,
        params: Iterable[th.Tensor],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, not {lr}.")
        for name, value in (("momentum", momentum), ("betas", betas[0]), ("betas", betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps})

    def _step_parameter(self, param: th.Tensor, gradient: th.Tensor, group: dict[str, Any]) -> None:
        update = self._matrix_update if param.ndim > 1 else self._vector_update
        param.add_(update(param, gradient, group), alpha=-group["lr"])

    def _matrix_update(self, param: th.Tensor, gradient: th.Tensor, group: dict[str, Any]) -> th.Tensor:
        state = self.state[param]
        if not state:
            state["momentum_buffer"] = th.zeros_like(param)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        matrix = gradient.lerp(momentum, group["momentum"]).flatten(1)
        # The root mean square of an orthogonal matrix is one through the root of its longer side.
        return orthogonalize(matrix, group["eps"]).view_as(param) * max(matrix.shape) ** 0.5

    def _vector_update(self, param: th.Tensor, gradient: th.Tensor, group: dict[str, Any]) -> th.Tensor:
        state = self.state[param]
        if not state:
            state.update(step=0, exp_avg=th.zeros_like(param), exp_avg_sq=th.zeros_like(param))
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1) / (1 - beta1 ** state["step"])
        square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2) / (1 - beta2 ** state["step"])
        return mean / square.sqrt().add_(group["eps"])


def orthogonalize(matrix: th.Tensor, eps: float = 1e-8) -> th.Tensor:
    """
    :param matrix: a matrix ``(m, n)``
    :param eps: keeps a matrix of zeros what it is
    :return: about the orthogonal matrix that is nearest to it: its singular values come to lie between 0.7 and 1.2
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + eps)
    # All iterations are polynomials of x @ x.T, which commute: iterating on this small square matrix, and multiplying x
    # once at the end, takes half the time for (256, 1568).
    gram = x @ x.T
    product = polynomial = _polynomial(gram)
    for _ in range(_N_ITERATIONS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        product = polynomial @ product
    x = product @ x
    return x.T if is_tall else x


def _polynomial(gram: th.Tensor) -> th.Tensor:
    a, b, c = _NEWTON_SCHULZ
    polynomial = b * gram + c * gram @ gram
    polynomial.diagonal().add_(a)
    return polynomial
