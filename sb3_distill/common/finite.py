"""Which numbers of an environment are finite: bounds of its spaces, and what it gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces


def bounded_sides(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """
    :param box: a space
    :return: whether each entry has a lower, and an upper bound. The largest number of its type is none, but for whole
        numbers of few bits, such as pixels
    """
    if np.issubdtype(box.dtype, np.floating):
        largest = float(np.finfo(np.float32).max)
    else:
        largest = float(np.iinfo(box.dtype.name).max) if box.dtype.itemsize >= 4 else np.inf
    return box.low > -largest, box.high < largest


def has_bounds(box: spaces.Box) -> np.ndarray:
    """
    :param box: a space
    :return: whether each entry has both bounds, see ``bounded_sides``
    """
    below, above = bounded_sides(box)
    return below & above


def find_not_finite(what: str, batch: Any) -> tuple[int, str] | None:
    """
    :param what: what the batch holds, such as "observation"
    :param batch: an array with one row for each, or a dictionary of such arrays
    :return: the first row with a number that is not finite, and the number in words, such as "observation[2] is nan";
        None if all are finite
    """
    for key, part in batch.items() if isinstance(batch, Mapping) else [("", batch)]:
        array = np.asarray(part)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            row, *entry = np.argwhere(~np.isfinite(array))[0].tolist()
            place = (f"[{key!r}]" if key else "") + (f"[{', '.join(map(str, entry))}]" if entry else "")
            return row, f"{what}{place} is {array[(row, *entry)]}"
    return None


def check_finite(what: str, batch: Any, n_timesteps: int, first_env: int = 0) -> None:
    """
    :param what: "observation" or "reward"
    :param batch: what each sub-environment gave
    :param n_timesteps: timesteps of the run so far
    :param first_env: index of the sub-environment that gave the first row
    :raises ValueError: it holds NaN or infinite numbers
    """
    found = find_not_finite(what, batch)
    if found is not None:
        env, problem = found
        raise ValueError(
            f"The environment gave an observation or reward that is not a finite number: {problem}, in sub-environment "
            f"{first_env + env} after {n_timesteps} timesteps. Correct the environment or its wrappers; with "
            "stable_baselines3.common.vec_env.VecCheckNan around it, the step that makes the number raises an error."
        )
