"""States of random generators as plain values."""

import random
from typing import Any

import numpy as np
import torch as th

Generator = np.random.Generator | np.random.RandomState | random.Random
GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)


def generator_state(generator: Generator) -> Any:
    """
    :param generator: a generator of NumPy or of the standard library
    :return: its state, as plain values and arrays
    """
    if isinstance(generator, np.random.Generator):
        return dict(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def set_generator_state(generator: Generator, state: Any) -> None:
    """
    :param generator: a generator of the kind whose state it is
    :param state: what ``generator_state`` returned
    """
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


def global_generators() -> dict[str, Any]:
    """
    :return: the states of the generators that programs share: Python's, NumPy's, and torch's of all devices
    """
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else [],
    }


def set_global_generators(states: dict[str, Any]) -> None:
    """
    :param states: what ``global_generators`` returned; states of CUDA devices that this machine lacks are left out
    """
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(states["torch"])
    if th.cuda.is_available():
        for device, state in enumerate(states["cuda"][: th.cuda.device_count()]):
            th.cuda.set_rng_state(state, device)
