"""Mixin of the multi-task algorithms: checks the tasks, and delays updates until every task has been played."""

from typing import Any

from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_distill.envs.multitask import Task, check_same_tasks, tasks_of
from sb3_distill.envs.views import Keys


def task_policy_kwargs(policy_kwargs: dict[str, Any] | None, tasks: list[Task]) -> dict[str, Any]:
    """
    :param policy_kwargs: the user's arguments of the policy
    :param tasks: the environment's tasks
    :return: the arguments, with the number of actions of every task added
    :raises ValueError: the policy has been made for other tasks
    """
    task_actions = [task.n_actions for task in tasks]
    known = (policy_kwargs or {}).get("task_actions", task_actions)
    if list(known) != task_actions:
        raise ValueError(
            f"The policy has been made for tasks with {known} actions, but the environment's tasks have "
            f"{task_actions}: use an environment with the same tasks."
        )
    return {**(policy_kwargs or {}), "task_actions": task_actions}


def seen_tasks(env: VecEnv, keys: Keys, argument: str) -> list[Task]:
    """
    :param env: a multi-task environment
    :param keys: the keys of a Dict observation that are seen; None: all of them
    :param argument: name of the argument with these keys, for the message
    :return: the tasks as they are seen
    :raises ValueError: there are no such keys
    """
    return [task.seen(keys, argument) for task in tasks_of(env)]


def check_not_normalized(env: VecEnv) -> None:
    """
    :param env: the training environment
    :raises ValueError: the environment has a ``VecNormalize`` wrapper
    """
    if unwrap_vec_normalize(env) is not None:
        raise ValueError(
            "VecNormalize mixes the statistics of tasks: leave it out (each teacher uses its own statistics)."
        )


class MultiTaskAlgorithmMixin:
    """Mixin of off-policy algorithms that learn several tasks, with a ``MultiTaskBuffer``."""

    tasks: list[Task]
    env: VecEnv | None
    policy_kwargs: dict[str, Any]
    replay_buffer: Any

    def _read_tasks(self) -> None:
        """Read the environment's tasks. If the agent has tasks already, they must be the same."""
        if self.env is None:
            return
        check_not_normalized(self.env)
        tasks = seen_tasks(self.env, getattr(self, "student_keys", None), "student_keys")
        check_same_tasks(self.tasks, tasks)
        self.policy_kwargs = task_policy_kwargs(self.policy_kwargs, tasks)
        self.tasks = tasks

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """As in SB3; the environment must have the agent's tasks."""
        wrapped: VecEnv = self._wrap_env(env, self.verbose)  # type: ignore[attr-defined]
        check_not_normalized(wrapped)
        check_same_tasks(self.tasks, tasks_of(wrapped))
        super().set_env(wrapped, force_reset)  # type: ignore[misc]

    def train(self, gradient_steps: int, batch_size: int = 32) -> None:
        """As in SB3, but does nothing until every task has been played."""
        if self.replay_buffer.has_all_tasks:
            super().train(gradient_steps, batch_size)  # type: ignore[misc]
