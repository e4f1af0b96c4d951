"""RMSProp as the papers of DQN and policy distillation use it."""

import math
from collections.abc import Iterable
from typing import Any

import torch as th

from sb3_distill.networks.stepping import ParameterWiseOptimizer


class CappedRMSprop(ParameterWiseOptimizer):
    """
    RMSProp whose rate for a parameter, the learning rate divided by the root mean square of the parameter's gradients,
    has a maximum.

    Rusu et al. 2015 (appendix A) give learning rates "with maximum learning rates" and do not say what these are: a cap
    on the divided rate is our reading. Without it, ``centered=True`` and ``eps=0.01`` are the RMSProp of Mnih et al.
    2015. PyTorch's ``RMSprop`` has no cap, and adds ``eps`` after the root.

    :param params: the parameters
    :param lr: learning rate
    :param max_rate: the largest rate of a parameter
    :param alpha: share of the earlier gradients in the means
    :param eps: added to the mean square, under the root
    :param centered: subtract the squared mean of the gradients from their mean square
    :raises ValueError: an argument is out of range
    """

    def __init__(
        self,
        params: Iterable[th.Tensor],
        lr: float = 2.5e-4,
        max_rate: float = math.inf,
        alpha: float = 0.95,
        eps: float = 1e-8,
        centered: bool = False,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, not {lr}.")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must be at least 0 and below 1, not {alpha}.")
        for name, value in (("max_rate", max_rate), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}.")
        defaults = {"lr": lr, "max_rate": max_rate, "alpha": alpha, "eps": eps, "centered": centered}
        super().__init__(params, defaults)

    def _step_parameter(self, param: th.Tensor, gradient: th.Tensor, group: dict[str, Any]) -> None:
        param.addcmul_(self._rate(param, gradient, group), gradient, value=-1)

    def _rate(self, param: th.Tensor, gradient: th.Tensor, group: dict[str, Any]) -> th.Tensor:
        state = self.state[param]
        if not state:
            state["square_avg"] = th.zeros_like(param)
            if group["centered"]:
                state["grad_avg"] = th.zeros_like(param)
        square = state["square_avg"].lerp_(gradient.square(), 1 - group["alpha"])
        if group["centered"]:
            mean = state["grad_avg"].lerp_(gradient, 1 - group["alpha"])
            # Rounding can take it below zero.
            square = square.addcmul(mean, mean, value=-1).clamp_(min=0)
        return square.add(group["eps"]).rsqrt_().mul_(group["lr"]).clamp_(max=group["max_rate"])
