"""Multi-task Policy Distillation (Rusu et al. 2015, section 3.3): one student for several tasks."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_distill.base.acting import EpsilonGreedyMixin
from sb3_distill.base.distillation import DistillationAlgorithm
from sb3_distill.base.students import Student, student_model
from sb3_distill.buffers.tasks import MultiTaskDistillationBuffer, MultiTaskSamples
from sb3_distill.common.answers import Answers
from sb3_distill.common.losses import DistillationLoss, compare_actions
from sb3_distill.common.schedules import RolloutPolicy
from sb3_distill.common.temperature import AUTO, settle_temperature
from sb3_distill.common.utils import check_count, setting, unchanged_randomness, unknown_choice, without_task
from sb3_distill.envs.multitask import Task
from sb3_distill.envs.views import Keys, part_of, part_of_space
from sb3_distill.mtpd.callbacks import TaskEvalCallback, TaskEvaluation, TaskReferences
from sb3_distill.mtpd.tasks import MultiTaskAlgorithmMixin, seen_tasks
from sb3_distill.mtpd.teachers import MultiTaskTeacher, Teachers, check_task_teacher, find_task_teachers, load_teachers
from sb3_distill.networks.multi_task import MULTI_TASK_POLICIES, MultiTaskMlpPolicy, MultiTaskMultiInputPolicy
from sb3_distill.networks.policies import StudentPolicy

SelfMultiTaskDistillation = TypeVar("SelfMultiTaskDistillation", bound="MultiTaskDistillation")


class MultiTaskDistillation(MultiTaskAlgorithmMixin, EpsilonGreedyMixin, DistillationAlgorithm):
    """
    Multi-task Policy Distillation: a student with one trunk and a controller per task learns from a teacher per task.

    Paper: https://arxiv.org/abs/1511.06295 (Rusu et al. 2015), sections 3.3 and 4.4. The environment plays the tasks in
    turn, each task has a memory of its own, and each minibatch comes from one task chosen at random.

    :param policy: The student's policy (MultiTaskMlpPolicy, MultiTaskCnnPolicy, MultiTaskLargeCnnPolicy,
        MultiTaskGridCnnPolicy; MultiTaskMultiInputPolicy if the student sees several keys)
    :param env: A multi-task environment: ``MultiTaskAtari-v0``, ``MultiTask-v0``, or one with the same ``tasks``
    :param teachers: from names of tasks to trained agents (see ``load_teacher``); None takes the Zoo's own agent for
        every task
    :param buffer_size: size of each task's memory, in observations
    :param loss: "kl", "reverse_kl", "nll" or "mse" (see ``sb3_distill.common.losses``)
    :param temperature: temperature of the teacher's softmax: one number, or one for every task. ``"auto"`` chooses each
        from the first observations of its task (see ``choose_temperature``); a task can have it for itself. The
        numbers are then in the attribute ``temperature``, by task.
    :param student_temperature: temperature of the student's softmax
    :param student_eps: share of uniformly random actions while the student acts, in training, in evaluations and in
        ``predict(deterministic=False)``
    :param student_exploration: see ``PolicyDistillation``
    :param task_sampling: "random" takes each minibatch from one task, as the paper does; "equal" takes an equal share
        of every task in each
    :param n_eval_episodes: episodes of each task in one evaluation of the student, and of the teachers and a random
        player before training (0: no evaluations)
    :param teacher_keys: the keys of the tasks' Dict observations that the teachers see: of one key its part, of several
        a Dict of these parts; None: all of them
    :param student_keys: the keys that the student sees, in the same form
    :param bf16: see ``PolicyDistillation``
    :param compile_update: compile the loss and its gradient with ``torch.compile``. Not by default, since the tasks in
        a minibatch change what is computed.
    :param teacher_kwargs: by name of the task, what its teacher's ONNX file does not say of itself, such as
        ``{"CartPole-v1": {"answers": "logits"}}``
    :param eval_freq: evaluate the student on every task every ``eval_freq`` steps of the environment; -1: never
    :raises ValueError: an argument, an environment without tasks, or a teacher that does not fit its task

    All other parameters are those of ``DistillationAlgorithm``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**MULTI_TASK_POLICIES}
    buffer_class: ClassVar[type[ReplayBuffer]] = MultiTaskDistillationBuffer
    run_attributes: ClassVar[tuple[str, ...]] = (*DistillationAlgorithm.run_attributes, "evaluations", "temperature")
    teacher_argument: ClassVar[str] = "teachers"
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
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        loss: str = "kl",
        temperature: float | str | Mapping[str, float | str] = 0.01,
        student_temperature: float = 1.0,
        rollout_policy: RolloutPolicy = "teacher",
        teacher_eps: float = 0.05,
        student_eps: float = 0.05,
        student_exploration: str = "epsilon_greedy",
        task_sampling: str = "random",
        n_eval_episodes: int = 10,
        eval_freq: int = -1,
        allow_env_mismatch: bool = False,
        teacher_keys: str | Sequence[str] | None = None,
        student_keys: str | Sequence[str] | None = None,
        max_grad_norm: float | None = None,
        bf16: bool | None = None,
        compile_update: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        teacher_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            train_freq,
            gradient_steps,
            rollout_policy,
            teacher_eps,
            allow_env_mismatch,
            teacher_keys,
            student_keys,
            max_grad_norm,
            compile_update,
            stats_window_size,
            tensorboard_log,
            policy_kwargs,
            verbose,
            seed,
            device,
        )
        self.teachers: Teachers | None = teachers
        self.teacher_kwargs = teacher_kwargs
        self.loss = loss
        self.temperature = temperature
        self.student_temperature = student_temperature
        self.student_eps = student_eps
        self.student_exploration = student_exploration
        self.task_sampling = task_sampling
        self.n_eval_episodes = n_eval_episodes
        self.eval_freq = eval_freq
        self.bf16 = bf16
        self.tasks: list[Task] = []
        # One entry per evaluation, task and player, see TaskEvalCallback
        self.evaluations: list[TaskEvaluation] = []
        # Scores of teachers and random player, see TaskEvalCallback
        self._task_references: TaskReferences = {}
        if _init_setup_model:
            self._setup_model()
            self._setup_teacher()

    def _setup_model(self) -> None:
        self._check_acting()
        check_count("n_eval_episodes", self.n_eval_episodes, "no evaluations")
        self._read_tasks()
        super()._setup_model()

    @classmethod
    def _seen_keys(cls, keys: Any, space: Any, argument: str) -> Keys:
        if keys is None:
            return None
        own = {key: part for key, part in space.items() if key != "task"} if isinstance(space, spaces.Dict) else None
        part_of_space(space if own is None else spaces.Dict(own), keys, argument)
        return cls._with_task(keys)

    @staticmethod
    def _with_task(keys: str | list[str]) -> dict[str, str]:
        # Whatever a single key is, the network finds it under "obs".
        own = {"obs": keys} if isinstance(keys, str) else {key: key for key in keys}
        return {**own, "task": "task"}

    def _check_spaces(self) -> None:
        super()._check_spaces()
        shown = without_task(self.observation_space)
        if not isinstance(shown, spaces.Dict) and isinstance(self.tasks[0].observation_space, spaces.Dict):
            raise ValueError("The tasks have Dict observations with the one key obs: name it with student_keys='obs'.")
        is_for_dict = self.policy_class is MultiTaskMultiInputPolicy
        if is_for_dict and not isinstance(shown, spaces.Dict):
            raise ValueError(
                f"'MultiTaskMultiInputPolicy' is for several keys, and the student's observations are {shown}: use "
                "'MultiTaskMlpPolicy' for vectors, 'MultiTaskCnnPolicy' for images."
            )
        if isinstance(shown, spaces.Dict) and self.policy_class in self.policy_aliases.values() and not is_for_dict:
            raise ValueError(
                f"{self.policy_class.__name__} sees one key, and the student sees {', '.join(shown)}: use "
                "'MultiTaskMultiInputPolicy', or name one of them with student_keys."
            )

    def _own_part(self, observation: Any) -> Any:
        return observation if self.student_keys is None else part_of(observation, self._with_task(self.student_keys))

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, in the order of the controllers. Teachers and scores have the same names."""
        return [task.name for task in self.tasks]

    @property
    def _sha256_by_task(self) -> dict[str, str]:
        """Hashes of the teachers; empty if there were none yet. Files of earlier versions have one hash of them all."""
        return self.teacher_sha256 if isinstance(self.teacher_sha256, dict) else {}

    def _temperatures(self) -> list[Any]:
        """The temperature of each task."""
        if not isinstance(self.temperature, Mapping):
            return [self.temperature] * len(self.task_names)
        for name in self.temperature:
            if name not in self.task_names:
                raise ValueError("temperature: " + unknown_choice("task", name, self.task_names))
        missing = [name for name in self.task_names if name not in self.temperature]
        if missing:
            raise ValueError(f"temperature has no value for {', '.join(missing)}: give one for every task.")
        return [self.temperature[name] for name in self.task_names]

    def _make_student(self) -> Student:
        return Student(self.policy, self._make_losses(), self.bf16)

    def _make_losses(self) -> list[DistillationLoss]:
        # Until there are answers from which to choose them, temperatures are not used.
        numbers = [1.0 if temperature == AUTO else temperature for temperature in self._temperatures()]
        return [DistillationLoss(self.loss, number, self.student_temperature) for number in numbers]

    def _prepare_updates(self) -> None:
        super()._prepare_updates()
        describes = self._n_updates == 0 and self.verbose > 0 and self.student.loss[0].has_temperature
        if describes or AUTO in self._temperatures():
            # The minibatches do not depend on it.
            with unchanged_randomness():
                answers = self.replay_buffer.sample_equally(1_000 * len(self.tasks)).answers
            settled = {
                name: settle_temperature(temperature, answers[task], describes, f"{name}: ")
                for task, (name, temperature) in enumerate(zip(self.task_names, self._temperatures(), strict=True))
            }
            if AUTO in self._temperatures():
                self.temperature = settled
        # Also those of a run that goes on
        self.student.loss = self._make_losses()

    def _buffer_kwargs(self) -> dict[str, Any]:
        return {"task_sampling": self.task_sampling}

    def _setup_teacher(self) -> MultiTaskTeacher:
        in_memory = [name for name, source in (self.taught_by or {}).items() if source is None]
        if self.teachers is None and in_memory:
            raise ValueError(
                f"The teachers of {', '.join(in_memory)} were models in memory, not files: pass "
                f"{setting('teachers', f'{{{in_memory[0]!r}: ...}}')} to go on."
            )
        return super()._setup_teacher()

    def _find_teacher(self, env_id: str | None) -> dict[str, Any]:
        return find_task_teachers(self.tasks)

    def _load_teacher(self, source: Teachers) -> MultiTaskTeacher:
        assert self.env is not None
        tasks = seen_tasks(self.env, self.teacher_keys, "teacher_keys")
        return MultiTaskTeacher(load_teachers(source, tasks, self.device, self.teacher_kwargs), tasks)

    def _check_teacher(self, teacher: MultiTaskTeacher, env_id: str | None) -> None:
        for task in teacher.tasks:
            check_task_teacher(teacher[task.name], task, self.allow_env_mismatch)

    def _warn_of_another(self, teacher: MultiTaskTeacher) -> None:
        for name, own in teacher.items():
            known = self._sha256_by_task.get(name)
            if not own.is_agent(known):
                warnings.warn(
                    f"This student learned {name} from a teacher with sha256 {known}; it goes on with another one: "
                    f"{own.source}, sha256 {own.sha256}."
                )

    def _score_callbacks(self, siblings: list[BaseCallback]) -> list[BaseCallback]:
        if self.n_eval_episodes <= 0:
            return []
        return [
            TaskEvalCallback(
                self.eval_freq,
                self.n_eval_episodes,
                self.student_eps,
                self._teacher,
                self.evaluations,
                self._task_references,
                self.verbose,
            )
        ]

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

    def student_loss(self, student: Student, samples: MultiTaskSamples) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        q_values = student.answer(samples.observations).q_values
        assert q_values is not None
        losses, agreement = [], th.zeros((), device=q_values.device)
        counts = [len(teacher.preferences) for teacher in samples.answers.values()]
        for (task, teacher), rows in zip(samples.answers.items(), q_values.split(counts), strict=True):
            # Only the actions that the task has: the others are minus infinity
            answers = Answers(q_values=rows[:, : student.policy.task_actions[task]])
            losses.append(student.loss[task](teacher, answers))
            agreement = agreement + compare_actions(teacher, answers)["agreement"] * (len(rows) / len(q_values))
        all_losses = th.cat(losses)
        return all_losses, {"distill_loss": all_losses.mean().detach(), "agreement": agreement}

    def task(self, name: str) -> BaseAlgorithm:
        """
        The student at one task, as a model of its own.

        :param name: name of the task
        :return: a ``PolicyDistillation`` with a copy of the trunk and of the task's controller; it takes the task's own
            observations
        :raises ValueError: there is no such task
        """
        if name not in self.task_names:
            raise ValueError(unknown_choice("task", name, self.task_names))
        index = self.task_names.index(name)
        task = self.tasks[index]
        model: Any = student_model(
            StudentPolicy,
            self.policy.single_task_kwargs(),
            task.observation_space,
            spaces.Discrete(task.n_actions),
            self.device,
            task.env_id,
        )
        self.policy.copy_task_to(index, model.policy)
        model.student_keys = self.student_keys
        model.taught_by = (self.taught_by or {}).get(name)
        model.teacher_sha256 = self._sha256_by_task.get(name)
        model.teacher_kwargs = (self.teacher_kwargs or {}).get(name)
        return model

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_task_references"]
