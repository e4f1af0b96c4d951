"""Finds NaN and infinite numbers in what an environment gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np


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
