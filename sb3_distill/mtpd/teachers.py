"""Combines the teachers of several tasks: for each observation, the teacher of its task answers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.checks import check_env_ids
from sb3_distill.agents.kinds.own import TeacherLike
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.sources import find_zoo_teacher
from sb3_distill.common.answers import TaskAnswers
from sb3_distill.common.utils import setting, unknown_choice
from sb3_distill.envs.inspection import describe_space_mismatch
from sb3_distill.envs.multitask import Task
from sb3_distill.state.memory import rows_of, with_rows

Teachers = Mapping[str, str | Path | BaseAlgorithm | Teacher | TeacherLike]


def find_task_teachers(tasks: Sequence[Task]) -> dict[str, Any]:
    """
    :param tasks: the tasks
    :return: by name of the task, the Zoo's agent for it
    :raises AgentNotFoundError: the Zoo has no agent for a task
    """
    return {
        task.name: find_zoo_teacher(task.env_id, argument=setting("teachers", f"{{{task.name!r}: 'PATH', ...}}"))
        for task in tasks
    }


def load_teachers(
    teachers: Teachers,
    tasks: Sequence[Task],
    device: th.device,
    teacher_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Teacher]:
    """
    Load the teacher of every task.

    :param teachers: by name of the task, the source of its teacher (see ``load_teacher``)
    :param tasks: the tasks
    :param device: device of the teachers' networks
    :param teacher_kwargs: by name of the task, what its teacher's ONNX file does not say of itself
    :return: by name of the task, its teacher, in the order of the tasks
    :raises ValueError: a task has no teacher, or a teacher is named for an unknown task
    """
    names = [task.name for task in tasks]
    options = {} if teacher_kwargs is None else teacher_kwargs
    for argument, named, what in (("teachers", teachers, "agents"), ("teacher_kwargs", options, "their options")):
        if not isinstance(named, Mapping):
            raise ValueError(
                f"{argument} must be a dictionary from the names of tasks ({', '.join(names)}) to {what}, not "
                f"{named!r}."
            )
        for name in named:
            if name not in names:
                raise ValueError(f"{argument}: " + unknown_choice("task", name, names))
    missing = [name for name in names if name not in teachers]
    if missing:
        raise ValueError(f"teachers has no teacher for {', '.join(missing)}: name one for every task.")
    loaded = {}
    for task in tasks:
        source = teachers[task.name]
        env: Any = SimpleNamespace(
            observation_space=task.observation_space, action_space=spaces.Discrete(task.n_actions)
        )
        kwargs = None if isinstance(source, Teacher) else options.get(task.name)
        loaded[task.name] = load_teacher(source, device=device, env=env, teacher_kwargs=kwargs)
    return loaded


def check_task_teacher(teacher: Teacher, task: Task, allow_env_mismatch: bool) -> None:
    """
    Check that a teacher can teach a task.

    :param teacher: the loaded teacher
    :param task: its task
    :param allow_env_mismatch: accept a teacher that was trained on an environment with another id
    :raises ValueError: the spaces or the environment ids differ, or the teacher needs action masks
    """
    who = f"The teacher of {task.name}, {teacher.source},"
    if not isinstance(teacher.action_space, spaces.Discrete) or teacher.action_space.n != task.n_actions:
        raise ValueError(
            f"{who} has the action space {teacher.action_space}, but the task has Discrete({task.n_actions}): name a "
            "teacher with the task's actions."
        )
    if teacher.needs_masks:
        raise ValueError(
            f"{who} was trained with action masks (MaskablePPO), which MTPD does not ask the tasks for: name a teacher "
            "without masks, or take PD or QPD for this task alone."
        )
    problem = describe_space_mismatch(teacher.observation_space, task.observation_space)
    if problem:
        raise ValueError(f"{who} and the task differ in their observations: {problem}")
    if not allow_env_mismatch:
        check_env_ids(who, teacher.env_id, "task", task.env_id)


class MultiTaskTeacher(Mapping[str, Teacher]):
    """
    The teachers of several tasks. As a mapping, it holds the teachers by the names of their tasks. Its ``answer`` and
    ``predict`` evaluate each observation with the teacher of its task.

    :param teachers: the teacher of each task, in the order of the tasks
    :param tasks: the tasks
    """

    def __init__(self, teachers: dict[str, Teacher], tasks: Sequence[Task]) -> None:
        self.teachers = teachers
        self.tasks = tasks

    def __getitem__(self, name: str) -> Teacher:
        return self.teachers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.teachers)

    def __len__(self) -> int:
        return len(self.teachers)

    @property
    def source(self) -> str:
        """The sources of the teachers."""
        return ", ".join(teacher.source for teacher in self.teachers.values())

    @property
    def saved_source(self) -> dict[str, str | None]:
        """By task, the source from which ``load_teacher`` can load its teacher again; None for a model in memory."""
        return {name: teacher.saved_source for name, teacher in self.teachers.items()}

    @property
    def sha256(self) -> dict[str, str]:
        """By task, the hash of its teacher."""
        return {name: teacher.sha256 for name, teacher in self.teachers.items()}

    @property
    def device(self) -> th.device:
        """The device of the networks."""
        return next(iter(self.teachers.values())).device

    def answer(
        self,
        obs: dict[str, th.Tensor],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        with_values: bool = False,
    ) -> tuple[TaskAnswers, Any]:
        """
        :param obs: batch of raw observations, of any tasks
        :param state: the state that the last call returned for the same environments
        :param episode_start: where an episode begins
        :param with_values: see ``Teacher.answer``
        :return: the answers, without gradient, and the next state: by task, that of its teacher for all environments
            (zeros where other tasks are played); None if no teacher has a memory
        """
        tasks = obs["task"].reshape(-1).cpu().numpy()
        n_envs = len(tasks)
        starts = np.full(n_envs, state is None) if episode_start is None else np.asarray(episode_start, dtype=bool)
        by_task, states = {}, dict(state or {})
        for task in np.unique(tasks).tolist():
            name, rows = self.tasks[task].name, np.flatnonzero(tasks == task)
            index = th.as_tensor(rows)
            own = self.own_observations({key: part[index] for key, part in obs.items()}, self.tasks[task])
            before = rows_of(states.get(name), rows)
            by_task[task], after = self.teachers[name].answer(own, before, starts[rows], with_values)
            if after is not None:
                states[name] = with_rows(states.get(name), rows, after, n_envs)
        return TaskAnswers(tasks, by_task), states or None

    @staticmethod
    def own_observations(obs: Any, task: Task) -> Any:
        """
        :param obs: a batch of one task's observations
        :param task: the task
        :return: the observations without the padding
        """
        own = {key: obs[key][..., : space.shape[-1]] for key, space in task.parts.items()}
        return own if isinstance(task.observation_space, spaces.Dict) else own["obs"]

    def predict(
        self,
        observation: dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """The greedy action of each task's teacher, as SB3's ``predict``."""
        tensors = {key: th.as_tensor(value, device=self.device) for key, value in observation.items()}
        answers, state = self.answer(tensors, state, episode_start)
        return answers.preferences.argmax(dim=1).cpu().numpy(), state
