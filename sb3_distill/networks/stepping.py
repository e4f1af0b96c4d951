"""What our optimizers share: a step that updates each parameter for itself."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch as th


class ParameterWiseOptimizer(th.optim.Optimizer):
    """An optimizer that updates each parameter with a gradient by its own gradient and state."""

    @th.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """
        One update.

        :param closure: computes the loss again; its value is returned
        :return: the loss, None without a closure
        """
        loss = None
        if closure is not None:
            with th.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_parameter(param, param.grad, group)
        return loss

    @abstractmethod
    def _step_parameter(self, param: th.Tensor, gradient: th.Tensor, group: dict[str, Any]) -> None:
        """Update one parameter in place."""
