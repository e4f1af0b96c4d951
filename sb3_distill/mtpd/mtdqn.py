"""Multi-task DQN: the baseline of multi-task distillation, trained on all tasks (Rusu et al. 2015, section 4.4)."""

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.dqn.dqn import DQN

from sb3_distill.base.refusals import RefusalsMixin
from sb3_distill.base.resume.memory import ResumableOffPolicyMixin
from sb3_distill.buffers.tasks import MultiTaskReplayBuffer
from sb3_distill.common.utils import check_device
from sb3_distill.envs.multitask import Task
from sb3_distill.mtpd.tasks import MultiTaskAlgorithmMixin
from sb3_distill.networks.multi_task import MULTI_TASK_DQN_POLICIES, MultiTaskDQNMlpPolicy

SelfMultiTaskDQN = TypeVar("SelfMultiTaskDQN", bound="MultiTaskDQN")


class MultiTaskDQN(MultiTaskAlgorithmMixin, RefusalsMixin, ResumableOffPolicyMixin, DQN):
    """
    One DQN for several tasks, trained jointly: with a replay buffer and a controller for each task, and updates that
    alternate between the tasks.

    Paper: https://arxiv.org/abs/1511.06295 (Rusu et al. 2015), section 4.4, "Multi-DQN". The rewards of all tasks
    should have the same scale; for ``MultiTaskAtari-v0``, set ``clip_reward=True``.

    :param policy: The policy (MultiTaskMlpPolicy, MultiTaskCnnPolicy, MultiTaskLargeCnnPolicy,
        MultiTaskGridCnnPolicy), with the same networks as the students of ``MultiTaskDistillation``
    :param env: A multi-task environment: ``MultiTaskAtari-v0``, ``MultiTask-v0``, or one with the same ``tasks``
    :param buffer_size: size of each task's replay buffer, in transitions
    :param task_sampling: "random": each minibatch comes from one task chosen at random; "equal": each minibatch has an
        equal share of every task
    :raises ValueError: the environment has no tasks, has other tasks than the agent, or has a VecNormalize wrapper; or
        ``n_steps`` is not 1

    All other parameters are those of SB3's ``DQN``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**MULTI_TASK_DQN_POLICIES}
    run_attributes: ClassVar[tuple[str, ...]] = (
        *ResumableOffPolicyMixin.run_attributes,
        "exploration_rate",
        "_n_calls",
    )
    policy: MultiTaskDQNMlpPolicy

    def __init__(
        self,
        policy: str | type[MultiTaskDQNMlpPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 100_000,
        task_sampling: str = "random",
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        **dqn_kwargs: Any,
    ) -> None:
        check_device(device)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            device=device,
            replay_buffer_class=MultiTaskReplayBuffer,
            _init_setup_model=False,
            **dqn_kwargs,
        )
        self.task_sampling = task_sampling
        self.tasks: list[Task] = []
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.n_steps != 1:
            raise ValueError(f"n_steps must be 1, not {self.n_steps}: a multi-task DQN stores single steps only.")
        self._read_tasks()
        for task in self.tasks:
            if isinstance(task.observation_space, spaces.Dict):
                raise ValueError(
                    f"The task {task.name} has Dict observations with the keys {', '.join(task.observation_space)}, "
                    "and a multi-task DQN sees no Dict: wrap the tasks so that they show one of these parts."
                )
        self.replay_buffer_kwargs = {"task_sampling": self.task_sampling}
        super()._setup_model()

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        actions, _ = super()._sample_action(learning_starts, action_noise, n_envs)
        assert isinstance(self._last_obs, dict)
        # Before learning_starts, SB3 draws from the common space.
        actions = self._own_actions(actions, self._last_obs)
        return actions, actions

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As DQN's; exploring actions are drawn uniformly from those of each observation's task."""
        actions, state = super().predict(observation, state, episode_start, deterministic)
        assert isinstance(observation, dict)
        return self._own_actions(actions, observation), state

    def _own_actions(self, actions: np.ndarray, obs: dict[str, np.ndarray]) -> np.ndarray:
        """
        Replace actions that a task does not have by uniform draws from its own. A uniform draw from the common space
        becomes one from the task's; greedy actions are the task's already.
        """
        n_actions = np.reshape(np.array(self.policy.task_actions)[np.asarray(obs["task"])], np.shape(actions))
        missing = actions >= n_actions
        if not np.any(missing):
            return actions
        return np.where(missing, np.random.randint(n_actions), actions)

    def learn(
        self: SelfMultiTaskDQN,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "MTDQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMultiTaskDQN:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
