"""The algorithms, by the keys that the Zoo's ``--algo`` takes."""

import inspect
import pkgutil
from itertools import dropwhile
from typing import Any

# Key of the Zoo's --algo -> class
ALGORITHMS = {
    "pd": "sb3_distill.pd:PolicyDistillation",
    "rtpd": "sb3_distill.rtpd:RealTimeDistillDQN",
    "qpd": "sb3_distill.qpd:QPD",
    "ppd": "sb3_distill.ppd:ProximalPolicyDistillation",
    "mtpd": "sb3_distill.mtpd:MultiTaskDistillation",
    "mtdqn": "sb3_distill.mtpd:MultiTaskDQN",
}
# Those that leave students of a single game
STUDENTS = ("pd", "qpd", "ppd")


def resolve(key: str) -> Any:
    """
    :param key: key of an algorithm in the Zoo
    :return: its class
    """
    return pkgutil.resolve_name(ALGORITHMS[key])


def key_of(algorithm: type) -> str:
    """
    :param algorithm: one of the classes, or a subclass of one
    :return: its key in the Zoo
    """
    keys = {name: key for key, name in ALGORITHMS.items()}
    names = (f"{cls.__module__.rpartition('.')[0]}:{cls.__name__}" for cls in algorithm.__mro__)
    return next(keys[name] for name in names if name in keys)


def arguments_of(algorithm: Any, above: Any = None) -> frozenset[str]:
    """
    :param algorithm: one of the classes, or a subclass of one
    :param above: a base: only what its own bases take
    :return: names of the arguments of the constructor, also of those that it passes on to the constructors of its bases
    """
    bases = algorithm.__mro__
    if above is not None:
        bases = tuple(dropwhile(lambda base: base is not above, bases))[1:]
    names: set[str] = set()
    for base in bases:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names |= {parameter.name for parameter in parameters if parameter.kind in kinds}
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return frozenset(names - {"self"})
