"""Policy Distillation (Rusu et al. 2015, https://arxiv.org/abs/1511.06295)."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.checks import check_discrete, check_teacher
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.sources import find_zoo_teacher
from sb3_distill.base.callbacks import TeacherReferenceCallback, UpdateProgressBar, list_callbacks
from sb3_distill.buffers.distillation import DistillationBuffer, DistillationSamples
from sb3_distill.buffers.recorded_env import RecordedVecEnv, read_or_record
from sb3_distill.buffers.recordings import RecordingError, RecordingWriter
from sb3_distill.common.losses import DistillationLoss
from sb3_distill.common.utils import check_device, compile_or_same, unknown_choice
from sb3_distill.envs.inspection import env_arguments_of, env_id_of, frame_channels_of
from sb3_distill.envs.native import native_or_same
from sb3_distill.evaluation.players import mix_random_actions
from sb3_distill.networks.extractors import set_train_dtype
from sb3_distill.networks.policies import STUDENT_POLICIES, StudentPolicy

SelfPolicyDistillation = TypeVar("SelfPolicyDistillation", bound="PolicyDistillation")

RolloutPolicy = str | Callable[[float], float]
TeacherSource = str | Path | BaseAlgorithm | Teacher


def teacher_share_schedule(rollout_policy: RolloutPolicy) -> Callable[[float], float]:
    """
    :param rollout_policy: "teacher", "student", "linear", or a function of the remaining progress (from 1 to 0)
    :return: probability that the teacher acts, as a function of the remaining progress
    :raises ValueError: unknown name
    """
    if callable(rollout_policy):
        return rollout_policy
    schedules: dict[str, Callable[[float], float]] = {
        "teacher": lambda _: 1.0,
        "student": lambda _: 0.0,
        "linear": lambda progress_remaining: max(progress_remaining, 0.0),
    }
    if rollout_policy not in schedules:
        raise ValueError(unknown_choice("rollout_policy", rollout_policy, schedules) + " A function is welcome too.")
    return schedules[rollout_policy]


class PolicyDistillation(OffPolicyAlgorithm):
    """
    Policy Distillation: a student network learns, by supervised regression, what a trained teacher would do.

    Paper: https://arxiv.org/abs/1511.06295 (Rusu et al. 2015). The teacher plays, its output for every visited
    observation is stored in a replay memory, and the student is fitted to minibatches of it. With
    ``rollout_policy="student"`` the student plays and the teacher labels (Actor-Mimic; DAgger).

    :param policy: The student's policy (MlpPolicy, CnnPolicy, MultiInputPolicy, Net1Policy ... Net5Policy,
        MaxPoolCnnPolicy)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param teacher: The trained agent: an SB3 model, a path to its zip or run folder, ``"zoo:dqn/CartPole-v1"``,
        ``"hub:sb3/dqn-CartPole-v1"``, or a loaded ``Teacher``. None takes the Zoo's own agent for the environment
        (see ``find_zoo_teacher``).
    :param learning_rate: learning rate, or a schedule of it (a function of the remaining progress, from 1 to 0)
    :param buffer_size: size of the replay memory, in observations (10 hours of play in the paper)
    :param learning_starts: how many observations to collect before the first update; those of image students also
        give the pixel statistics
    :param batch_size: Minibatch size for each update
    :param train_freq: Update the student every ``train_freq`` steps (of each environment)
    :param gradient_steps: How many updates to do then; ``-1`` for as many as steps were collected
    :param loss: "kl", "reverse_kl", "nll" or "mse" (see ``sb3_distill.common.losses``)
    :param temperature: divides the teacher's output in the KL losses; below 1 sharpens
    :param student_temperature: divides the student's output in the KL losses: 1 in Rusu et al., ``temperature`` in
        Actor-Mimic and in Sun & Fazli 2019
    :param rollout_policy: who acts: "teacher", "student", "linear" (from the teacher to the student over the run), or
        a function from the remaining progress to the probability that the teacher acts
    :param teacher_eps: share of uniformly random actions while the teacher acts
    :param student_eps: share of uniformly random actions while the student acts, in training and in
        ``predict(deterministic=False)``
    :param n_teacher_episodes: how many episodes the teacher plays before training for the score that later ones are
        compared with (0: none)
    :param allow_env_mismatch: accept a teacher that was trained on an environment with another id
    :param recording: folder of the teacher's play: read instead of playing where it exists, written otherwise, so that
        the next student of this teacher needs no game (``rollout_policy="teacher"`` only)
    :param max_grad_norm: The maximum value for the gradient clipping (None, as in the paper: no clipping)
    :param bf16: compute the features of image students in bfloat16 while training; None does so where the processor
        has instructions for it. Losses, output layers and acting are float32 always.
    :param compile_update: compile the loss and its gradient with ``torch.compile``: half a minute at the start, up to
        twice the speed afterwards. Goes on without where no C++ compiler is there.
    :param stats_window_size: Window size for the rollout logging, specifying the number of episodes to average
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: an argument, or a teacher that does not fit the environment
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {**STUDENT_POLICIES}
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete,)
    # What the memory keeps of the teacher for each observation
    _teacher_outputs: ClassVar[str] = "logits"
    policy: StudentPolicy
    replay_buffer: DistillationBuffer

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
        temperature: float = 0.01,
        student_temperature: float = 1.0,
        rollout_policy: RolloutPolicy = "teacher",
        teacher_eps: float = 0.05,
        student_eps: float = 0.05,
        n_teacher_episodes: int = 10,
        allow_env_mismatch: bool = False,
        recording: str | Path | None = None,
        max_grad_norm: float | None = None,
        bf16: bool | None = None,
        compile_update: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
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
            replay_buffer_class=DistillationBuffer,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            sde_support=False,
            supported_action_spaces=self.action_spaces,
            support_multi_env=True,
        )
        self.teacher: TeacherSource | None = teacher
        self.teacher_source: str | None = None
        self.teacher_sha256: str | None = None
        self.loss = loss
        self.temperature = temperature
        self.student_temperature = student_temperature
        self.rollout_policy = rollout_policy
        self.teacher_eps = teacher_eps
        self.student_eps = student_eps
        self.n_teacher_episodes = n_teacher_episodes
        self.allow_env_mismatch = allow_env_mismatch
        self.recording = recording
        self._recorder: RecordingWriter | None = None
        self.max_grad_norm = max_grad_norm
        self.bf16 = bf16
        self.compile_update = compile_update
        self._progress_bar: UpdateProgressBar | None = None

        if _init_setup_model:
            self._setup_model()
            if self.env is not None:
                self._setup_teacher()

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(unknown_choice("policy", policy_name, self.policy_aliases))
        return super()._get_policy_from_name(policy_name)

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return native_or_same(super()._wrap_env(env, verbose, monitor_wrapper), verbose)

    def _setup_model(self) -> None:
        for name in ("teacher_eps", "student_eps"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability and must lie in [0, 1], not {getattr(self, name)!r}.")
        self.distillation_loss = self._make_loss()
        self._teacher_share = teacher_share_schedule(self.rollout_policy)
        self.replay_buffer_kwargs = self._buffer_kwargs()
        super()._setup_model()
        self._n_collected = 0
        self._rollout_rng = np.random.default_rng(self.seed)
        set_train_dtype(self.policy, self.device, self.bf16)
        self._forward_loss = compile_or_same(self._eager_loss) if self.compile_update else self._eager_loss

    def _make_loss(self) -> DistillationLoss:
        return DistillationLoss(self.loss, self.temperature, self.student_temperature)

    def _buffer_kwargs(self) -> dict[str, Any]:
        return {"frame_channels": 1 if self.env is None else frame_channels_of(self.env)}

    @classmethod
    def of_policy(
        cls,
        policy: str | type[StudentPolicy],
        policy_kwargs: dict[str, Any],
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
    ) -> "PolicyDistillation":
        """
        A student without an environment, such as one that has been trained by other means.

        :param policy: name or class of its policy
        :param policy_kwargs: arguments of the policy
        :param observation_space: Observation space
        :param action_space: Action space
        :param device: Device (cpu, cuda, ...)
        :return: a model that predicts, saves, and learns once it has ``set_env``
        """
        model = cls(policy, None, policy_kwargs=policy_kwargs, device=device, _init_setup_model=False)  # type: ignore[arg-type]
        model.observation_space, model.action_space, model.n_envs = observation_space, action_space, 1
        model._setup_model()
        return model

    def _setup_teacher(self) -> Teacher:
        """Load the teacher if it is named only, and check that it fits the environment."""
        assert self.env is not None
        env_id = env_id_of(self.env)
        if not isinstance(self.teacher, Teacher):
            if self.teacher is None and self.teacher_source is None and self.teacher_sha256 is not None:
                raise ValueError("This student's teacher was a model in memory, not a file: pass teacher= to go on.")
            source = self.teacher or self.teacher_source or self._find_teacher(env_id)
            self.teacher = load_teacher(source, device=self.device)
        teacher = self.teacher.to(self.device)
        self._check_teacher(teacher, env_id)
        if self.teacher_sha256 not in (None, teacher.sha256):
            warnings.warn(
                f"This student learned from a teacher with sha256 {self.teacher_sha256}; it goes on with another one: "
                f"{teacher.source}, sha256 {teacher.sha256}."
            )
        self.teacher_source = teacher.source if teacher.n_bytes is not None else None
        self.teacher_sha256 = teacher.sha256
        return teacher

    def _find_teacher(self, env_id: str | None) -> str | Path:
        return find_zoo_teacher(env_id)

    def _check_teacher(self, teacher: Teacher, env_id: str | None) -> None:
        assert self.env is not None
        check_discrete(teacher, self.env)
        check_teacher(teacher, self.env, env_id, self.allow_env_mismatch)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._teacher = self._setup_teacher()
        if self.recording is not None:
            start = 0 if reset_num_timesteps else self.num_timesteps
            self._recorder = self._open_recording(Path(self.recording), start, total_timesteps)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _open_recording(self, folder: Path, start: int, total_timesteps: int) -> RecordingWriter | None:
        """Read the teacher's play where it is recorded already, from now on; else record it."""
        assert self.env is not None
        if self.rollout_policy != "teacher" or self._vec_normalize_env is not None:
            raise RecordingError(
                "recording= is the teacher's own play: it needs rollout_policy='teacher', and no VecNormalize around "
                "the student's environment, whose statistics would depend on it."
            )
        settings = {
            "teacher": self._teacher.sha256,
            "env_id": env_id_of(self.env),
            # As text: they can be objects of any kind.
            "env_kwargs": {name: repr(value) for name, value in env_arguments_of(self.env).items()},
            "observation_space": str(self.observation_space),
            "teacher_eps": self.teacher_eps,
            "outputs": self._teacher_outputs,
        }
        self.env, recorder = read_or_record(folder, settings, self.env, start, total_timesteps)
        return recorder

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        callbacks = list_callbacks(callback)
        known_score, n_episodes = None, self.n_teacher_episodes
        if isinstance(self.env, RecordedVecEnv):
            known_score, n_episodes = self.env.recording.teacher_score, 0
        self._reference = TeacherReferenceCallback(
            self._teacher, self.student_eps, n_episodes, callbacks, known_score, self.verbose
        )
        return self._with_progress_bar([*callbacks, self._reference], progress_bar)

    def _with_progress_bar(self, callbacks: list[BaseCallback], progress_bar: bool) -> BaseCallback:
        self._progress_bar = UpdateProgressBar() if progress_bar else None
        callbacks = [*callbacks, self._progress_bar] if self._progress_bar is not None else callbacks
        return OffPolicyAlgorithm._init_callback(self, CallbackList(callbacks))

    def learn(
        self: SelfPolicyDistillation,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "PD",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPolicyDistillation:
        try:
            super().learn(
                total_timesteps=total_timesteps,
                callback=callback,
                log_interval=log_interval,
                tb_log_name=tb_log_name,
                reset_num_timesteps=reset_num_timesteps,
                progress_bar=progress_bar,
            )
            # A callback may have stopped the run.
            if self._recorder is not None and self.num_timesteps >= self._total_timesteps:
                self._recorder.close(self._reference.score)
                self._recorder = None
        finally:
            if self._recorder is not None:
                self._recorder.abort()
                self._recorder = None
            if isinstance(self.env, RecordedVecEnv):
                self.env = self.env.venv
        return self

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.env, RecordedVecEnv):
            self._teacher_logits, actions = self.env.answers()
            return actions, actions
        return self._act()

    def _act(self) -> tuple[np.ndarray, np.ndarray]:
        """Ask the teacher, and play its action or the student's."""
        # The teacher normalises observations itself, if it does at all.
        raw_obs = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        teacher_logits = self._teacher.logits(obs_as_tensor(raw_obs, self.device)).cpu().numpy()  # type: ignore[arg-type]
        self._teacher_logits = teacher_logits
        actions = teacher_logits.argmax(axis=1)
        teacher_acts = self._rollout_rng.random(len(actions)) < self._teacher_share(self._current_progress_remaining)
        if not teacher_acts.all():
            assert self._last_obs is not None
            student_actions, _ = self.policy.predict(self._last_obs, deterministic=True)
            actions = np.where(teacher_acts, actions, student_actions)
        epsilon = np.where(teacher_acts, self.teacher_eps, self.student_eps)
        actions = mix_random_actions(actions, self._n_actions_of(self._last_obs), epsilon, self._rollout_rng)
        return actions, actions

    def _n_actions_of(self, obs: Any) -> int | np.ndarray:
        """Number of actions that can be taken: one for all observations, or one for each."""
        return int(self.action_space.n)  # type: ignore[attr-defined]

    def _store_transition(  # type: ignore[override]
        self,
        replay_buffer: DistillationBuffer,
        buffer_action: np.ndarray,
        new_obs: Any,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        # The loss needs no rewards and no next observations.
        raw_obs = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        replay_buffer.add(raw_obs, self._teacher_logits)  # type: ignore[arg-type]
        self._n_collected += self.n_envs
        if self._recorder is not None:
            self._recorder.add(raw_obs, self._teacher_logits, buffer_action, reward, dones, infos)  # type: ignore[arg-type]
        self._last_obs = new_obs
        if self._vec_normalize_env is not None:
            self._last_original_obs = self._vec_normalize_env.get_original_obs()

    @property
    def _n_observations(self) -> int:
        """Observations that the memory has been given: a resumed run begins with none, unless a memory was loaded."""
        return max(self._n_collected, self.replay_buffer.size() * self.n_envs)

    def train(self, gradient_steps: int, batch_size: int = 32) -> None:
        if self._n_observations < self.learning_starts:
            return
        self._prepare_updates()
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        # Update learning rate according to schedule
        self._update_learning_rate(self.policy.optimizer)

        losses, records = [], []
        for step in range(gradient_steps):
            if self._progress_bar is not None:
                self._progress_bar.show_updates(step + 1, gradient_steps)
            samples = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            loss, metrics = self._forward_loss(samples)

            # Optimize the policy
            self.policy.optimizer.zero_grad()
            loss.backward()
            if self.max_grad_norm is not None:
                th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()

            losses.append(loss.detach())
            records.append(metrics)

        # Increase update counter
        self._n_updates += gradient_steps

        mean_loss = th.stack(losses).mean().item()
        if not np.isfinite(mean_loss):
            raise ValueError(f"The loss became {mean_loss} after {self._n_updates} updates: lower learning_rate.")
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", mean_loss)
        for name in records[0]:
            self.logger.record(f"train/{name}", th.stack([record[name] for record in records]).mean().item())

    def _eager_loss(self, samples: DistillationSamples) -> tuple[th.Tensor, dict[str, th.Tensor]]:
        """The minibatch's loss, and what is logged of it: the loss's terms, the share of equal preferred actions."""
        student_logits = self.policy.logits(samples.observations)
        same_action = student_logits.argmax(dim=1) == samples.teacher_logits.argmax(dim=1)
        loss = self.distillation_loss(samples.teacher_logits, student_logits)
        return loss, {"distill_loss": loss.detach(), "agreement": same_action.float().mean()}

    def _prepare_updates(self) -> None:
        """What comes before updates, as soon as the memory holds enough for them."""
        self._fit_frame_scalers()

    def _fit_frame_scalers(self) -> None:
        """Estimate the pixel statistics of image students from the first data, before the first update."""
        if self._n_updates == 0:
            self.policy.fit_frame_scalers(self.replay_buffer.sample(1_000).observations)

    def dump_logs(self) -> None:
        self._reference.log_rollout()
        super().dump_logs()

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Get the student's action; with ``deterministic=False`` a share ``student_eps`` of them is uniformly random
        (Rusu et al. 2015 evaluate with 5%).

        :param observation: the input observation
        :param state: unused (recurrent policies only)
        :param episode_start: unused (recurrent policies only)
        :param deterministic: Whether or not to return deterministic actions
        :return: the model's action and the next state
        """
        actions, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            is_random = np.random.random_sample(np.shape(actions)) < self.student_eps
            random_actions = np.random.randint(self._n_actions_of(observation), size=np.shape(actions))
            actions = np.where(is_random, random_actions, actions)
        return actions, state

    def _excluded_save_params(self) -> list[str]:
        # The student alone is saved: neither the teacher nor what belongs to a run under way.
        return [
            *super()._excluded_save_params(),
            "teacher",
            "_teacher",
            "_teacher_logits",
            "_teacher_share",
            "_reference",
            "recording",
            "_recorder",
            "_progress_bar",
            "_rollout_rng",
            "_n_collected",
            "_forward_loss",
            "distillation_loss",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
