"""Policy distillation for Stable-Baselines3: small students from trained agents."""

from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

from sb3_distill.envs.minatar import register_minatar
from sb3_distill.version import __version__

if TYPE_CHECKING:
    from sb3_distill.agents.agent import Teacher
    from sb3_distill.agents.load import load_teacher
    from sb3_distill.common.answers import Answers, Gaussian
    from sb3_distill.envs.native import NativeAtari, PythonAtari
    from sb3_distill.envs.wrappers.keys import RenderedFrames, StackedEntries
    from sb3_distill.envs.wrappers.picture import OwnPicture
    from sb3_distill.mtpd import MultiTaskDistillation, MultiTaskDQN
    from sb3_distill.networks.muon import Muon
    from sb3_distill.networks.rmsprop import CappedRMSprop
    from sb3_distill.pd import PolicyDistillation
    from sb3_distill.ppd import ProximalPolicyDistillation
    from sb3_distill.qpd import QPD
    from sb3_distill.rtpd import RealTimeDistillDQN

__all__ = [
    "QPD",
    "Answers",
    "CappedRMSprop",
    "Gaussian",
    "MultiTaskDQN",
    "MultiTaskDistillation",
    "Muon",
    "NativeAtari",
    "OwnPicture",
    "PolicyDistillation",
    "ProximalPolicyDistillation",
    "PythonAtari",
    "RealTimeDistillDQN",
    "RenderedFrames",
    "StackedEntries",
    "Teacher",
    "__version__",
    "load_teacher",
]

# Processes that import this package call ``gymnasium.make("MultiTask-v0")``; all others call
# ``gymnasium.make("sb3_distill:MultiTask-v0")``, which imports it.
register("MultiTask-v0", entry_point="sb3_distill.envs.multitask:make_multi_task")
register("MultiTaskAtari-v0", entry_point="sb3_distill.envs.multitask:make_multi_task_atari")
register_minatar()

_PUBLIC = {
    "Answers": "sb3_distill.common.answers",
    "Gaussian": "sb3_distill.common.answers",
    "QPD": "sb3_distill.qpd",
    "MultiTaskDQN": "sb3_distill.mtpd",
    "MultiTaskDistillation": "sb3_distill.mtpd",
    "NativeAtari": "sb3_distill.envs.native",
    "Muon": "sb3_distill.networks.muon",
    "CappedRMSprop": "sb3_distill.networks.rmsprop",
    "PolicyDistillation": "sb3_distill.pd",
    "ProximalPolicyDistillation": "sb3_distill.ppd",
    "PythonAtari": "sb3_distill.envs.native",
    "RealTimeDistillDQN": "sb3_distill.rtpd",
    "OwnPicture": "sb3_distill.envs.wrappers.picture",
    "RenderedFrames": "sb3_distill.envs.wrappers.keys",
    "StackedEntries": "sb3_distill.envs.wrappers.keys",
    "Teacher": "sb3_distill.agents.agent",
    "load_teacher": "sb3_distill.agents.load",
}


def __getattr__(name: str) -> Any:
    # The modules of the public names import torch. Importing them only on first use (PEP 562) lets the console script
    # start without torch.
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
