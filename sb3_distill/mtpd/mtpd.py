"""Multi-task Policy Distillation (Rusu et al. 2015, section 3.3): one student for several tasks."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.base.callbacks import list_callbacks
from sb3_distill.buffers.distillation import DistillationSamples
from sb3_distill.buffers.tasks import MultiTaskDistillationBuffer
from sb3_distill.common.losses import DistillationLoss
from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.multitask import Task, tasks_of
from sb3_distill.mtpd.callbacks import TaskEvalCallback
from sb3_distill.mtpd.tasks import MultiTaskMixin
from sb3_distill.mtpd.teachers import MultiTaskTeacher, Teachers, check_task_teacher, load_teachers
from sb3_distill.networks.multi_task import MULTI_TASK_POLICIES, MultiTaskMlpPolicy
from sb3_distill.networks.policies import StudentPolicy
from sb3_distill.pd import PolicyDistillation
from sb3_distill.pd.pd import RolloutPolicy

# Arguments of PolicyDistillation that have others in their place
REPLACED = {
    "teacher": "every task has its own, in teachers={task: teacher}",
    "n_teacher_episodes": "n_eval_episodes says how many episodes of each task the teachers play",
}

SelfMultiTaskDistillation = TypeVar("SelfMultiTaskDistillation", bound="MultiTaskDistillation")


class MultiTaskDistillation(MultiTaskMixin, PolicyDistillation):
    """
    Multi-task Policy Distillation: a student with one trunk and a controller per task learns from a teacher per task.

    Paper: https://arxiv.org/abs/1511.06295 (Rusu et al. 2015), sections 3.3 and 4.4. The environment plays the tasks in
    turn, each task has a memory of its own, and each minibatch comes from one task chosen at random.

    :param policy: The student's policy (MultiTaskMlpPolicy, MultiTaskCnnPolicy, MultiTaskLargeCnnPolicy,
        MultiTaskGridCnnPolicy)
    :param env: A multi-task environment: ``MultiTaskAtari-v0``, ``MultiTask-v0``, or one with the same ``tasks``
    :param teachers: from names of tasks to trained agents (see ``load_teacher``); None takes the Zoo's own agent for
        every task
    :param buffer_size: size of each task's memory, in observations
    :param temperature: of the teacher's softmax: one number, or one for every task
    :param task_sampling: "random" takes each minibatch from one task, as the paper does; "equal" takes an equal share
        of every task in each
    :param n_eval_episodes: episodes of each task in one evaluation of the student, and of the teachers and a random
        player before training (0: no evaluations)
    :param eval_freq: evaluate the student on every task every ``eval_freq`` steps of the environment; -1: never
    :raises ValueError: an argument, an environment without tasks, or a teacher that does not fit its task

    All other parameters are those of ``PolicyDistillation``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**MULTI_TASK_POLICIES}
    policy: MultiTaskMlpPolicy

    def __init__(
        self,
        policy: str | type[MultiTaskMlpPolicy],
        env: GymEnv | str,
        teachers: Teachers | None = None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 54_000,
        learning_starts: int = 1_000,
        batch_size: int = 32,
        loss: str = "kl",
        temperature: float | Mapping[str, float] = 0.01,
        student_temperature: float = 1.0,
        rollout_policy: RolloutPolicy = "teacher",
        task_sampling: str = "random",
        n_eval_episodes: int = 10,
        eval_freq: int = -1,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **pd_kwargs: Any,
    ) -> None:
        for name, reason in REPLACED.items():
            if name in pd_kwargs:
                raise ValueError(f"MultiTaskDistillation takes no {name}: {reason}.")
        super().__init__(
            policy,
            env,
            None,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            loss=loss,
            temperature=temperature,  # type: ignore[arg-type]
            student_temperature=student_temperature,
            rollout_policy=rollout_policy,
            n_teacher_episodes=0,
            policy_kwargs=policy_kwargs,
            _init_setup_model=False,
            **pd_kwargs,
        )
        self.teachers: Teachers | None = teachers
        self.teacher_sources: dict[str, str | None] = {}
        self.tasks: list[Task] = []
        self.task_sampling = task_sampling
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        # One entry per evaluation, task and player, see TaskEvalCallback
        self.evaluations: list[dict[str, Any]] = []
        self.replay_buffer_class = MultiTaskDistillationBuffer
        if _init_setup_model:
            self._setup_model()
            self._setup_teacher()

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # Not the native games of PolicyDistillation: one emulator of several games has no native counterpart.
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        self._read_tasks()
        if self.recording is not None:
            raise ValueError(
                "recording= keeps the play of one teacher; several tasks have no recordings. Leave it out."
            )
        self.distillation_losses = [
            DistillationLoss(self.loss, temperature, self.student_temperature) for temperature in self._temperatures()
        ]
        super()._setup_model()

    @property
    def task_names(self) -> list[str]:
        """What teachers and scores are named by, in the order of the controllers."""
        return [task.name for task in self.tasks]

    def _temperatures(self) -> list[float]:
        """One for every task."""
        if not isinstance(self.temperature, Mapping):
            return [self.temperature] * len(self.task_names)
        for name in self.temperature:
            if name not in self.task_names:
                raise ValueError("temperature: " + unknown_choice("task", name, self.task_names))
        missing = [name for name in self.task_names if name not in self.temperature]
        if missing:
            raise ValueError(f"temperature has none for {', '.join(missing)}: name one for every task.")
        return [self.temperature[name] for name in self.task_names]

    def _make_loss(self) -> DistillationLoss:
        return self.distillation_losses[0]

    def _buffer_kwargs(self) -> dict[str, Any]:
        return {"task_sampling": self.task_sampling}

    def _setup_teacher(self) -> Any:
        assert self.env is not None
        tasks = tasks_of(self.env)
        known = {name: source for name, source in self.teacher_sources.items() if source is not None}
        in_memory = [name for name, source in self.teacher_sources.items() if source is None]
        if self.teachers is None and in_memory:
            raise ValueError(
                f"The teachers of {', '.join(in_memory)} were models in memory, not files: pass teachers= to go on."
            )
        loaded = load_teachers(self.teachers or known or None, tasks, self.device)
        for task in tasks:
            check_task_teacher(loaded[task.name], task, self.allow_env_mismatch)
        self.teachers = loaded
        self.teacher_sources = {
            name: teacher.source if teacher.n_bytes is not None else None for name, teacher in loaded.items()
        }
        return MultiTaskTeacher(loaded, tasks, int(self.action_space.n))  # type: ignore[attr-defined]

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        callbacks = list_callbacks(callback)
        if self.n_eval_episodes > 0:
            callbacks.append(
                TaskEvalCallback(self.eval_freq, self.n_eval_episodes, self.student_eps, self._teacher, self.verbose)  # type: ignore[arg-type]
            )
        return self._with_progress_bar(callbacks, progress_bar)

    def dump_logs(self) -> None:
        OffPolicyAlgorithm.dump_logs(self)

    def learn(
        self: SelfMultiTaskDistillation,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "MTPD",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMultiTaskDistillation:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def _n_actions_of(self, obs: Any) -> Any:
        tasks = np.asarray(obs["task"])
        # Of one observation, or of a batch
        return np.array(self.policy.task_actions)[tasks.reshape(tasks.shape[:1])]

    def _eager_loss(self, samples: DistillationSamples) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        assert isinstance(samples.observations, dict)
        student_logits = self.policy.logits(samples.observations)
        same_action = student_logits.argmax(dim=1) == samples.teacher_logits.argmax(dim=1)
        tasks = samples.observations["task"].reshape(-1)
        loss = student_logits.new_zeros(())
        for task in tasks.unique().tolist():
            rows = tasks == task
            # Only the actions that the task has: the others are minus infinity on both sides
            n_actions = self.policy.task_actions[task]
            task_loss = self.distillation_losses[task](
                samples.teacher_logits[rows, :n_actions], student_logits[rows, :n_actions]
            )
            loss = loss + task_loss * rows.float().mean()
        return loss, {"distill_loss": loss.detach(), "agreement": same_action.float().mean()}

    def _fit_frame_scalers(self) -> None:
        # One scale for all tasks, from an equal share of each
        if self._n_updates == 0:
            self.policy.fit_frame_scalers(self.replay_buffer.sample_equally(1_000).observations)

    def task(self, name: str) -> PolicyDistillation:
        """
        The student at one task, as a model of its own.

        :param name: name of the task
        :return: a model with a copy of the trunk and of the task's controller; it takes the task's own observations
        :raises ValueError: there is no such task
        """
        if name not in self.task_names:
            raise ValueError(unknown_choice("task", name, self.task_names))
        index = self.task_names.index(name)
        task = self.tasks[index]
        model = PolicyDistillation.of_policy(
            StudentPolicy,
            self.policy.single_task_kwargs(),
            task.observation_space,
            spaces.Discrete(task.n_actions),
            self.device,
        )
        self.policy.copy_task_to(index, model.policy)
        teacher = None if not isinstance(self.teachers, Mapping) else self.teachers.get(name)
        model.teacher_source = self.teacher_sources.get(name)
        model.teacher_sha256 = teacher.sha256 if isinstance(teacher, Teacher) else None
        return model

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "teachers", "distillation_losses"]
