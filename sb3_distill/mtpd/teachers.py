"""The teachers of several tasks as one, which answers each observation with the teacher of its task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.sources import find_zoo_teacher
from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.inspection import describe_space_mismatch
from sb3_distill.envs.multitask import Task

Teachers = Mapping[str, str | Path | BaseAlgorithm | Teacher]


def load_teachers(teachers: Teachers | None, tasks: Sequence[Task], device: th.device) -> dict[str, Teacher]:
    """
    Load the teacher of every task.

    :param teachers: from names of tasks to sources (see ``load_teacher``); None takes the Zoo's own agents
    :param tasks: the tasks
    :param device: where their networks go
    :return: from names of tasks to teachers, in the order of the tasks
    :raises ValueError: a task without a teacher, a teacher without a task
    """
    names = [task.name for task in tasks]
    if teachers is not None and not isinstance(teachers, Mapping):
        raise ValueError(f"teachers maps the names of tasks ({', '.join(names)}) to agents; not {teachers!r}.")
    for name in teachers or ():
        if name not in names:
            raise ValueError("teachers: " + unknown_choice("task", name, names))
    if teachers is not None:
        missing = [name for name in names if name not in teachers]
        if missing:
            raise ValueError(f"teachers has none for {', '.join(missing)}: name one for every task.")
    sources: Mapping[str, Any] = teachers or {
        task.name: find_zoo_teacher(task.env_id, argument=f"teachers={{{task.name!r}: PATH, ...}}") for task in tasks
    }
    return {name: load_teacher(sources[name], device=device) for name in names}


def check_task_teacher(teacher: Teacher, task: Task, allow_env_mismatch: bool) -> None:
    """
    Check that a teacher can teach a task.

    :param teacher: the loaded teacher
    :param task: its task
    :param allow_env_mismatch: accept a teacher of an environment with another id
    :raises ValueError: what differs, and what to do
    """
    who = f"The teacher of {task.name}, {teacher.source},"
    if not isinstance(teacher.action_space, spaces.Discrete) or teacher.action_space.n != task.n_actions:
        raise ValueError(f"{who} has the actions {teacher.action_space}; the task has Discrete({task.n_actions}).")
    problem = describe_space_mismatch(teacher.observation_space, task.observation_space)
    if problem:
        raise ValueError(f"{who} and the task differ in their observations: {problem}")
    if teacher.env_id not in (None, task.env_id) and not allow_env_mismatch:
        raise ValueError(
            f"{who} was trained on {teacher.env_id}, but the task is {task.env_id}. Pass allow_env_mismatch=True if "
            "that is meant."
        )


class MultiTaskTeacher:
    """
    :param teachers: the teacher of each task, in the order of the tasks
    :param tasks: the tasks
    :param n_actions: actions of the multi-task environment
    """

    def __init__(self, teachers: dict[str, Teacher], tasks: Sequence[Task], n_actions: int) -> None:
        self.teachers = teachers
        self.tasks = tasks
        self.n_actions = n_actions

    def logits(self, obs: dict[str, th.Tensor]) -> th.Tensor:
        """
        :param obs: batch of raw observations, of any tasks
        :return: ``(batch, n_actions)``, minus infinity for actions that a task does not have
        """
        tasks = obs["task"].reshape(-1)
        logits = obs["obs"].new_full((len(tasks), self.n_actions), -th.inf, dtype=th.float32)
        for task in tasks.unique().tolist():
            rows = tasks == task
            own = self.own_observations(obs["obs"][rows], self.tasks[task])
            logits[rows, : self.tasks[task].n_actions] = self.teachers[self.tasks[task].name].logits(own)
        return logits

    @staticmethod
    def own_observations(obs: Any, task: Task) -> Any:
        """
        :param obs: a batch of one task's observations
        :param task: the task
        :return: the same without the padding
        """
        return obs[..., : task.observation_space.shape[-1]]

    def predict(
        self,
        observation: dict[str, np.ndarray],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """The greedy action of each task's teacher, as SB3's ``predict``."""
        device = next(iter(self.teachers.values())).device
        tensors = {key: th.as_tensor(value, device=device) for key, value in observation.items()}
        return self.logits(tensors).argmax(dim=1).cpu().numpy(), None
