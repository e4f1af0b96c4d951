"""The plain attributes of objects: numbers, arrays, random generators, and collections of them."""

import pickle
from collections import deque
from typing import Any

from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_distill.state.file import NotPlainError, check_plain
from sb3_distill.state.generators import GENERATORS, generator_state, set_generator_state

# Objects of SB3 that are nothing but their attributes
_RECORDS = (RunningMeanStd, StackedObservations)
# Of a callback: the variables of the training loop, which are not its own
_NOT_OWN = {"locals", "globals"}


def plain_attributes(owner: Any) -> dict[str, Any]:
    """
    :param owner: an object
    :return: its attributes that a state file can hold, by name. Text is left out: it is no state, and names files.
    """
    found = {}
    for name, value in vars(owner).items():
        if isinstance(value, str) or name in _NOT_OWN:
            continue
        try:
            plain = to_plain(value)
            check_plain(plain)
        except NotPlainError:
            continue
        found[name] = plain
    return found


def attribute_marks(owner: Any) -> dict[str, bytes]:
    """
    :param owner: an object
    :return: by name, what its plain attributes are now, to be compared later
    """
    return {name: pickle.dumps(value) for name, value in plain_attributes(owner).items()}


def changed_attributes(owner: Any, marks: dict[str, bytes]) -> dict[str, Any]:
    """
    :param owner: an object
    :param marks: what ``attribute_marks`` returned of it earlier
    :return: its plain attributes that have changed since: settings have not
    """
    found = plain_attributes(owner)
    return {name: value for name, value in found.items() if pickle.dumps(value) != marks.get(name)}


def to_plain(value: Any) -> Any:
    """
    :param value: the value of an attribute
    :return: a value that a state file can hold, if there is one
    """
    if isinstance(value, GENERATORS):
        return generator_state(value)
    if isinstance(value, _RECORDS):
        return plain_attributes(value)
    if isinstance(value, dict) and any(isinstance(part, _RECORDS) for part in value.values()):
        return {key: to_plain(part) for key, part in value.items()}
    return value


def set_plain_attributes(owner: Any, attributes: dict[str, Any]) -> None:
    """
    :param owner: an object of the kind whose attributes they are
    :param attributes: what ``plain_attributes`` returned
    """
    for name, value in attributes.items():
        current = getattr(owner, name, None)
        if isinstance(current, GENERATORS):
            set_generator_state(current, value)
        elif isinstance(current, _RECORDS):
            set_plain_attributes(current, value)
        elif isinstance(current, dict) and any(isinstance(part, _RECORDS) for part in current.values()):
            for key, part in current.items():
                set_plain_attributes(part, value[key])
        elif isinstance(current, (list, deque)) and isinstance(value, list):
            # Others may hold the same collection.
            current.clear()
            current.extend(value)
        elif isinstance(current, dict) and isinstance(value, dict):
            current.clear()
            current.update(value)
        else:
            setattr(owner, name, value)
