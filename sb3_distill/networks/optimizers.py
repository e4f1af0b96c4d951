"""The optimizers of students, by class or by name."""

from typing import Any

import torch as th
from torch import optim

from sb3_distill.networks.muon import Muon
from sb3_distill.networks.rmsprop import CappedRMSprop

# The names that files may use: they are looked up here, and nothing is imported.
OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    cls.__name__: cls
    for cls in (optim.Adam, optim.AdamW, optim.RMSprop, optim.SGD, optim.NAdam, optim.RAdam, Muon, CappedRMSprop)
}


def optimizer_of(name: type[optim.Optimizer] | str) -> type[optim.Optimizer]:
    """
    :param name: a class, or the name of one in ``OPTIMIZERS``, as YAML has it
    :return: the class
    :raises ValueError: the name is not known
    """
    if not isinstance(name, str):
        return name
    if name not in OPTIMIZERS:
        raise ValueError(
            f'optimizer_class must be a class or one of {", ".join(OPTIMIZERS)}, not "{name}". '
            "Pass the class itself for another one."
        )
    return OPTIMIZERS[name]


@th.no_grad()
def align_states(optimizer: optim.Optimizer) -> None:
    """
    Give the states of an optimizer the memory layout of their parameters. The fused Adam on a CPU reads both as they
    lie in memory, and a student that goes on at another precision has another layout than its file.

    :param optimizer: the optimizer
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, th.Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = th.empty_like(parameter, dtype=value.dtype).copy_(value)


def fused_where_possible(optimizer_class: type[optim.Optimizer], optimizer_kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    :param optimizer_class: the optimizer
    :param optimizer_kwargs: the user's arguments for the optimizer
    :return: the arguments; for Adam and AdamW with ``fused=True`` unless the user chose otherwise: one kernel updates
        all parameters, which takes a third of the time on small networks
    """
    if optimizer_class in (optim.Adam, optim.AdamW) and "foreach" not in optimizer_kwargs:
        return {"fused": True, **optimizer_kwargs}
    return optimizer_kwargs
