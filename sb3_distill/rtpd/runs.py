"""A run of real-time distillation, as its evaluations see it."""

from pathlib import Path
from typing import Protocol

from stable_baselines3.common.policies import BasePolicy

from sb3_distill.base.several.runs import StudentsRun
from sb3_distill.results.curves import Evaluation


class RealTimeRun(StudentsRun, Protocol):
    """The attributes and methods of a run that are needed to evaluate and write its students."""

    seed: int | None
    num_timesteps: int
    evaluations: list[Evaluation]
    _n_updates: int

    def player(self, name: str) -> BasePolicy: ...

    def save(self, path: Path) -> None: ...

    def keep_best_teacher(self) -> None: ...

    def describe_temperatures(self) -> str | None: ...
