"""The optimizers of students, by class or by name."""

from typing import Any

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
