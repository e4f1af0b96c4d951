"""Quantization-aware Policy Distillation (Avé, Mets, De Schepper & Latré 2022)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn
from torch.nn import functional as F

from sb3_distill.common.actor_critic_policies import (
    ACTOR_CRITIC_POLICIES,
    MlpPolicy,
    distribution_parameters,
    has_exact_input,
    is_known_distribution,
)
from sb3_distill.common.buffers import DistillationSamples
from sb3_distill.common.envs import check_discrete, check_teacher
from sb3_distill.common.evaluation import mix_random_actions
from sb3_distill.common.losses import DistillationLoss, gaussian_kl_loss
from sb3_distill.common.packing import stored_bytes
from sb3_distill.common.quantization import (
    MAX_BITS,
    MIN_BITS,
    calibrate,
    freeze_steps,
    quantize,
    quantizers,
    set_blend,
)
from sb3_distill.common.teachers import ActorCriticTeacher, Teacher, find_zoo_teacher
from sb3_distill.common.utils import unknown_choice
from sb3_distill.pd import PolicyDistillation
from sb3_distill.pd.pd import RolloutPolicy

SelfQPD = TypeVar("SelfQPD", bound="QPD")

SCHEDULES = ("blend", "bits")
ALGORITHMS = ("ppo", "a2c", "trpo")

Bits = int | Mapping[str, int] | None


def check_bits(field: str, bits: Any) -> None:
    """
    :param field: what the bits are of
    :param bits: a number of bits, or one for "conv" and "linear" layers each
    :raises ValueError: neither, or out of range
    """
    entries = dict(bits) if isinstance(bits, Mapping) else {"": bits}
    for kind, value in entries.items():
        if isinstance(bits, Mapping) and kind not in ("conv", "linear"):
            raise ValueError(f"{field}: " + unknown_choice("layer", kind, ["conv", "linear"]))
        if isinstance(value, bool) or not isinstance(value, int) or not MIN_BITS <= value <= MAX_BITS:
            raise ValueError(f"{field} must be between {MIN_BITS} and {MAX_BITS} bits, or None; not {value!r}.")


class QPD(PolicyDistillation):
    """
    Quantization-aware Policy Distillation: an actor-critic student learns from an actor-critic teacher, first at full
    precision, then in a smooth transition to few bits, then at its final precision with frozen step sizes.

    Paper: Avé et al. 2022. The loss ties the student's distribution over actions to the teacher's (KL divergence) and
    its critic to the teacher's (squared error); the exact published form is not public to us, hence the coefficients.

    :param policy: The student's policy (MlpPolicy, CnnPolicy, MultiInputPolicy, Net1Policy ... Net5Policy,
        MaxPoolCnnPolicy, GridCnnPolicy), all actor-critic
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param teacher: The trained PPO, A2C or TRPO agent (see ``load_teacher``); Discrete actions, or continuous ones with
        a Gaussian. None takes the Zoo's own.
    :param temperature: sharpens (below 1) or softens the teacher's distribution
    :param value_coef: coefficient of the critic's squared error
    :param ent_coef: coefficient of the student's entropy, which is added to the objective
    :param rollout_policy: who acts: "teacher", "student", "linear" (from the teacher to the student over the run), or a
        function from the remaining progress to the probability that the teacher acts; actions are sampled
    :param teacher_eps: share of uniformly random actions (Discrete only)
    :param weight_bits: precision of the actor's weights, 2 to 8 bits, or one for "conv" and "linear" layers each; None
        is plain actor-critic distillation
    :param activation_bits: precision of the inputs of the actor's layers; None takes 8
    :param first_layer_bits: precision of weight and input of the first layer (frames are exact in any case)
    :param last_layer_bits: precision of weight and input of the last layer
    :param quantization_schedule: how precision falls: "bits" steps from 8 bits down, "blend" mixes a growing share of
        the quantized values into the full ones
    :param full_precision_fraction: share of the run at full precision
    :param final_fraction: share of the run at the final precision with frozen step sizes
    :raises ValueError: an argument, or a teacher that does not fit

    All other parameters are those of ``PolicyDistillation``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**ACTOR_CRITIC_POLICIES}
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete, spaces.Box)
    _teacher_outputs: ClassVar[str] = "distribution and value"
    policy: MlpPolicy  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[MlpPolicy],
        env: GymEnv | str,
        teacher: str | Path | BaseAlgorithm | Teacher | None = None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 100_000,
        learning_starts: int = 1_000,
        batch_size: int = 64,
        temperature: float = 1.0,
        value_coef: float = 0.5,
        ent_coef: float = 0.0,
        rollout_policy: RolloutPolicy = "linear",
        teacher_eps: float = 0.05,
        max_grad_norm: float | None = 0.5,
        weight_bits: Bits = None,
        activation_bits: Bits = None,
        first_layer_bits: int = 8,
        last_layer_bits: int = 8,
        quantization_schedule: str = "bits",
        full_precision_fraction: float = 0.4,
        final_fraction: float = 0.3,
        _init_setup_model: bool = True,
        **pd_kwargs: Any,
    ) -> None:
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,
            teacher,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            temperature=temperature,
            rollout_policy=rollout_policy,
            teacher_eps=teacher_eps,
            student_eps=0.0,
            max_grad_norm=max_grad_norm,
            # Few bits are learned at full precision underneath.
            bf16=False,
            _init_setup_model=False,
            **pd_kwargs,
        )
        self.value_coef = value_coef
        self.ent_coef = ent_coef
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.first_layer_bits = first_layer_bits
        self.last_layer_bits = last_layer_bits
        self.quantization_schedule = quantization_schedule
        self.full_precision_fraction = full_precision_fraction
        self.final_fraction = final_fraction
        self._is_calibrated = False
        if _init_setup_model:
            self._setup_model()
            if self.env is not None:
                self._setup_teacher()

    def _setup_model(self) -> None:
        self._check_arguments()
        super()._setup_model()
        if self.weight_bits is None:
            return
        exact_input = has_exact_input(self.policy)

        def bits_of(choice: Bits, kind: str) -> int:
            return int(choice[kind]) if isinstance(choice, Mapping) else int(choice or 8)

        def final_bits(choice: Bits, position: int, n_layers: int, layer: nn.Module) -> int:
            if position == 0:
                return self.first_layer_bits
            if position == n_layers - 1:
                return self.last_layer_bits
            return bits_of(choice, "linear" if isinstance(layer, nn.Linear) else "conv")

        quantize(
            self.policy,
            self.policy.actor_modules(),
            lambda position, n_layers, layer: final_bits(self.weight_bits, position, n_layers, layer),
            lambda position, n_layers, layer: (
                None if exact_input and position == 0 else final_bits(self.activation_bits, position, n_layers, layer)
            ),
        )
        # The step sizes are learned too.
        self.policy.optimizer = self.policy.optimizer_class(
            self.policy.parameters(),
            lr=self.lr_schedule(1),  # type: ignore[call-arg]
            **self.policy.optimizer_kwargs,
        )

    def _check_arguments(self) -> None:
        if self.weight_bits is not None:
            check_bits("weight_bits", self.weight_bits)
        if self.activation_bits is not None:
            check_bits("activation_bits", self.activation_bits)
        check_bits("first_layer_bits", self.first_layer_bits)
        check_bits("last_layer_bits", self.last_layer_bits)
        for name in ("value_coef", "ent_coef"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is a coefficient and must be at least 0, not {getattr(self, name)!r}.")
        if self.quantization_schedule not in SCHEDULES:
            raise ValueError(unknown_choice("quantization_schedule", self.quantization_schedule, SCHEDULES))
        shares = self.full_precision_fraction, self.final_fraction
        if not (0 <= shares[0] < 1 and 0 < shares[1] <= 1 and sum(shares) <= 1):
            raise ValueError(
                f"The schedule never reaches the final precision: full_precision_fraction={shares[0]} and "
                f"final_fraction={shares[1]} must be shares of the run, the second above 0, and at most 1 together."
            )

    def _make_loss(self) -> DistillationLoss:
        return DistillationLoss("kl", self.temperature, 1.0)

    def _buffer_kwargs(self) -> dict[str, Any]:
        return {**super()._buffer_kwargs(), "n_outputs": self._n_parameters_of_actions + 1}

    @property
    def _n_parameters_of_actions(self) -> int:
        """Numbers that describe a distribution over actions."""
        if isinstance(self.action_space, spaces.Discrete):
            return int(self.action_space.n)
        assert self.action_space.shape is not None
        return 2 * math.prod(self.action_space.shape)

    def _find_teacher(self, env_id: str | None) -> str | Path:
        return find_zoo_teacher(env_id, ALGORITHMS)

    def _check_teacher(self, teacher: Teacher, env_id: str | None) -> None:
        assert self.env is not None
        if not isinstance(teacher, ActorCriticTeacher):
            raise ValueError(
                f"The teacher {teacher.source} is a {teacher.algo} agent, which has no distribution over actions and "
                "no critic: distil it with PolicyDistillation (--algo pd)."
            )
        if isinstance(self.action_space, spaces.Discrete):
            check_discrete(teacher, self.env)
        elif teacher.action_space.shape != self.action_space.shape:
            raise ValueError(
                f"The teacher {teacher.source} has the actions {teacher.action_space}, the environment "
                f"{self.action_space}."
            )
        distribution = teacher.policy.action_dist
        if not is_known_distribution(distribution):
            raise ValueError(
                f"The teacher {teacher.source} draws actions from a squashed {type(distribution).__name__}; "
                "distillation knows categorical and diagonal Gaussian ones. Train it without squash_output."
            )
        check_teacher(teacher, self.env, env_id, self.allow_env_mismatch)

    def learn(
        self: SelfQPD,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "QPD",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfQPD:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    @th.no_grad()
    def _act(self) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(self._teacher, ActorCriticTeacher) and self._last_obs is not None
        # The teacher normalises observations itself, if it does at all.
        raw_obs = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        tensors = obs_as_tensor(raw_obs, self.device)  # type: ignore[arg-type]
        distribution = self._teacher.distribution(tensors)
        outputs = th.cat([distribution_parameters(distribution), self._teacher.values(tensors)], dim=1)
        self._teacher_logits = outputs.cpu().numpy()
        # Not SB3's own sampling, which for state-dependent exploration keeps one draw of noise
        actions = distribution.distribution.sample().cpu().numpy()  # type: ignore[union-attr]
        teacher_acts = self._rollout_rng.random(len(actions)) < self._teacher_share(self._current_progress_remaining)
        if not teacher_acts.all():
            student = self.policy.get_distribution(obs_as_tensor(self._last_obs, self.device))
            student_actions = student.get_actions().cpu().numpy()
            actions = np.where(teacher_acts.reshape(-1, *[1] * (actions.ndim - 1)), actions, student_actions)
        if isinstance(self.action_space, spaces.Box):
            actions = actions.reshape(-1, *self.action_space.shape)
            return np.clip(actions, self.action_space.low, self.action_space.high), actions
        epsilon = np.where(teacher_acts, self.teacher_eps, 0.0)
        actions = mix_random_actions(actions, self._n_actions_of(self._last_obs), epsilon, self._rollout_rng)
        return actions, actions

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        if self.weight_bits is not None and self.replay_buffer.size() > 0:
            self._update_precision()
        super().train(gradient_steps, batch_size)

    def _update_precision(self) -> None:
        progress = 1.0 - self._current_progress_remaining
        if progress < self.full_precision_fraction:
            return
        if not self._is_calibrated:
            observations = self.replay_buffer.sample(1_000, env=self._vec_normalize_env).observations
            calibrate(self.policy, lambda: self.policy.outputs(observations))
            self._is_calibrated = True
        transition = 1.0 - self.full_precision_fraction - self.final_fraction
        share = 1.0 if transition <= 0 else min((progress - self.full_precision_fraction) / transition, 1.0)
        self.set_precision(share)
        if share == 1.0:
            freeze_steps(self.policy)
        self.logger.record("train/quantized", share)

    def set_precision(self, share: float) -> None:
        """
        Place the student within the transition from full to final precision.

        :param share: 0 at its beginning, 1 at its end
        """
        if self.quantization_schedule == "blend":
            set_blend(self.policy, share)
            return
        set_blend(self.policy, 1.0)
        for quantizer in quantizers(self.policy):
            final = int(quantizer.final_bits)
            bits = final + math.ceil((1.0 - share) * (MAX_BITS - final))
            if bits != int(quantizer.bits):
                quantizer.set_bits(bits)

    def _eager_loss(self, samples: DistillationSamples) -> tuple[th.Tensor, th.Tensor]:
        outputs, teacher = self.policy.outputs(samples.observations), samples.teacher_logits
        value_loss = F.mse_loss(outputs[:, -1], teacher[:, -1])
        if isinstance(self.action_space, spaces.Discrete):
            actor_loss = self.distillation_loss(teacher[:, :-1], outputs[:, :-1])
            entropy = -(outputs[:, :-1].exp() * outputs[:, :-1]).sum(dim=1).mean()
            agreement = (outputs[:, :-1].argmax(dim=1) == teacher[:, :-1].argmax(dim=1)).float().mean()
        else:
            mean, log_std = outputs[:, :-1].chunk(2, dim=1)
            teacher_mean, teacher_log_std = teacher[:, :-1].chunk(2, dim=1)
            actor_loss = gaussian_kl_loss(teacher_mean, teacher_log_std, mean, log_std, self.temperature)
            entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=1).mean()
            agreement = (mean - teacher_mean).abs().mean()
        return actor_loss + self.value_coef * value_loss - self.ent_coef * entropy, agreement

    @property
    def agreement_name(self) -> str:  # type: ignore[override]
        """What ``train/`` says beside the loss: agreement of actions, or the mean distance of continuous ones."""
        return "agreement" if isinstance(self.action_space, spaces.Discrete) else "action_distance"

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As SB3's actor-critic algorithms."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    def stored_bytes(self) -> int:
        """
        :return: bytes of the actor as a device stores it: packed integers, step sizes and biases, or float32
        """
        return stored_bytes(nn.ModuleList(self.policy.actor_modules()))
