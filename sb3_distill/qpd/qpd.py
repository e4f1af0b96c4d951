"""Quantization-aware Policy Distillation (Avé, Mets, De Schepper & Latré 2022)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from torch.nn import functional as F

from sb3_distill.agents.checks import check_actions, check_temperature
from sb3_distill.agents.kinds.acting import n_observations
from sb3_distill.agents.load import load_teacher
from sb3_distill.base.augmentation import AugmentingMixin
from sb3_distill.base.distillation import DistillationAlgorithm
from sb3_distill.base.reference import PlayRule
from sb3_distill.base.several.callbacks import forget_best
from sb3_distill.base.several.siblings import SeveralStudentsMixin
from sb3_distill.base.several.spec import StudentsArgument, naming
from sb3_distill.base.students import Student
from sb3_distill.base.teaching import TeacherSource
from sb3_distill.buffers.distillation import DistillationSamples
from sb3_distill.common.answers import Answers, unscale_actions
from sb3_distill.common.losses import DistillationLoss, compare_actions, entropies
from sb3_distill.common.schedules import RolloutPolicy
from sb3_distill.common.temperature import check_number, describe_temperature
from sb3_distill.common.utils import unchanged_randomness
from sb3_distill.evaluation.players import mix_random_actions
from sb3_distill.networks.actor_critic_policies import (
    ACTOR_CRITIC_POLICIES,
    ActorCriticMlpPolicy,
    actor_critic_answers,
    check_gaussian_kwargs,
)
from sb3_distill.qpd import checks
from sb3_distill.quantization.precision import BITS, Bits, LayerBits
from sb3_distill.quantization.training import QuantizingMixin

SelfQPD = TypeVar("SelfQPD", bound="QPD")


class QPD(QuantizingMixin, AugmentingMixin, SeveralStudentsMixin, DistillationAlgorithm):
    """
    Quantization-aware Policy Distillation: an actor-critic student learns from an actor-critic teacher, first at full
    precision, then in a smooth transition to few bits, then at its final precision with frozen step sizes. The
    precision never rises again: if ``learn`` is called once more, a student keeps its precision until the new schedule
    asks for a lower one. The schedule is that of one call of ``learn``: the first of several goes through all of it.
    A student at full precision can be quantized later: ``QPD.load(path, env, weight_bits=4)``, then ``learn``.

    Paper: Avé et al. 2022, whose exact loss we do not know. Here it is the KL divergence between the distributions over
    actions (else a Huber loss between the actions, see ``action_loss``), plus the squared error between the critics.

    :param policy: The student's policy (MlpPolicy, CnnPolicy, MultiInputPolicy, Net1Policy ... Net5Policy,
        MaxPoolCnnPolicy, GridCnnPolicy), all actor-critic
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param teacher: The trained agent (see ``load_teacher``): PPO, A2C, TRPO, ARS; of discrete actions also DQN, QR-DQN,
        of continuous ones SAC, TQC, CrossQ, TD3, DDPG. None: the Zoo's actor-critic agent for the environment.
    :param temperature: sharpens (below 1) or softens (above 1) the teacher's distribution; None: 1. A teacher with
        Q-values is softmax(Q / temperature) and needs a number.
    :param value_coef: coefficient of the critic's squared error, which is on the scale of returns
    :param ent_coef: coefficient of the student's entropy bonus, which is subtracted from the loss
    :param rollout_policy: who acts (see ``PolicyDistillation``); actions are sampled
    :param weight_bits: precision of the weights of the actor's layers between the first and the last: 2 to 8 bits, or a
        mapping from "conv" and "linear" to bits, with all kinds of layers that the actor has. None: distillation
        without quantization, of which ``activation_bits`` must be None, too
    :param activation_bits: precision of the inputs of these layers; None: 8 bits
    :param first_layer_bits: precision of the first layer (frames are not quantized): one number for weight and input,
        or ``{"weight": 3, "input": 8}``
    :param last_layer_bits: precision of the last layer, likewise
    :param quantization_schedule: how the precision falls: "bits" lowers the number of bits step by step from 8; "blend"
        interpolates between full-precision and quantized values, with a growing share of the latter
    :param full_precision_fraction: share of the run at full precision
    :param final_fraction: share of the run at the final precision with frozen step sizes
    :param n_teacher_episodes: see ``PolicyDistillation``
    :param recording: folder with a recording of the teacher's play (see ``PolicyDistillation``)
    :param init_from_teacher: see ``PolicyDistillation``
    :param teacher_kwargs: see ``PolicyDistillation``
    :param augmentation: see ``PolicyDistillation``, and so are its strength and steps
    :param students: further students (see ``PolicyDistillation``). Entries of their own can be the arguments of the
        policy, of the loss and of the precision, ``learning_rate``, ``init_from_teacher`` and ``max_grad_norm``.
    :raises ValueError: an argument is invalid, or the teacher does not fit the environment

    All other parameters are those of ``DistillationAlgorithm``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**ACTOR_CRITIC_POLICIES}
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete, spaces.Box)
    other_teachers: ClassVar[str] = checks.OTHER_TEACHERS
    asks_values: ClassVar[bool] = True
    samples_actions: ClassVar[bool] = True
    run_attributes: ClassVar[tuple[str, ...]] = (*SeveralStudentsMixin.run_attributes, "transition_share")
    student_state: ClassVar[tuple[str, ...]] = ("transition_share", "compile_update")
    student_entries: ClassVar[tuple[str, ...]] = (
        *(*BITS, "policy", "policy_kwargs", "learning_rate", "temperature", "value_coef", "ent_coef"),
        *("init_from_teacher", "max_grad_norm", "quantization_schedule", "full_precision_fraction"),
        *("final_fraction", "compile_update"),
    )
    policy: ActorCriticMlpPolicy

    def __init__(
        self,
        policy: str | type[ActorCriticMlpPolicy],
        env: GymEnv | str,
        teacher: TeacherSource | None = None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 100_000,
        learning_starts: int = 1_000,
        batch_size: int = 64,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        temperature: float | None = None,
        value_coef: float = 0.01,
        ent_coef: float = 0.0,
        rollout_policy: RolloutPolicy = "linear",
        teacher_eps: float = 0.05,
        n_teacher_episodes: int = 10,
        allow_env_mismatch: bool = False,
        teacher_keys: str | Sequence[str] | None = None,
        student_keys: str | Sequence[str] | None = None,
        recording: str | Path | None = None,
        init_from_teacher: bool = False,
        students: StudentsArgument | None = None,
        max_grad_norm: float | None = 0.5,
        weight_bits: Bits = 8,
        activation_bits: Bits = None,
        first_layer_bits: LayerBits = 8,
        last_layer_bits: LayerBits = 8,
        quantization_schedule: str = "bits",
        full_precision_fraction: float = 0.4,
        final_fraction: float = 0.3,
        compile_update: bool | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        teacher_kwargs: Mapping[str, Any] | None = None,
        augmentation: str = "none",
        augmentation_strength: float | None = None,
        augmentation_steps: int = 1,
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
        self.teacher = teacher
        self.teacher_kwargs = teacher_kwargs
        self.augmentation = augmentation
        self.augmentation_strength = augmentation_strength
        self.augmentation_steps = augmentation_steps
        self.temperature = temperature
        self.value_coef = value_coef
        self.ent_coef = ent_coef
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.first_layer_bits = first_layer_bits
        self.last_layer_bits = last_layer_bits
        self.quantization_schedule = quantization_schedule
        self.full_precision_fraction = full_precision_fraction
        self.final_fraction = final_fraction
        self.n_teacher_episodes = n_teacher_episodes
        self.recording = recording
        self.init_from_teacher = init_from_teacher
        self._name_students(students)
        self.transition_share = None
        if _init_setup_model:
            self._setup_model()
            if self.env is not None:
                self._setup_teacher()

    def _setup_model(self) -> None:
        self._check_spaces()
        self._check_arguments()
        super()._setup_model()

    def _setup_student(self) -> None:
        super()._setup_student()
        # After the layers are those of the student
        DistillationAlgorithm._setup_student(self)

    def _make_student(self) -> Student:
        # Quantization-aware training needs float32 weights.
        bounds = self.action_space if isinstance(self.action_space, spaces.Box) else None
        loss = DistillationLoss("kl", 1.0 if self.temperature is None else self.temperature, 1.0, bounds)
        return Student(self.policy, loss, bf16=False)

    def _check_arguments(self) -> None:
        check_number(self.temperature, checks.NO_AUTO)
        super()._check_arguments()
        checks.check_compile(self.weight_bits, self.compile_update)
        check_gaussian_kwargs(self.policy_kwargs, self.action_space)
        checks.check_coefficients(value_coef=self.value_coef, ent_coef=self.ent_coef)

    def _choose_computing(self, n_updates: int) -> None:
        if self.weight_bits is not None:
            self.compile_update = False
        super()._choose_computing(n_updates)

    @classmethod
    def teacher_algorithms(cls, action_space: spaces.Space | None, squashes: bool | None = None) -> tuple[str, ...]:
        """See ``TeacherMixin``."""
        return checks.DISCRETE_TEACHERS if isinstance(action_space, spaces.Discrete) else checks.TEACHERS

    def _check_teacher(self, teacher: Any, env_id: str | None) -> None:
        check_actions(teacher, self._known_env())
        self._check_loss(teacher)
        siblings: dict[str, Any] = dict(self._siblings())
        for name, sibling in siblings.items():
            with naming(name):
                sibling._check_loss(teacher)
        super()._check_teacher(teacher, env_id)
        if teacher is not self._teacher and any(model.value_coef > 0 for model in (self, *siblings.values())):
            checks.warn_of_missing_critic(teacher)

    def _check_loss(self, teacher: Any) -> None:
        """Refuse a teacher whose answers do not go with this student's loss."""
        check_temperature(teacher, self.temperature)
        checks.check_entropy(teacher, self.policy, self.ent_coef)

    def _student_rule(self) -> PlayRule:
        # The deviation of a student's Gaussian is taught only where distributions are compared.
        return PlayRule(checks.compares_distributions(self._teacher, self.policy), self.student_eps)

    def _teacher_rule(self) -> PlayRule:
        return PlayRule(self._teacher.has_distribution, super()._teacher_rule().epsilon)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._known_env()
        models: list[Any] = [self, *self._further_models()]
        is_finished = all(model.weight_bits is None or model.transition_share == 1.0 for model in models)
        start = 0 if reset_num_timesteps else min(self.num_timesteps, self._n_observations)
        if not is_finished:
            checks.check_updates(self.learning_starts, total_timesteps, start)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

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

    def _choose_actions(self, answers: Answers, obs: Any, teacher_acts: np.ndarray) -> np.ndarray:
        # SB3's own sampling would keep one sample of the noise matrix of state-dependent exploration.
        actions = answers.sample([self._rollout_rng] * len(teacher_acts), self.action_space)
        allowed = answers.allowed
        if not teacher_acts.all():
            by_teacher = teacher_acts.reshape(-1, *[1] * (actions.ndim - 1))
            actions = np.where(by_teacher, actions, self._student_actions(obs, allowed))
        if isinstance(self.action_space, spaces.Box):
            return actions.reshape(-1, *self.action_space.shape)
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        epsilon = np.where(teacher_acts, self.teacher_eps, 0.0)
        return mix_random_actions(actions, n_actions, epsilon, self._rollout_rng, allowed)

    def _policy_actions(self, obs: Any, rng: np.random.Generator, allowed: np.ndarray | None = None) -> np.ndarray:
        answers = actor_critic_answers(self.policy, obs_as_tensor(obs, self.device), with_values=False)
        if not self._student_rule().sampled:
            assert isinstance(self.action_space, spaces.Box)
            return unscale_actions(answers.scaled_actions(self.action_space).detach().cpu().numpy(), self.action_space)
        if allowed is not None:
            answers = answers.masked(allowed)
        return answers.sample([rng] * n_observations(obs), self.action_space)

    def _prepare_updates(self) -> None:
        super()._prepare_updates()
        if self._n_updates == 0 and self.verbose > 0 and isinstance(self.action_space, spaces.Discrete):
            with unchanged_randomness():
                answers = self.replay_buffer.sample(1_000).answers
            print(describe_temperature(answers, self.student.loss.temperature))
        if self.weight_bits is not None:
            if self._update_precision(lambda: self.replay_buffer.sample_observations(1_000, env=self._normalizer)):
                forget_best(self._callbacks, self._heading)
            if self.transition_share is not None:
                self._record("quantized", self.transition_share)

    def student_loss(self, student: Student, samples: DistillationSamples) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        teacher, answers = samples.answers, student.answer(samples.observations)
        terms = {"actor_loss": student.loss(teacher, answers)}
        distill_losses = terms["actor_loss"]
        if teacher.values is not None:
            assert answers.values is not None
            terms["value_loss"] = F.mse_loss(answers.values, teacher.values, reduction="none")
            distill_losses = distill_losses + self.value_coef * terms["value_loss"]
        terms |= {"distill_loss": distill_losses, "entropy": entropies(answers)}
        metrics = {name: term.mean().detach() for name, term in terms.items()}
        metrics |= compare_actions(teacher, answers, self.action_space)
        return distill_losses - self.ent_coef * terms["entropy"], metrics

    def stored_bytes(self) -> int:
        """
        :return: size in bytes of what a device must hold to act: packed integers, step sizes, biases, and the mean and
            the scale of VecNormalize if the environment has them; float32 for layers that are not quantized, and for
            all layers until the final precision is reached
        """
        return load_teacher(self, device="cpu").n_bytes

    @classmethod
    def load(cls: type[SelfQPD], path: Any, *args: Any, **kwargs: Any) -> SelfQPD:
        """
        As ``QuantizingMixin.load``.

        :param path: path to the file (or a file-like)
        :param args: as SB3's ``load``: env, device, custom_objects
        :param kwargs: extra arguments to change the model when loading
        :return: new model instance with loaded parameters
        :raises ValueError: bits are out of range, or differ from those of a student that is quantized already
        """
        # With bits, the choice of a run at full precision does not hold.
        kwargs = {"compile_update": None, **kwargs} if kwargs.keys() & set(BITS) else kwargs
        return super().load(path, *args, **kwargs)
