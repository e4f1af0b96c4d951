"""
How students are computed: when compiling their update pays (a rule of the processor and the planned updates, and never
of a timing), and that the memory of one minibatch serves the next.
"""

import ctypes
import os

import torch as th
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from torch import nn

from sb3_distill.networks.extractors import StudentCNN

# The number of updates (of 32 observations, Net1Policy) that win back the half minute of compiling, by the processor's
# vector instructions. Measured with AVX2: 4 to 5% of each update; with AVX-512 and bfloat16: 2.5 instead of 3.1 ms.
BREAK_EVEN = {"AVX2": 35_000, "AVX512": 50_000}


def break_even(policy: nn.Module, device: th.device) -> int | None:
    """
    :param policy: a student
    :param device: the device on which it is trained
    :return: the number of updates from which compiling them pays; None where that was not measured, as for students
        without ``StudentCNN`` and on CUDA devices
    """
    if device.type != "cpu" or not any(isinstance(module, StudentCNN) for module in policy.modules()):
        return None
    return BREAK_EVEN.get(th.backends.cpu.get_cpu_capability())


def planned_updates(n_timesteps: int, n_envs: int, train_freq: TrainFreq, gradient_steps: int) -> int:
    """
    :param n_timesteps: how many steps will be collected, of all environments together, while the student is updated
    :param n_envs: number of environments
    :param train_freq: how much is collected between two series of updates
    :param gradient_steps: how many updates each series has; -1: as many as steps were collected
    :return: about how many updates there will be; 0 where it is not known, since episodes are counted
    """
    if gradient_steps < 0:
        return max(n_timesteps, 0)
    if train_freq.unit == TrainFrequencyUnit.EPISODE:
        return 0
    return max(n_timesteps, 0) // (train_freq.frequency * n_envs) * gradient_steps


# glibc's malloc.h: the numbers of two parameters. 32 MiB is the most that it takes for the second.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BLOCK = 256 * 2**20, 32 * 2**20
# With one of these the user has chosen
_USERS_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """
    Let this process keep up to 256 MB of freed memory. The arrays of a minibatch of images are so large that glibc
    gives each back to the system, which must fill it with zeros, page by page, before it serves the next minibatch: a
    quarter to two fifths of an update of 128 frames, on one thread (``docs/pd_results.md``). No result depends on it.

    :return: whether it was done: by glibc alone, and where no environment variable says how memory is to be kept
    """
    if any(name in os.environ for name in _USERS_CHOICE):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
