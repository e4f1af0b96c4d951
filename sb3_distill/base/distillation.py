"""Base class of the algorithms that fit a student to a replay buffer of a teacher's answers."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import update_learning_rate

from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.rebuild.stock import stock_model
from sb3_distill.base.callbacks import UpdateProgressBar, keep_statistics, list_callbacks
from sb3_distill.base.collecting import CollectingAlgorithm
from sb3_distill.base.inheritance import inherit_filters
from sb3_distill.base.observing import ObservingMixin
from sb3_distill.base.resume.memory import ResumableOffPolicyMixin
from sb3_distill.base.resume.needs import announce_recording
from sb3_distill.base.students import Student
from sb3_distill.base.teaching import TeacherMixin
from sb3_distill.buffers.distillation import DistillationBuffer
from sb3_distill.buffers.unfinished import writer_state
from sb3_distill.common.schedules import RolloutPolicy
from sb3_distill.common.utils import (
    check_device,
    check_probability,
    compile_or_same,
    has_fast_bfloat16,
    unchanged_randomness,
)
from sb3_distill.networks.computing import break_even, planned_updates
from sb3_distill.networks.extractors import set_train_dtype
from sb3_distill.networks.optimizers import align_states

SelfDistillationAlgorithm = TypeVar("SelfDistillationAlgorithm", bound="DistillationAlgorithm")


class DistillationAlgorithm(TeacherMixin, ObservingMixin, ResumableOffPolicyMixin, CollectingAlgorithm):
    """
    The teacher is evaluated on every observation, whether the teacher or the student acts. Its answers (Q-values, or
    the parameters of its action distribution) are stored in a replay buffer, and the student is fitted to them.

    A subclass defines where its teacher comes from (``_find_teacher``, ``_check_teacher``), what is asked of it
    (``asks_values``), how actions are chosen from the answers (``_choose_actions``), and the loss of its student on a
    minibatch (``student_loss``).

    :param policy: The student's policy
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: learning rate, or a schedule of it (a function of the remaining progress, from 1 to 0)
    :param buffer_size: size of the replay buffer, in observations
    :param learning_starts: how many observations to collect before the first update; image students also estimate
        their pixel statistics from these observations
    :param batch_size: Minibatch size for each update
    :param train_freq: Update the student every ``train_freq`` steps (of each environment)
    :param gradient_steps: How many updates to do after each rollout; ``-1``: as many as steps done during the rollout
    :param rollout_policy: who acts: "teacher", "student", "linear" (from the teacher to the student over the run), or
        a function from the remaining progress to the probability that the teacher acts
    :param teacher_eps: share of uniformly random actions while the teacher acts (Discrete actions only)
    :param allow_env_mismatch: accept a teacher that was trained on an environment with another id
    :param teacher_keys: the keys of a Dict observation that the teacher sees: of one key its part, of several a Dict of
        their parts; None: all of them
    :param student_keys: those that the student sees
    :param max_grad_norm: The maximum value for the gradient clipping (None: no clipping)
    :param compile_update: compile the loss and its gradient with ``torch.compile``, which takes half a minute at the
        start. None: do so if the first ``learn`` plans enough updates (see ``break_even``); the choice is then in this
        attribute. Where compiling fails, such as without a C++ compiler, a warning says so.
    :param stats_window_size: Window size for the rollout logging, specifying the number of episodes to average
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run
    :raises ValueError: an argument is invalid, or the teacher does not fit the environment
    """

    run_attributes: ClassVar[tuple[str, ...]] = (
        *ResumableOffPolicyMixin.run_attributes,
        "teacher_sha256",
        "_n_collected",
        "_rollout_rng",
        "_teacher_state",
        "bf16",
        "compile_update",
    )
    # Stay as passed to this model; all else is as the run had it, also on another processor
    user_choices: ClassVar[tuple[str, ...]] = ("bf16", "compile_update")
    buffer_class: ClassVar[type[ReplayBuffer]] = DistillationBuffer
    # Under which the student's updates are logged
    _heading = "train"
    # Whether an image student begins with filters of its teacher
    init_from_teacher: bool = False
    # See ``set_train_dtype``
    bf16: bool | None = False
    # Normalizes what the replay buffer holds, if VecNormalize is used
    _normalizer: Any = None
    replay_buffer: Any
    student: Student

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule,
        buffer_size: int,
        learning_starts: int,
        batch_size: int,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        rollout_policy: RolloutPolicy = "teacher",
        teacher_eps: float = 0.05,
        allow_env_mismatch: bool = False,
        teacher_keys: str | Sequence[str] | None = None,
        student_keys: str | Sequence[str] | None = None,
        max_grad_norm: float | None = None,
        compile_update: bool | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
    ) -> None:
        check_device(device)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau=1.0,  # no target network
            gamma=1.0,  # no returns
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=None,
            replay_buffer_class=self.buffer_class,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            teacher_keys=teacher_keys,
            student_keys=student_keys,
            sde_support=False,
            support_multi_env=True,
        )
        self.rollout_policy = rollout_policy
        self.teacher_eps = teacher_eps
        self.allow_env_mismatch = allow_env_mismatch
        self.max_grad_norm = max_grad_norm
        self.compile_update = compile_update
        self._progress_bar: UpdateProgressBar | None = None

    def _setup_model(self) -> None:
        check_probability("teacher_eps", self.teacher_eps)
        self.replay_buffer_kwargs = self._buffer_kwargs()
        super()._setup_model()
        self._setup_collecting()
        self._setup_student()

    def _setup_student(self) -> None:
        self.student = self._make_student()
        self._forward_loss = self._mean_loss

    @abstractmethod
    def _make_student(self) -> Student:
        """The policy with its loss and optimizer."""

    def _buffer_kwargs(self) -> dict[str, Any]:
        return {}

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._setup_teacher()
        self._normalizer = None if self._vec_normalize_env is None else self.env
        if self.recording is not None:
            start = 0 if reset_num_timesteps else self.num_timesteps
            self._open_recording(start, total_timesteps, (self._pending_state or {}).get("recording"))
        prepared = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if self._recorder is not None:
            announce_recording(self, self._recorder, self._n_kept)
        if self._recorded_play is not None:
            self._last_obs = self._recorded_play.observations(self._recorded_play.row)
        # Not before: a run that goes on has the choice of its first learn().
        n_timesteps = self._total_timesteps - max(self.num_timesteps, self.learning_starts)
        n_updates = planned_updates(n_timesteps, self.n_envs, self.train_freq, self.gradient_steps)  # type: ignore[arg-type]
        for model in (self, *self._further_models()):
            model._choose_computing(n_updates)
        return prepared

    def _choose_computing(self, n_updates: int) -> None:
        """Choose how the student is computed while it learns, where neither the user nor an earlier call did."""
        if self.bf16 is None:
            self.bf16 = has_fast_bfloat16(self.device)
        set_train_dtype(self.policy, self.device, self.bf16)
        least = break_even(self.policy, self.device)
        if self.compile_update is None:
            self.compile_update = least is not None and n_updates >= least
            if self.verbose > 0 and least is not None:
                print(
                    f"The student's update is {'' if self.compile_update else 'not '}compiled: about {n_updates:,} "
                    f"updates are planned, and compiling pays from {least:,} on this processor. Its features are "
                    f"computed in {'bfloat16' if self.bf16 else 'float32'}."
                )
        if self.compile_update and self._forward_loss == self._mean_loss:
            self._forward_loss = compile_or_same(self._mean_loss)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        callbacks = list_callbacks(callback)
        keep_statistics(callbacks)
        callbacks += self._score_callbacks(callbacks)
        self._progress_bar = UpdateProgressBar() if progress_bar else None
        if self._progress_bar is not None:
            callbacks.append(self._progress_bar)
        return super()._init_callback(CallbackList(callbacks))

    def _score_callbacks(self, siblings: list[BaseCallback]) -> list[BaseCallback]:
        """The callbacks that score the teacher, and the student if the user's own callbacks do not."""
        return [self._reference_callback(siblings)]

    def learn(
        self: SelfDistillationAlgorithm,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "Distillation",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDistillationAlgorithm:
        try:
            super().learn(
                total_timesteps=total_timesteps,
                callback=callback,
                log_interval=log_interval,
                tb_log_name=tb_log_name,
                reset_num_timesteps=reset_num_timesteps,
                progress_bar=progress_bar,
            )
            self._finish_recording()
        finally:
            self._leave_recording(keep=self.has_checkpoint_state)
        return self

    def _run_state(self, callbacks: list[BaseCallback]) -> dict[str, Any]:
        recording = None if self._recorder is None else writer_state(self._recorder)
        return {**super()._run_state(callbacks), "recording": recording}

    def _state_bytes(self) -> int:
        recorded = 0 if self._recorder is None else self._recorder.step_bytes(self.action_space)
        return super()._state_bytes() + recorded * self._total_timesteps

    @property
    def _n_observations(self) -> int:
        """Number of observations stored so far. A resumed run starts at zero, unless a replay buffer was loaded."""
        return max(self._n_collected, self.replay_buffer.size() * self.n_envs)

    def train(self, gradient_steps: int, batch_size: int = 32) -> None:
        if self._n_observations < self.learning_starts:
            return
        self._begin_updates()
        further = self._further_models()
        if further:
            # The first student learns as it would alone.
            with unchanged_randomness():
                for model in further:
                    model._begin_updates()
        models = [self, *further]
        records: list[list[dict[str, th.Tensor]]] = [[] for _ in models]
        for step in range(gradient_steps):
            if self._progress_bar is not None:
                self._progress_bar.show_updates(step + 1, gradient_steps)
            samples = self._sample(batch_size)
            for model, record in zip(models, records, strict=True):
                record.append(model._update(samples))

        # Increase update counter
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for model, record in zip(models, records, strict=True):
            model._log_updates(record, self._n_updates)

    def _sample(self, batch_size: int) -> Any:
        return self.replay_buffer.sample(batch_size, env=self._normalizer)

    def _further_models(self) -> "list[DistillationAlgorithm]":
        """Models of other students that learn from the same minibatches."""
        return []

    def _begin_updates(self) -> None:
        self._prepare_updates()
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        # Update learning rate according to schedule
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        update_learning_rate(self.student.optimizer, learning_rate)
        align_states(self.student.optimizer)
        self._record("learning_rate", learning_rate)

    def _update(self, samples: Any) -> dict[str, th.Tensor]:
        loss, metrics = self._forward_loss(samples)
        self.student.update(loss, self.max_grad_norm)
        return {"loss": loss.detach(), **metrics}

    def _log_updates(self, records: list[dict[str, th.Tensor]], n_updates: int) -> None:
        # All together, because reading numbers waits for a GPU.
        means = th.stack([th.stack([record[name] for record in records]).mean() for name in records[0]]).tolist()
        for name, mean in zip(records[0], means, strict=True):
            if name == "loss" and not np.isfinite(mean):
                whose = "" if self._heading == "train" else f" of student {self._heading!r}"
                raise ValueError(
                    f"The loss{whose} became {mean} after update {n_updates}: lower learning_rate, or scale "
                    "observations whose numbers are very large."
                )
            self._record(name, mean)

    def _record(self, name: str, value: float) -> None:
        self.logger.record(f"{self._heading}/{name}", value)

    def _prepare_updates(self) -> None:
        """Called before every series of updates, once ``learning_starts`` observations are stored."""
        # The pixel statistics are estimated once, before the first update.
        if self._n_updates == 0:
            self.student.fit_frame_scalers(self.replay_buffer.sample_observations(1_000))
            if self.init_from_teacher and inherit_filters(self.policy, self._teacher) and self.verbose > 0:
                print("The student begins with filters of its teacher.")

    def _mean_loss(self, samples: Any) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        losses, metrics = self.student_loss(self.student, samples)
        return losses.mean(), metrics

    def to_sb3(self) -> BaseAlgorithm:
        """
        The student as a stock DQN or PPO, whose zip loads where this package is not installed, and which can be trained
        on with reinforcement learning.

        :return: the stock model, without an environment (see ``stock_model``)
        :raises AgentError: stock policies cannot compute what the student does, or its precision is not final
        """
        return stock_model(load_teacher(self, device="cpu"))

    @abstractmethod
    def student_loss(self, student: Student, samples: Any) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        """
        The loss of a student on a minibatch.

        :param student: the student
        :param samples: the minibatch from the replay buffer's ``sample``
        :return: one loss per example ``(batch,)``, and the metrics to log
        """

    def _excluded_save_params(self) -> list[str]:
        # Rebuilt from the policy, or needed only while learn() runs
        return [
            *super()._excluded_save_params(),
            "student",
            "_progress_bar",
            "_forward_loss",
            "_normalizer",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
