"""How steps are collected: the teacher or its student plays, or a recording of the teacher's play is read."""

import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import obs_as_tensor, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.base.callbacks import TeacherReferenceCallback
from sb3_distill.base.reference import PlayRule, TeacherReferences
from sb3_distill.buffers.record import StepRecord
from sb3_distill.buffers.recorded_play import RecordedPlay, read_or_record
from sb3_distill.buffers.recording_meta import RecordedScore, RecordingError, RecordingSettings
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.common.finite import check_finite
from sb3_distill.common.schedules import RolloutPolicy, teacher_share_schedule
from sb3_distill.envs.inspection import env_arguments_of, env_id_of
from sb3_distill.evaluation.players import masks_for

# From this share of a run on, the statistics of VecNormalize stay as they are. A game that goes wrong near the end
# would move them, and with them what the student sees of all games, when the learning rate is too low to follow.
_STATISTICS_SHARE = 0.5


def check_frequency(train_freq: TrainFreq, n_envs: int) -> None:
    """
    :param train_freq: how many steps or episodes are between updates
    :param n_envs: number of environments
    :raises ValueError: there are none, or episodes of several environments
    """
    if train_freq.frequency < 1:
        raise ValueError(
            f"train_freq must be at least one step or episode between updates, not {train_freq.frequency}."
        )
    if train_freq.unit == TrainFrequencyUnit.EPISODE and n_envs > 1:
        raise ValueError(
            f"train_freq counts episodes, which needs a single environment, but there are {n_envs}: count steps "
            'instead, such as train_freq=(4, "step").'
        )


def check_recordable(rollout_policy: RolloutPolicy, is_normalized: bool) -> None:
    """
    :param rollout_policy: who acts
    :param is_normalized: whether ``VecNormalize`` is around the student's environment
    :raises RecordingError: what is played depends on the student
    """
    if rollout_policy != "teacher" or is_normalized:
        raise RecordingError(
            "recording= is the teacher's own play: it needs rollout_policy='teacher', and no VecNormalize around the "
            "student's environment, whose statistics would depend on it."
        )


class CollectingAlgorithm(OffPolicyAlgorithm):
    """An off-policy algorithm whose teacher is evaluated on every observation, whoever acts."""

    # Folder of the recording, for algorithms that can record
    recording: str | Path | None = None
    # Whether the teacher is asked for its values, too
    asks_values: ClassVar[bool] = False
    # Whether actions are drawn from the distributions of teacher and student, and not greedy
    samples_actions: ClassVar[bool] = False
    rollout_policy: RolloutPolicy
    teacher_eps: float
    student_eps: float = 0.0
    # See ``ObservingMixin``
    teacher_keys: Any
    student_keys: Any

    # See ``TeacherMixin``
    n_teacher_episodes: int
    _teacher: Any = None
    _teacher_state: Any = None
    _recorder: RecordingWriter | None = None
    _recorded_play: RecordedPlay | None = None
    _reference: TeacherReferenceCallback | None = None
    # Kept from one call of learn() to the next: the teacher plays once
    _references: TeacherReferences | None = None

    def _setup_collecting(self) -> None:
        self._teacher_share = teacher_share_schedule(self.rollout_policy)
        self._rollout_rng = np.random.default_rng(self.seed)
        self._n_collected = 0
        check_frequency(self.train_freq, self.n_envs)  # type: ignore[arg-type]

    def _open_recording(self, start: int, total_timesteps: int, unfinished: dict[str, Any] | None) -> None:
        """Read the recording of the teacher's play if there is one, otherwise record it, or go on recording it."""
        assert self.env is not None and self.recording is not None
        check_recordable(self.rollout_policy, self._vec_normalize_env is not None)
        # As text: they can be objects of any kind. Of long arrays, too, every number counts.
        with np.printoptions(threshold=sys.maxsize):
            env_kwargs = {name: repr(value) for name, value in env_arguments_of(self.env).items()}
        settings = RecordingSettings(
            # A user's subclass plays as its parent does.
            algorithm=next(cls.__name__ for cls in type(self).__mro__ if cls.__module__.startswith("sb3_distill.")),
            teacher=self._teacher.sha256,
            env_id=env_id_of(self.env),
            env_kwargs=env_kwargs,
            observation_space=str(self.observation_space),
            student_keys=self.student_keys,
            teacher_keys=self.teacher_keys,
            teacher_eps=self.teacher_eps,
        )
        self._recorded_play, self._recorder = read_or_record(
            Path(self.recording),
            settings,
            self.observation_space,
            self.n_envs,
            start,
            total_timesteps,
            unfinished,
        )

    def _finish_recording(self) -> None:
        """Close the recording if it is complete. It is not if a callback has stopped the run."""
        if self._recorder is not None and self._recorder.n_steps >= max(self._total_timesteps, 1):
            score = None if self._reference is None else self._reference.rollout_scores[1]
            if score is None:
                self._recorder.close()
            else:
                assert self._references is not None
                self._recorder.close(RecordedScore(*score, **self._references.protocol(self._rollout_rules()[1])))
            self._recorder = None

    def _leave_recording(self, keep: bool) -> None:
        """Delete an incomplete recording, or keep it for a run that goes on; and stop reading."""
        if self._recorder is not None:
            self._recorder.abort(keep)
        self._recorder = self._recorded_play = None

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: Any = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """
        Play or read steps, and give each one to the replay buffer and to the recorder.

        :param env: The training environment
        :param callback: Callback that will be called at each step
        :param train_freq: how much to play
        :param replay_buffer: the replay buffer
        :param action_noise: unused
        :param learning_starts: unused: the teacher plays from the first step on
        :param log_interval: Log data every ``log_interval`` episodes
        :return: number of steps and episodes, and whether to go on
        """
        # Switch to eval mode (this affects batch norm / dropout)
        self.policy.set_training_mode(False)
        n_steps, n_episodes = 0, 0
        callback.on_rollout_start()
        while should_collect_more_steps(train_freq, n_steps, n_episodes):
            if self._recorded_play is not None and self._recorded_play.is_over:
                # The writer's last rollout was shorter than this one: train on what there is.
                break
            record, new_obs = self._play_step(env) if self._recorded_play is None else self._recorded_play.step()
            self.num_timesteps += env.num_envs
            n_steps += 1

            # Callbacks find these under the names that they have in SB3.
            actions, buffer_actions = self._clip_actions(record.actions), record.actions
            rewards, dones, infos = record.rewards, record.dones, record.infos
            num_collected_steps, num_collected_episodes = n_steps, n_episodes
            callback.update_locals(locals())
            # Only stop training if return value is False, not when it is None.
            goes_on = callback.on_step()

            # Retrieve reward and episode length if using Monitor wrapper
            self._update_info_buffer(infos, dones)
            replay_buffer.add(record)  # type: ignore[call-arg, arg-type]
            if self._recorder is not None:
                self._recorder.add(record)
            self._n_collected += env.num_envs
            self._last_obs, self._last_episode_starts = new_obs, dones
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()
            for _ in np.flatnonzero(dones):
                n_episodes += 1
                self._episode_num += 1
                if log_interval is not None and self._episode_num % log_interval == 0:
                    self.dump_logs()
            if not goes_on:
                return RolloutReturn(n_steps * env.num_envs, n_episodes, continue_training=False)
        callback.on_rollout_end()
        return RolloutReturn(n_steps * env.num_envs, n_episodes, continue_training=True)

    def _play_step(self, env: Any) -> tuple[StepRecord, Any]:
        """Ask the teacher, and play its action or the student's."""
        teacher_obs, own_obs = env.teacher_obs(self._last_obs), env.raw_obs(self._last_obs)
        check_finite("observation", teacher_obs, self.num_timesteps)
        if own_obs is not teacher_obs:
            check_finite("observation", own_obs, self.num_timesteps)
        starts = self._last_episode_starts
        assert starts is not None
        answers, self._teacher_state = self._teacher.answer(
            obs_as_tensor(teacher_obs, self.device), self._teacher_state, starts, self.asks_values
        )
        masks = masks_for(self._teacher, env)
        if masks:
            answers = answers.masked(**masks)
        teacher_acts = self._rollout_rng.random(env.num_envs) < self._teacher_share(self._current_progress_remaining)
        with th.no_grad():
            actions = self._choose_actions(answers, self._last_obs, teacher_acts)
        with self._settled_statistics():
            new_obs, rewards, dones, infos = env.step(self._clip_actions(actions))
        check_finite("reward", rewards, self.num_timesteps + env.num_envs)
        return StepRecord(own_obs, starts, answers.numpy(), actions, rewards, dones, infos), new_obs

    @contextmanager
    def _settled_statistics(self) -> Iterator[None]:
        """Steps in here do not move the statistics of VecNormalize any more once their share of the run is over."""
        statistics = self._vec_normalize_env
        if statistics is None or 1.0 - self._current_progress_remaining < _STATISTICS_SHARE:
            yield
            return
        # Only for the step: what is saved of the wrapper is as the user made it.
        moves, statistics.training = statistics.training, False
        try:
            yield
        finally:
            statistics.training = moves

    def _clip_actions(self, actions: np.ndarray) -> np.ndarray:
        """The actions as the environment takes them: draws of a Gaussian can leave the bounds."""
        if isinstance(self.action_space, spaces.Box):
            return np.clip(actions, self.action_space.low, self.action_space.high)
        return actions

    @abstractmethod
    def _choose_actions(self, answers: Any, obs: Any, teacher_acts: np.ndarray) -> np.ndarray:
        """
        Choose the actions.

        :param answers: the teacher's answers, as tensors
        :param obs: the student's observations
        :param teacher_acts: where the teacher acts, and not the student ``(n_envs,)``
        :return: the actions ``(n_envs, ...)``; continuous ones are clipped afterwards
        """

    def _student_actions(self, obs: Any, allowed: np.ndarray | None) -> np.ndarray:
        """
        :param obs: the student's observations
        :param allowed: which discrete actions its teacher may take ``(n_envs, n_actions)``; None: all of them
        :return: the student's actions, which are among these
        """
        return self._policy_actions(obs, self._rollout_rng, allowed)

    @abstractmethod
    def _policy_actions(self, obs: Any, rng: np.random.Generator, allowed: np.ndarray | None = None) -> np.ndarray:
        """
        :param obs: observations
        :param rng: draws the actions, if they are drawn
        :param allowed: which discrete actions are allowed; None: all of them
        :return: the actions of the policy
        """

    def _evaluation_rule(self, deterministic: bool) -> PlayRule:
        """How the student acts in ``predict``."""
        return PlayRule(False, 0.0) if deterministic else PlayRule(self.samples_actions, self.student_eps)

    def _student_rule(self) -> PlayRule:
        """How the student acts in training episodes."""
        return PlayRule(self.samples_actions, self.student_eps)

    def _teacher_rule(self) -> PlayRule:
        """How the teacher acts in training episodes."""
        return PlayRule(self.samples_actions, self.teacher_eps if isinstance(self.action_space, spaces.Discrete) else 0)

    def _rollout_rules(self) -> tuple[PlayRule, PlayRule]:
        """How student and teacher act in training episodes; the rule of the one who acts, if only one of them does."""
        student, teacher = self._student_rule(), self._teacher_rule()
        return {"student": (student, student), "teacher": (teacher, teacher)}.get(
            str(self.rollout_policy), (student, teacher)
        )

    def _reference_callback(self, siblings: list[BaseCallback]) -> TeacherReferenceCallback:
        """The callback that scores the teacher before training, unless a recording has the score that it would find."""
        if self._references is None:
            self._references = TeacherReferences(self.verbose, self.teacher_keys)
        # Both can be changed between two calls of learn().
        self._references.n_episodes, self._references.seed = self.n_teacher_episodes, (self.seed or 0) + 1_000_000
        recorded = None if self._recorded_play is None else self._recorded_play.recording.teacher_score
        if recorded is not None:
            assert self.env is not None
            rule = self._rollout_rules()[1]
            found = recorded.mean, recorded.std
            if recorded == RecordedScore(*found, **self._references.protocol(rule)):
                self._references.keep(self._teacher, self.env, rule, found)
        self._reference = TeacherReferenceCallback(
            self._references,
            self._teacher,
            siblings,
            self._evaluation_rule,
            self._rollout_rules(),
            self._teacher_share,
            self.verbose,
        )
        return self._reference

    def dump_logs(self) -> None:
        """As SB3's, with the last episodes as a percentage of the teacher's."""
        if self._reference is not None:
            self._reference.log_rollout()
        super().dump_logs()

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "recording",
            "_recorder",
            "_recorded_play",
            "_reference",
            "_references",
            "_rollout_rng",
            "_teacher_share",
            "_n_collected",
        ]
