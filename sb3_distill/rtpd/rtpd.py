"""Real-time Policy Distillation (Sun & Fazli 2019), with the online distillation of Rusu et al. 2015, section 4.5."""

import copy
import warnings
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn
from torch.nn import functional as F

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.checks import lacks_statistics
from sb3_distill.base.callbacks import UpdateProgressBar, find_eval_callbacks, keep_statistics, list_callbacks
from sb3_distill.base.resume.memory import ResumableOffPolicyMixin
from sb3_distill.base.several.spec import StudentsArgument
from sb3_distill.base.teaching import TeacherMixin, TeacherSource
from sb3_distill.buffers.replay import FrameReplayBuffer
from sb3_distill.common.answers import Answers
from sb3_distill.common.losses import DistillationLoss
from sb3_distill.common.temperature import describe_temperature
from sb3_distill.common.utils import (
    check_count,
    check_device,
    check_probability,
    has_fast_bfloat16,
    setting,
    unchanged_randomness,
    unknown_choice,
)
from sb3_distill.envs.native import native_or_same
from sb3_distill.networks.dqn_policies import DQN_POLICIES
from sb3_distill.networks.extractors import set_train_dtype
from sb3_distill.results.curves import TEACHER, Evaluation
from sb3_distill.rtpd.callbacks import StudentEvalCallback
from sb3_distill.rtpd.players import DQNWithStudents
from sb3_distill.rtpd.spec import check_student_arguments, complete_spec, models_among
from sb3_distill.rtpd.students import SharedBatch, StudentGroup

SelfRealTimeDistillDQN = TypeVar("SelfRealTimeDistillDQN", bound="RealTimeDistillDQN")


class RealTimeDistillDQN(TeacherMixin, ResumableOffPolicyMixin, DQNWithStudents):
    """
    Real-time Policy Distillation: students learn at the same time as their teacher, an ordinary DQN.

    Paper: Sun & Fazli 2019. In each update of the teacher, all students learn from the teacher's minibatch and its
    Q-values, "simultaneously and independently". With ``teacher_source="best"``, students learn from the teacher's best
    network so far instead of the latest one (online distillation, Rusu et al. 2015, section 4.5).

    With or without students, the teacher is bit-equal to SB3's ``DQN`` with the same seed in the same environment.
    (Atari games with SB3's Python wrappers are stepped in C++, as in ``PolicyDistillation``.)

    :param policy: The teacher's policy (MlpPolicy, CnnPolicy, MultiInputPolicy, GridCnnPolicy)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param students: a dictionary from names to students. A student is the name of a policy (see
        ``STUDENT_POLICIES``), a ``PolicyDistillation`` model to train further, or a dictionary with ``policy`` and any
        of ``policy_kwargs``, ``learning_rate``, ``loss``, ``temperature``, ``student_temperature``, ``self_learning``,
        ``imitation``, ``teacher_source`` and ``bf16``, which replace the arguments below for this student. A list of
        names of policies is accepted too: the students' names are then derived from them. None: train only the teacher.
    :param teacher: trained agent with whose weights the teacher starts (see ``load_teacher``), to fine-tune and distill
        it in one run; None: start from scratch
    :param teacher_source: the network that students learn from: "latest", the teacher's current network, or "best", its
        network at the best evaluation so far (students do not learn before the first evaluation)
    :param loss: "kl", "reverse_kl", "nll" or "mse" (see ``sb3_distill.common.losses``)
    :param temperature: divides the teacher's Q-values in the KL losses; below 1 sharpens
    :param student_temperature: divides the student's outputs in the KL losses; None: the same as ``temperature`` (Sun &
        Fazli 2019, Eq. 1)
    :param self_learning: coefficient of the students' own DQN loss (Eq. 3); 0: distillation only
    :param imitation: in the target of the students' DQN loss, use the teacher's greedy action (Eq. 5) instead of the
        student's own (Eq. 4)
    :param eval_freq: evaluate the teacher and all students every ``eval_freq`` updates; -1: never
    :param n_eval_episodes: number of episodes per player in one evaluation; all players have the same starts
    :param eval_eps: share of uniformly random actions in evaluations (0.05 in Rusu et al. 2015)
    :param results_dir: folder for learning curves and students; None: the folder of the environment's Monitor files. If
        there is none, nothing is written.
    :param bf16: see ``PolicyDistillation``; of the students alone
    :param act_with: whose actions ``predict`` returns: "teacher", or the name of a student
    :param allow_env_mismatch: start from a teacher that was trained on an environment with another id
    :raises ValueError: an argument is invalid, or the agent to start from does not fit the environment or the policy

    All other parameters are those of SB3's ``DQN``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**DQN_POLICIES}
    run_attributes: ClassVar[tuple[str, ...]] = (
        *ResumableOffPolicyMixin.run_attributes,
        "exploration_rate",
        "_n_calls",
        "evaluations",
        "bf16",
    )
    # Stays as passed to this model; all else is as the run had it, also on another processor
    user_choices: ClassVar[tuple[str, ...]] = ("bf16",)

    def __init__(
        self,
        policy: str | type[DQNPolicy],
        env: GymEnv | str,
        students: StudentsArgument | None = None,
        teacher: TeacherSource | None = None,
        teacher_source: str = "latest",
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 32,
        loss: str = "kl",
        temperature: float = 0.01,
        student_temperature: float | None = None,
        self_learning: float = 1.0,
        imitation: bool = True,
        eval_freq: int = 25_000,
        n_eval_episodes: int = 30,
        eval_eps: float = 0.0,
        results_dir: str | None = None,
        bf16: bool | None = None,
        act_with: str = TEACHER,
        allow_env_mismatch: bool = False,
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
            learning_starts,
            batch_size,
            device=device,
            _init_setup_model=False,
            **dqn_kwargs,
        )
        self.loss = loss
        self.temperature = temperature
        self.student_temperature = student_temperature
        self.self_learning = self_learning
        self.imitation = imitation
        self.teacher_source = teacher_source
        self.eval_freq = eval_freq
        self.n_eval_episodes = n_eval_episodes
        self.eval_eps = eval_eps
        self.results_dir = results_dir
        self.bf16 = bf16
        self.act_with = act_with
        self.teacher = teacher
        self.allow_env_mismatch = allow_env_mismatch
        self._progress_bar: UpdateProgressBar | None = None
        # One entry per evaluation and player, see StudentEvalCallback
        self.evaluations: list[Evaluation] = []
        if students is not None and not students:
            raise ValueError("students is empty: name at least one, such as {'small': 'Net3Policy'}.")
        self.students: Any = students or {}
        if _init_setup_model:
            self._setup_model()
            if teacher is not None:
                self._start_from(self._setup_teacher())
                self.teacher = None  # only its weights are needed

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return native_or_same(super()._wrap_env(env, verbose, monitor_wrapper), verbose)

    def _setup_model(self) -> None:
        self._check_spaces()
        # Also called by load(), where the students may come from the user or from the saved model: both are read in the
        # same way.
        models = models_among(self.students, self.observation_space, self.action_space)
        self.students = self.read_students(self.students)
        self._check_arguments()
        images = self.n_steps == 1 and is_image_space(self.observation_space, check_channels=False)
        if self.replay_buffer_class is None and images and not self.optimize_memory_usage:
            self.replay_buffer_class = FrameReplayBuffer
        if self.replay_buffer_class is FrameReplayBuffer:
            # In the files of earlier versions, whose buffer had this argument
            self.replay_buffer_kwargs.pop("frame_channels", None)
        super()._setup_model()
        fields = ("loss", "temperature", "student_temperature", "self_learning", "imitation", "teacher_source", "bf16")
        defaults = {"learning_rate": self.lr_schedule, **{field: getattr(self, field) for field in fields}}
        specs = {name: complete_spec(entries, defaults) for name, entries in self.students.items()}
        with unchanged_randomness():
            self.student_nets = StudentGroup(specs, self.observation_space, self.action_space, self.device, self.seed)
        for name, model in models.items():
            self.student_nets[name].go_on_from(model.policy)  # type: ignore[arg-type]
        # Replaced at every new high score of the teacher (Rusu et al. 2015, section 4.5)
        self.best_q_net = copy.deepcopy(self.q_net) if self.student_nets.follow_best else None
        if self.best_q_net is not None and (self.eval_freq <= 0 or self.n_eval_episodes <= 0):
            raise ValueError(
                "teacher_source='best' follows the network with the best evaluation, but eval_freq="
                f"{self.eval_freq} and n_eval_episodes={self.n_eval_episodes} evaluate nothing: make both positive."
            )

    def _check_arguments(self) -> None:
        if self.act_with != TEACHER and self.act_with not in self.students:
            raise ValueError(unknown_choice("act_with", self.act_with, [TEACHER, *self.students]))
        check_probability("eval_eps", self.eval_eps)
        check_count("n_eval_episodes", self.n_eval_episodes, "no evaluations")
        # Check the defaults of all students too, which no student may use.
        check_student_arguments(self.temperature, self.teacher_source, self.self_learning)
        DistillationLoss(self.loss, self.temperature, self.student_temperature or self.temperature)

    def _check_teacher(self, teacher: Any, env_id: str | None) -> None:
        if teacher.algo != "dqn":
            raise ValueError(
                f"The teacher to start from, {teacher.source} ({teacher.algo}) is no DQN; real-time distillation goes "
                "on with a DQN only. Distill this agent with PolicyDistillation instead."
            )
        if teacher.normalization is not None:
            raise ValueError(
                f"The teacher to start from, {teacher.source}, was trained behind VecNormalize, whose statistics would "
                "be lost when it learns on. Distill it with PolicyDistillation instead."
            )
        super()._check_teacher(teacher, env_id)

    def _shown_to(self, teacher: Any) -> VecEnv:
        # It becomes the agent that learns, and sees what that sees.
        return self._known_env()

    def _check_statistics(self, teacher: Any) -> None:
        assert self.env is not None
        if lacks_statistics(teacher, self.env):
            warnings.warn(
                f"The environment normalises observations (VecNormalize), but the teacher to start from, "
                f"{teacher.source}, has no statistics. That is right only if it was trained behind the statistics with "
                "which this VecNormalize was loaded. If it was trained on raw observations, leave VecNormalize out."
            )

    def _start_from(self, trained: Teacher) -> None:
        """Copy the weights of a trained agent into the teacher and its target network."""
        for network in (self.q_net, self.q_net_target):
            try:
                network.load_state_dict(trained.network.state_dict())
            except RuntimeError as error:
                raise ValueError(
                    f"The teacher to start from, {trained.source}, has another network than policy and policy_kwargs "
                    f"define: {' '.join(str(error).split())}"
                ) from error
        if self.best_q_net is not None:
            self.best_q_net.load_state_dict(self.q_net.state_dict())

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        callbacks = list_callbacks(callback)
        keep_statistics(callbacks)
        if self.students:
            evaluations = [found for each in callbacks for found in find_eval_callbacks(each)]
            callbacks.append(
                StudentEvalCallback(
                    self,
                    self.eval_freq,
                    self.n_eval_episodes,
                    self.eval_eps,
                    self.results_dir,
                    keeps_teacher=all(each.best_model_save_path is None for each in evaluations),
                    verbose=self.verbose,
                )
            )
        self._progress_bar = UpdateProgressBar() if progress_bar else None
        if self._progress_bar is not None:
            callbacks.append(self._progress_bar)
        return super()._init_callback(CallbackList(callbacks))

    def learn(
        self: SelfRealTimeDistillDQN,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "RTPD",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRealTimeDistillDQN:
        if not self.students:
            warnings.warn(
                "There are no students: this trains an ordinary DQN. Name some, such as "
                f"{setting('students', repr(['MlpPolicy']))}."
            )
        self._known_env()
        if self.bf16 is None:
            # Kept by a run that goes on: another precision would be another run
            self.bf16 = has_fast_bfloat16(self.device)
        for _, student in self.student_nets.each():
            own = student.spec.bf16
            set_train_dtype(student.policy, self.device, self.bf16 if own is None else own)
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def _on_step(self) -> None:
        super()._on_step()
        # The same condition as for DQN's own target network
        if self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            self.student_nets.update_targets(self.tau)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        if not self.students:
            super().train(gradient_steps, batch_size)
            return
        self._fit_frame_scalers()
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        # Update learning rate according to schedule
        self._update_learning_rate(self.policy.optimizer)
        self.student_nets.prepare(self._current_progress_remaining)

        losses, student_losses = [], []
        for step in range(gradient_steps):
            if self._progress_bar is not None:
                self._progress_bar.show_updates(step + 1, gradient_steps)
            # Sample replay buffer
            replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
            discounts = replay_data.discounts if replay_data.discounts is not None else self.gamma

            # The teacher's own update: the same operations as in SB3's DQN, so that its weights are bit-equal
            with th.no_grad():
                teacher_next_q_values = self.q_net_target(replay_data.next_observations)
                next_q_values = teacher_next_q_values.max(dim=1, keepdim=True).values
                target_q_values = replay_data.rewards + (1 - replay_data.dones) * discounts * next_q_values
            teacher_q_values = self.q_net(replay_data.observations)
            current_q_values = th.gather(teacher_q_values, dim=1, index=replay_data.actions.long())
            loss = F.smooth_l1_loss(current_q_values, target_q_values)
            losses.append(loss.detach())
            self.policy.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()

            batch = SharedBatch.of(replay_data, discounts, teacher_q_values.detach(), teacher_next_q_values)
            batches = {"latest": batch}
            if self.best_q_net is not None and self.has_best_teacher:
                with th.no_grad():
                    best_q_values = self.best_q_net(replay_data.observations)
                    best_next_q_values = self.best_q_net(replay_data.next_observations)
                batches["best"] = SharedBatch.of(replay_data, discounts, best_q_values, best_next_q_values)
            student_losses.append(self.student_nets.learn(batches, self.max_grad_norm))

        # Increase update counter
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", th.stack(losses).mean().item())
        for name in student_losses[0]:
            for key in student_losses[0][name]:
                mean = th.stack([record[name][key] for record in student_losses]).mean().item()
                if not np.isfinite(mean):
                    raise ValueError(
                        f"The {key} of student {name!r} became {mean} after update {self._n_updates}: lower its "
                        "learning_rate, or scale observations or rewards whose numbers are very large."
                    )
                self.logger.record(f"{name}/{key}", mean)

    @property
    def has_best_teacher(self) -> bool:
        """Whether the teacher has been evaluated, so that there is a best network."""
        return any(entry["player"] == TEACHER for entry in self.evaluations)

    def keep_best_teacher(self) -> None:
        """Store the current network as the one that students with ``teacher_source="best"`` learn from."""
        if self.best_q_net is not None:
            self.best_q_net.load_state_dict(self.q_net.state_dict())

    def describe_temperatures(self) -> str | None:
        """
        :return: how far apart the teacher's actions are now, and what the students' temperatures make of that; None if
            no student's loss has a temperature, or there is nothing in the replay buffer yet
        """
        losses = [student.loss for _, student in self.student_nets.each() if student.loss.has_temperature]
        temperatures = dict.fromkeys(loss.temperature for loss in losses)
        if not temperatures or self.replay_buffer is None or self.replay_buffer.size() == 0:
            return None
        with unchanged_randomness(), th.no_grad():
            observations = self.replay_buffer.sample(1_000, env=self._vec_normalize_env).observations
            return describe_temperature(Answers(q_values=self.q_net(observations)), *temperatures)

    def _fit_frame_scalers(self) -> None:
        """Set the pixel statistics of image students, before the first update."""
        if self._n_updates == 0:
            with unchanged_randomness():
                observations = self.replay_buffer.sample(1_000).observations  # type: ignore[union-attr]
            self.student_nets.fit_frame_scalers(observations)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "student_nets", "best_q_net", "_progress_bar"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, tensors = super()._get_torch_save_params()
        state_dicts = [*state_dicts, "student_nets"]
        state_dicts += [f"student_nets.by_name.{name}.policy.optimizer" for name in self.students]
        if self.best_q_net is not None:
            state_dicts.append("best_q_net")
        return state_dicts, tensors
