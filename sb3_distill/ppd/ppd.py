"""Proximal Policy Distillation (Spigler 2025)."""

from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.ppo.ppo import PPO
from torch.nn import functional as F

from sb3_distill.agents.checks import check_temperature
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.rebuild.stock import stock_model
from sb3_distill.base.callbacks import TeacherReferenceCallback, UpdateProgressBar, keep_statistics, list_callbacks
from sb3_distill.base.reference import PlayRule, TeacherReferences
from sb3_distill.base.resume.resuming import ResumableMixin
from sb3_distill.base.several.callbacks import forget_best
from sb3_distill.base.teaching import TeacherMixin, TeacherSource
from sb3_distill.common.answers import Answers
from sb3_distill.common.losses import DistillationLoss, compare_actions, proximal_loss
from sb3_distill.common.schedules import read_schedule
from sb3_distill.common.temperature import check_number, describe_temperature
from sb3_distill.common.utils import check_device
from sb3_distill.envs.native import native_or_same
from sb3_distill.networks.actor_critic_policies import (
    ACTOR_CRITIC_POLICIES,
    ActorCriticMlpPolicy,
    check_gaussian_kwargs,
)
from sb3_distill.networks.optimizers import align_states
from sb3_distill.ppd import checks
from sb3_distill.ppd.buffers import DictDistillationRolloutBuffer, DistillationRolloutBuffer
from sb3_distill.ppd.callbacks import TeacherAnswersCallback
from sb3_distill.quantization.precision import Bits
from sb3_distill.quantization.training import QuantizingMixin

SelfPPD = TypeVar("SelfPPD", bound="ProximalPolicyDistillation")


class ProximalPolicyDistillation(QuantizingMixin, TeacherMixin, ResumableMixin, PPO):
    """
    Proximal Policy Distillation: PPO on the student's own play, with a term that draws it to its teacher. The student
    gets the environment's rewards, so it can become better than its teacher.

    Paper: https://arxiv.org/abs/2407.15134 (Spigler 2025). With ``distill_coef=0`` this is SB3's PPO, bit for bit.

    :param policy: The student's policy (MlpPolicy, CnnPolicy, MultiInputPolicy, Net1Policy ... Net5Policy,
        MaxPoolCnnPolicy, GridCnnPolicy), all actor-critic
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param teacher: The trained agent (see ``load_teacher``), whose answers have a divergence to the student's: with
        Discrete actions any agent; with Box actions one of PPO, A2C or TRPO, or, if the student squashes its actions
        (``policy_kwargs=dict(squash_output=True)``), of SAC, TQC or CrossQ. None: the Zoo's agent for the environment.
    :param distill_coef: coefficient of the distillation loss: a number, ``"lin_VALUE"`` (linearly from VALUE to 0), or
        a function of the remaining progress (from 1 to 0)
    :param temperature: see ``QPD``
    :param n_teacher_episodes: number of episodes with which the teacher is scored before training (0: not at all)
    :param allow_env_mismatch: accept a teacher that was trained on an environment with another id
    :param weight_bits: precision of the student's actor (see ``QPD``), also the next six. None: full precision
    :param activation_bits: see ``QPD``
    :param first_layer_bits: see ``QPD``
    :param last_layer_bits: see ``QPD``
    :param quantization_schedule: see ``QPD``; the precision changes between rollouts
    :param full_precision_fraction: see ``QPD``
    :param final_fraction: see ``QPD``
    :raises ValueError: an argument is invalid, or the teacher does not fit the environment or the student

    All other parameters are those of SB3's ``PPO``, but ``use_sde`` and ``rollout_buffer_class``; and
    ``teacher_kwargs`` of ``PolicyDistillation``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**ACTOR_CRITIC_POLICIES}
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete, spaces.Box)
    other_teachers: ClassVar[str] = checks.OTHER_TEACHERS
    run_attributes: ClassVar[tuple[str, ...]] = (
        *(*ResumableMixin.run_attributes, "teacher_sha256", "transition_share", "_teacher_state"),
    )
    refused_arguments: ClassVar[frozenset[str]] = frozenset({"use_sde", "rollout_buffer_class"})
    policy: ActorCriticMlpPolicy
    rollout_buffer: Any

    def __init__(
        self,
        policy: str | type[ActorCriticMlpPolicy],
        env: GymEnv | str,
        teacher: TeacherSource | None = None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        distill_coef: float | str | Schedule = 1.0,
        temperature: float | None = None,
        n_teacher_episodes: int = 10,
        allow_env_mismatch: bool = False,
        weight_bits: Bits = None,
        activation_bits: Bits = None,
        first_layer_bits: int = 8,
        last_layer_bits: int = 8,
        quantization_schedule: str = "bits",
        full_precision_fraction: float = 0.4,
        final_fraction: float = 0.3,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        **ppo_kwargs: Any,
    ) -> None:
        check_device(device)
        if ppo_kwargs.get("use_sde"):
            raise ValueError(
                "use_sde=True is not supported, students have a Gaussian whose deviation depends on no observation: "
                "leave it out."
            )
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps,
            batch_size,
            n_epochs,
            device=device,
            _init_setup_model=False,
            **ppo_kwargs,
        )
        self.teacher = teacher
        self.distill_coef = distill_coef
        self.temperature = temperature
        self.n_teacher_episodes = n_teacher_episodes
        self.allow_env_mismatch = allow_env_mismatch
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.first_layer_bits = first_layer_bits
        self.last_layer_bits = last_layer_bits
        self.quantization_schedule = quantization_schedule
        self.full_precision_fraction = full_precision_fraction
        self.final_fraction = final_fraction
        self._references: TeacherReferences | None = None
        self._reference: TeacherReferenceCallback | None = None
        self._progress_bar: UpdateProgressBar | None = None
        if _init_setup_model:
            self._setup_model()
            if self.env is not None:
                self._setup_teacher()

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return native_or_same(super()._wrap_env(env, verbose, monitor_wrapper), verbose)

    def _setup_model(self) -> None:
        self._check_spaces()
        self._check_arguments()
        if self.rollout_buffer_class is not None:
            raise ValueError("rollout_buffer_class cannot be chosen: the buffer holds the teacher's answers, too.")
        is_dict = isinstance(self.observation_space, spaces.Dict)
        self.rollout_buffer_class = DictDistillationRolloutBuffer if is_dict else DistillationRolloutBuffer
        super()._setup_model()
        self._setup_student()

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_gaussian_kwargs(self.policy_kwargs, self.action_space)
        check_number(self.temperature, checks.NO_AUTO)
        self._distill_loss = DistillationLoss("kl", 1.0 if self.temperature is None else self.temperature)
        self._distill_schedule = read_schedule(self.distill_coef, "distill_coef", may_be_zero=True)

    @classmethod
    def teacher_algorithms(cls, action_space: spaces.Space | None, squashes: bool | None = None) -> tuple[str, ...]:
        """See ``TeacherMixin``."""
        return checks.teacher_algorithms(action_space, squashes)

    def _check_teacher(self, teacher: Any, env_id: str | None) -> None:
        checks.check_divergence(teacher, self._known_env(), self.policy)
        check_temperature(teacher, self.temperature)
        super()._check_teacher(teacher, env_id)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._setup_teacher()
        if self.weight_bits is not None and self.transition_share != 1.0:
            start = 0 if reset_num_timesteps else self.num_timesteps
            schedule = self.full_precision_fraction, self.final_fraction
            checks.check_length(total_timesteps, self.n_steps * self.n_envs, *schedule, start)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        assert self.env is not None
        callbacks = list_callbacks(callback)
        keep_statistics(callbacks)
        if self._references is None:
            self._references = TeacherReferences(self.verbose)
        # Both can be changed between two calls of learn().
        self._references.n_episodes, self._references.seed = self.n_teacher_episodes, (self.seed or 0) + 1_000_000
        # A teacher with Q-values has no distribution to draw from: the student is compared with its greedy play.
        sampled = PlayRule(self._teacher.has_distribution, 0.0)
        self._reference = TeacherReferenceCallback(
            self._references,
            self._teacher,
            callbacks,
            lambda deterministic: PlayRule(False, 0.0) if deterministic else sampled,
            (sampled, sampled),
            lambda _: 0.0,
            self.verbose,
        )
        # Before others see what it refuses
        self._asked = TeacherAnswersCallback(self._teacher, self.env)
        self._progress_bar = UpdateProgressBar() if progress_bar else None
        own = [self._reference] if self._progress_bar is None else [self._reference, self._progress_bar]
        return super()._init_callback(CallbackList([self._asked, *callbacks, *own]))

    def learn(
        self: SelfPPD,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PPD",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPPD:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """As SB3's. The rollout buffer gets the teacher's answers, too."""
        goes_on: bool = super().collect_rollouts(*args, **kwargs)
        if goes_on:
            self.rollout_buffer.keep_answers(self._asked.answers)
        return goes_on

    def dump_logs(self, iteration: int = 0) -> None:
        """As SB3's, with the last episodes as a percentage of the teacher's."""
        if self._reference is not None:
            self._reference.log_rollout()
        super().dump_logs(iteration)

    def train(self) -> None:
        """Update the policy with the latest rollout."""
        if self.policy.needs_frame_statistics:
            # The ratio of PPO is that of one network, so this rollout is not learned from.
            self.policy.fit_frame_scalers(self.rollout_buffer.some_observations())
        else:
            if self._n_updates == 0 and self.verbose > 0 and isinstance(self.action_space, spaces.Discrete):
                print(describe_temperature(self.rollout_buffer.answers, self._distill_loss.temperature))
            self._update()
        if self.weight_bits is not None:
            # That of the next rollout and its updates
            if self._update_precision(self.rollout_buffer.some_observations):
                forget_best(self._callbacks, "train")
            if self.transition_share is not None:
                self.logger.record("train/quantized", self.transition_share)

    def _update(self) -> None:
        """``train`` of SB3's PPO (Schulman et al. 2017), with one more term."""
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        # Update optimizer learning rate
        self._update_learning_rate(self.policy.optimizer)
        align_states(self.policy.optimizer)
        progress = self._current_progress_remaining
        clip_range = self.clip_range(progress)  # type: ignore[operator]
        clip_range_vf = None if self.clip_range_vf is None else self.clip_range_vf(progress)  # type: ignore[operator]
        distill_coef = self._distill_schedule(progress)

        records: list[dict[str, th.Tensor]] = []
        continue_training = True
        for _ in range(self.n_epochs):
            for samples, teacher in self._minibatches(len(records)):
                actions = samples.actions
                if isinstance(self.action_space, spaces.Discrete):
                    actions = actions.long().flatten()
                values, log_prob, entropy = self.policy.evaluate_actions(samples.observations, actions)
                values = values.flatten()
                advantages = samples.advantages
                if self.normalize_advantage and len(advantages) > 1:
                    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

                # ratio between old and new policy, should be one at the first iteration
                ratio = th.exp(log_prob - samples.old_log_prob)
                clipped = th.clamp(ratio, 1 - clip_range, 1 + clip_range)
                policy_loss = -th.min(advantages * ratio, advantages * clipped).mean()
                if clip_range_vf is not None:
                    difference = th.clamp(values - samples.old_values, -clip_range_vf, clip_range_vf)
                    values = samples.old_values + difference
                value_loss = F.mse_loss(samples.returns, values)
                # Approximate entropy when no analytical form
                entropy_loss = -th.mean(-log_prob if entropy is None else entropy)

                student = self.policy.latest_answers()
                distill_loss = proximal_loss(self._distill_loss(teacher, student), ratio, clip_range).mean()
                loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss
                loss = loss + distill_coef * distill_loss

                with th.no_grad():
                    log_ratio = log_prob - samples.old_log_prob
                    terms = {
                        "entropy_loss": entropy_loss,
                        "policy_gradient_loss": policy_loss,
                        "value_loss": value_loss,
                        "distill_loss": distill_loss,
                        "approx_kl": th.mean((th.exp(log_ratio) - 1) - log_ratio),
                        "clip_fraction": th.mean((th.abs(ratio - 1) > clip_range).float()),
                        "loss": loss,
                        **compare_actions(teacher, student, self.action_space),
                    }
                    records.append({name: term.detach() for name, term in terms.items()})
                if self.target_kl is not None and terms["approx_kl"] > 1.5 * self.target_kl:
                    continue_training = False
                    if self.verbose >= 1:
                        print(f"Early stopping due to reaching max kl: {terms['approx_kl']:.2f}")
                    break

                self.policy.optimizer.zero_grad()
                loss.backward()
                th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()

            self._n_updates += 1
            if not continue_training:
                break

        self._log_updates(records)
        buffer = self.rollout_buffer
        self.logger.record(
            "train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        )
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/distill_coef", distill_coef)
        self.logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)

    def _minibatches(self, n_done: int) -> Iterator[tuple[Any, Answers]]:
        """One pass over the rollout, with the teacher's answers."""
        per_epoch = -(-self.n_steps * self.n_envs // self.batch_size)
        for index, pair in enumerate(self.rollout_buffer.get(self.batch_size)):
            if self._progress_bar is not None:
                self._progress_bar.show_updates(n_done + index + 1, self.n_epochs * per_epoch)
            yield pair

    def _log_updates(self, records: list[dict[str, th.Tensor]]) -> None:
        # All together, because reading numbers waits for a GPU.
        means = th.stack([th.stack([record[name] for record in records]).mean() for name in records[0]]).tolist()
        for name, mean in zip(records[0], means, strict=True):
            if name == "loss" and not np.isfinite(mean):
                raise ValueError(
                    f"The loss became {mean} after update {self._n_updates}: lower learning_rate, or scale "
                    "observations or rewards whose numbers are very large."
                )
            self.logger.record(f"train/{name}", mean)

    def stored_bytes(self) -> int:
        """
        :return: size in bytes of what a device must hold to act (see ``QPD.stored_bytes``)
        """
        return load_teacher(self, device="cpu").n_bytes

    def to_sb3(self) -> BaseAlgorithm:
        """
        The student as a stock PPO, whose zip loads where this package is not installed, and which can be trained on
        with reinforcement learning.

        :return: the stock model, without an environment (see ``stock_model``)
        :raises AgentError: stock policies cannot compute what the student does, or its precision is not final
        """
        return stock_model(load_teacher(self, device="cpu"))

    def _excluded_save_params(self) -> list[str]:
        # Made anew, or needed only while learn() runs
        own = "_references _reference _progress_bar _asked _distill_loss _distill_schedule rollout_buffer_class"
        return [*super()._excluded_save_params(), *own.split()]
