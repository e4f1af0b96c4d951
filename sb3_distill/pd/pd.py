"""Policy Distillation (Rusu et al. 2015, https://arxiv.org/abs/1511.06295)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_distill.agents.checks import check_discrete, check_masked_loss
from sb3_distill.base.acting import EpsilonGreedyMixin
from sb3_distill.base.augmentation import AugmentingMixin
from sb3_distill.base.distillation import DistillationAlgorithm
from sb3_distill.base.several.siblings import SeveralStudentsMixin
from sb3_distill.base.several.spec import StudentsArgument
from sb3_distill.base.students import Student
from sb3_distill.base.teaching import TeacherSource
from sb3_distill.buffers.distillation import DistillationSamples
from sb3_distill.common.losses import DistillationLoss, compare_actions
from sb3_distill.common.schedules import RolloutPolicy
from sb3_distill.common.temperature import AUTO, settle_temperature
from sb3_distill.common.utils import unchanged_randomness
from sb3_distill.networks.policies import STUDENT_POLICIES, StudentPolicy

SelfPolicyDistillation = TypeVar("SelfPolicyDistillation", bound="PolicyDistillation")


class PolicyDistillation(AugmentingMixin, SeveralStudentsMixin, EpsilonGreedyMixin, DistillationAlgorithm):
    """
    Policy Distillation: a student network learns a trained teacher's outputs by supervised regression.

    Paper: https://arxiv.org/abs/1511.06295 (Rusu et al. 2015). The teacher plays, its output for every visited
    observation is stored in a replay buffer, and the student is fitted to minibatches from it. With
    ``rollout_policy="student"``, the student plays and the teacher only labels the observations (Actor-Mimic; DAgger).

    :param policy: The student's policy (MlpPolicy, CnnPolicy, MultiInputPolicy, Net1Policy ... Net5Policy,
        MaxPoolCnnPolicy)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param teacher: The trained agent: an SB3 model, a path to its zip or run folder, ``"zoo:dqn/CartPole-v1"``,
        ``"hub:sb3/dqn-CartPole-v1"``, an ONNX file, an object of your own, or a loaded ``Teacher`` (see
        ``load_teacher``). None: the Zoo's agent for the environment (see ``find_zoo_teacher``).
    :param learning_rate: learning rate, or a schedule of it (a function of the remaining progress, from 1 to 0)
    :param buffer_size: size of the replay buffer, in observations (10 hours of play in the paper)
    :param learning_starts: how many observations to collect before the first update; image students also estimate
        their pixel statistics from these observations
    :param batch_size: Minibatch size for each update
    :param train_freq: Update the student every ``train_freq`` steps (of each environment)
    :param gradient_steps: How many updates to do after each rollout; ``-1``: as many as steps done during the rollout
    :param loss: "kl", "reverse_kl", "nll" or "mse" (see ``sb3_distill.common.losses``)
    :param temperature: divides the teacher's output in the KL losses; below 1 sharpens (Rusu et al.: 0.01). ``"auto"``
        chooses it from the first observations (see ``choose_temperature``): the number is then in the attribute
        ``temperature``.
    :param student_temperature: divides the student's output in the KL losses: 1 in Rusu et al., ``temperature`` in
        Actor-Mimic and in Sun & Fazli 2019
    :param rollout_policy: who acts: "teacher", "student", "linear" (from the teacher to the student over the run), or
        a function from the remaining progress to the probability that the teacher acts
    :param teacher_eps: share of uniformly random actions while the teacher acts
    :param student_eps: share of uniformly random actions while the student acts, in training and in
        ``predict(deterministic=False)``
    :param student_exploration: how the student acts while it collects steps: "epsilon_greedy" (greedily, with
        ``student_eps`` random actions), or "softmax" (it samples softmax(outputs / ``student_temperature``), without
        further random actions: Actor-Mimic)
    :param n_teacher_episodes: how many episodes the teacher plays before training, to measure the score with which the
        student's scores are compared (0: none)
    :param allow_env_mismatch: accept a teacher that was trained on an environment with another id
    :param teacher_keys: the keys of a Dict observation that the teacher sees: of one key its part, of several a Dict of
        their parts; None: all of them
    :param student_keys: those that the student sees. Its own space is that of this part.
    :param recording: folder with a recording of the teacher's play. If it does not exist, this run writes it; if it
        exists, this run reads it instead of playing (``rollout_policy="teacher"`` only).
    :param init_from_teacher: whether the convolutions of an image student begin with the largest filters of its teacher
        (where both have the same kernels and strides); else all layers begin at random, as in the paper
    :param students: further students, which learn from the same minibatches: a dictionary from names to students. A
        student is the name of a policy, or a dictionary with any of ``policy``, ``policy_kwargs``, ``learning_rate``,
        ``loss``, ``temperature``, ``student_temperature``, ``init_from_teacher``, ``max_grad_norm``, ``bf16`` and
        ``compile_update``. Other entries are those of the first student, which the other arguments describe (but its
        ``policy_kwargs`` go with its own policy alone). A list of names of policies is accepted too. When students act,
        student i acts in the environments i, i + number of students, ...
    :param max_grad_norm: The maximum value for the gradient clipping (None, as in the paper: no clipping)
    :param bf16: compute the features extractor of image students in bfloat16 during training; None: do so if the
        device multiplies bfloat16 in hardware at the first ``learn``; the choice is then in this attribute. Losses,
        output layers and acting always use float32.
    :param compile_update: compile the loss and its gradient with ``torch.compile``, which takes half a minute at the
        start. None: do so if the first ``learn`` plans enough updates (see ``break_even``); the choice is then in this
        attribute. Where compiling fails, such as without a C++ compiler, a warning says so.
    :param stats_window_size: Window size for the rollout logging, specifying the number of episodes to average
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run
    :param teacher_kwargs: what the teacher's ONNX file does not say of itself, such as ``{"answers": "mean"}``
    :param augmentation: what the student sees of the observations that it learns from: "none", as they are; "shift",
        images moved by up to ``augmentation_strength`` pixels at random, borders repeated; "adversarial",
        observations moved to where its loss is larger. The teacher's answers are those to the observation itself.
    :param augmentation_strength: pixels of a shift (None: 2), or by how much an entry changes at most, as a share of
        its range (None: 0.01): the bounds of the space, where it has none (or VecNormalize scales it) the range in the
        minibatch, widened by half of it at both ends
    :param augmentation_steps: steps along the gradient's sign of "adversarial": 1 is the fast gradient sign method,
        more are projected gradient steps. Each costs about as much as an update that is not compiled.
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: an argument is invalid, or the teacher does not fit the environment
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**STUDENT_POLICIES}
    run_attributes: ClassVar[tuple[str, ...]] = (*SeveralStudentsMixin.run_attributes, "temperature")
    student_state: ClassVar[tuple[str, ...]] = ("temperature", "bf16", "compile_update")
    student_entries: ClassVar[tuple[str, ...]] = (
        "policy",
        "policy_kwargs",
        "learning_rate",
        "loss",
        "temperature",
        "student_temperature",
        "init_from_teacher",
        "max_grad_norm",
        "bf16",
        "compile_update",
    )
    policy: StudentPolicy

    def __init__(
        self,
        policy: str | type[StudentPolicy],
        env: GymEnv | str,
        teacher: TeacherSource | None = None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 540_000,
        learning_starts: int = 1_000,
        batch_size: int = 32,
        train_freq: int | tuple[int, str] = 4,
        gradient_steps: int = 1,
        loss: str = "kl",
        temperature: float | str = AUTO,
        student_temperature: float = 1.0,
        rollout_policy: RolloutPolicy = "teacher",
        teacher_eps: float = 0.05,
        student_eps: float = 0.05,
        student_exploration: str = "epsilon_greedy",
        n_teacher_episodes: int = 10,
        allow_env_mismatch: bool = False,
        teacher_keys: str | Sequence[str] | None = None,
        student_keys: str | Sequence[str] | None = None,
        recording: str | Path | None = None,
        init_from_teacher: bool = False,
        students: StudentsArgument | None = None,
        max_grad_norm: float | None = None,
        bf16: bool | None = None,
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
        self.loss = loss
        self.temperature = temperature
        self.student_temperature = student_temperature
        self.student_eps = student_eps
        self.student_exploration = student_exploration
        self.n_teacher_episodes = n_teacher_episodes
        self.recording = recording
        self.init_from_teacher = init_from_teacher
        self.bf16 = bf16
        self._name_students(students)

        if _init_setup_model:
            self._setup_model()
            if self.env is not None:
                self._setup_teacher()

    def _setup_model(self) -> None:
        self._check_acting()
        super()._setup_model()

    def _make_student(self) -> Student:
        return Student(self.policy, self._make_loss(), self.bf16)

    def _make_loss(self) -> DistillationLoss:
        # Until there are answers from which to choose it, the temperature is not used.
        temperature = 1.0 if self.temperature == AUTO else self.temperature
        return DistillationLoss(self.loss, temperature, self.student_temperature)  # type: ignore[arg-type]

    def _prepare_updates(self) -> None:
        super()._prepare_updates()
        describes = self._n_updates == 0 and self.verbose > 0 and self.student.loss.has_temperature
        if describes or self.temperature == AUTO:
            # The minibatches do not depend on it.
            with unchanged_randomness():
                answers = self.replay_buffer.sample(1_000).answers
            self.temperature = settle_temperature(self.temperature, answers, describes)
        # Also that of a run that goes on
        self.student.loss = self._make_loss()

    def _check_teacher(self, teacher: Any, env_id: str | None) -> None:
        assert self.env is not None
        check_discrete(teacher, self.env)
        check_masked_loss(teacher, [self.loss, *(entries["loss"] for entries in self.students.values())])
        super()._check_teacher(teacher, env_id)

    def student_loss(self, student: Student, samples: DistillationSamples) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        answers = student.answer(samples.observations)
        losses = student.loss(samples.answers, answers)
        return losses, {"distill_loss": losses.mean().detach(), **compare_actions(samples.answers, answers)}

    def learn(
        self: SelfPolicyDistillation,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "PD",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPolicyDistillation:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
