"""
The pipelines of ``time_to_teacher``. All learn from one recording of the teacher's play, except where the student acts,
with the same layers and the same pixel statistics; ours and plain SB3 also with the same initialisation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.crossing import CpuClock
from benchmarks.plain_sb3 import PlainDistillation
from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.rebuild.classes import CLASSES
from sb3_distill.buffers.recorded_play import RecordedPlay
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.answers import Answers
from sb3_distill.common.files import default_config
from sb3_distill.common.schedules import read_schedule
from sb3_distill.common.temperature import AUTO, choose_temperature
from sb3_distill.envs.recipe import is_atari
from sb3_distill.evaluation.environments import find_env_id, make_env_of
from sb3_distill.networks.policies import STUDENT_POLICIES

POLICIES = {"maxpool": "MaxPoolCnnPolicy", **{f"net{number}": f"Net{number}Policy" for number in range(1, 6)}}
# Read by the Zoo, not by the algorithm
ZOO_KEYS = ("env_wrapper", "frame_stack", "n_envs", "n_timesteps", "normalize", "policy", "teacher", "vec_env_wrapper")
# Called between updates with the student, the teacher's steps so far and the updates so far; False: stop
OnProgress = Callable[[Any, int, int], bool]
# The student, the teacher's steps and the updates at the end of a training
End = tuple[Any, int, int]
# A whole training, whose seconds the clock counts
Learn = Callable[[OnProgress, CpuClock], End]


@dataclass
class Task:
    """
    What a run of a pipeline learns.

    :param env_id: the environment
    :param teacher: the teacher's run folder or zip
    :param student: a key of ``POLICIES``, or "default": the policy of the hyperparameters
    :param n_timesteps: steps of the teacher
    :param recording: folder of the teacher's recorded play
    :param seed: seed of the student
    :param params: hyperparameters of ours in place of the defaults
    """

    env_id: str
    teacher: str
    student: str
    n_timesteps: int
    recording: Path
    seed: int
    params: dict[str, Any] = field(default_factory=dict)

    def section(self) -> dict[str, Any]:
        """The hyperparameters that the Zoo reads for the environment from ``hyperparams/pd.yml``."""
        config = yaml.safe_load(default_config("pd").read_text())
        return dict(config.get(self.env_id) or config["atari" if is_atari(self.env_id) else "default"])

    def hyperparams(self) -> dict[str, Any]:
        """The arguments of ``PolicyDistillation``. Where ``params`` do not say who acts, it is the recorded teacher."""
        own = {name: value for name, value in self.section().items() if name not in ZOO_KEYS}
        if self.student != "default":
            # Its own layers, but the optimizer of the file
            own["policy_kwargs"] = {k: v for k, v in own.get("policy_kwargs", {}).items() if k != "net_arch"}
        own |= {"allow_env_mismatch": True, "rollout_policy": "teacher", **self.params, "n_teacher_episodes": 0}
        if isinstance(own.get("learning_rate"), str):
            # The Zoo's lin_1e-3
            own["learning_rate"] = read_schedule(own["learning_rate"])
        optimizer = own.get("policy_kwargs", {}).get("optimizer_class")
        if isinstance(optimizer, str):
            own["policy_kwargs"] = {**own["policy_kwargs"], "optimizer_class": CLASSES["optimizer_class"][optimizer]}
        return own

    def policy(self) -> str:
        """Name of the student's policy."""
        return self.section()["policy"] if self.student == "default" else POLICIES[self.student]

    def make_env(self, n_envs: int | None = None) -> VecEnv:
        """The environment of the teacher's run, with as many copies as the hyperparameters say."""
        teacher = load_teacher(self.teacher, device="cpu")
        find_env_id(teacher, self.env_id)
        return make_env_of(teacher, self.env_id, n_envs or self.section().get("n_envs", 1))


def record(task: Task) -> None:
    """Record the teacher's play, without updates of a student."""
    arguments = {**task.hyperparams(), "learning_starts": task.n_timesteps + 1, "buffer_size": 1_000}
    arguments |= {"rollout_policy": "teacher", "recording": task.recording, "compile_update": False}
    arguments |= {"seed": task.seed, "device": "cpu"}
    PolicyDistillation(task.policy(), task.make_env(), task.teacher, **arguments).learn(task.n_timesteps)


class ProgressCallback(BaseCallback):
    """
    Reports after every rollout and its updates.

    :param clock: counts rollouts as play; None: they are read from a recording, which is training
    """

    def __init__(self, on_progress: OnProgress, clock: CpuClock | None = None) -> None:
        super().__init__()
        self.on_progress = on_progress
        self.clock = clock
        self.goes_on = True

    def _on_rollout_start(self) -> None:
        self.goes_on = self.on_progress(self.model, self.num_timesteps, self.model._n_updates)
        if self.clock:
            self.clock.play()

    def _on_rollout_end(self) -> None:
        if self.clock:
            self.clock.go()

    def _on_step(self) -> bool:
        return self.goes_on


def learn_sb3(model: Any, task: Task, callback: ProgressCallback) -> End:
    """Learn for the task's steps."""
    model.learn(task.n_timesteps, callback)
    return model, model.num_timesteps, model._n_updates


def make_ours(task: Task) -> Learn:
    """Our pipeline."""
    hyperparams = task.hyperparams() | {"seed": task.seed, "device": "cpu"}
    plays = hyperparams["rollout_policy"] != "teacher"
    if not plays:
        hyperparams["recording"] = task.recording
    model = PolicyDistillation(task.policy(), task.make_env(), task.teacher, **hyperparams)
    return lambda on_progress, clock: learn_sb3(model, task, ProgressCallback(on_progress, clock if plays else None))


class RecordedPlainDistillation(PlainDistillation):
    """SB3's loop on recorded steps: the environment gives the recorded observations, whatever is done in it."""

    temperature: Any

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        play = self.env
        assert isinstance(play, RecordedVecEnv)
        answers = play.play.recording.answers(play.play.row)
        self._q_values = answers.preferences
        actions = np.array(play.play.recording.columns["actions"][play.play.row])
        return actions, actions

    def train(self, gradient_steps: int, batch_size: int) -> None:
        if self._n_updates == 0:
            obs, preferences = self.replay_buffer.sample_labelled(1_000)
            # The pixel statistics that our students have, and their temperature
            self.policy.fit_frame_scalers(obs)  # type: ignore[operator]
            if self.temperature == AUTO:
                assert isinstance(self.env, RecordedVecEnv)
                has_values = self.env.play.recording.answers(0).q_values is not None
                self.temperature = choose_temperature(
                    Answers(q_values=preferences) if has_values else Answers(log_probs=preferences)
                )
        super().train(gradient_steps, batch_size)


class RecordedVecEnv(VecEnv):
    """A recording as a vector environment."""

    def __init__(self, recording: Recording, env: VecEnv) -> None:
        self.play = RecordedPlay(recording)
        self.render_mode = None
        super().__init__(recording.n_envs, env.observation_space, env.action_space)

    def reset(self) -> Any:
        return self.play.observations(self.play.row)

    def step_async(self, actions: np.ndarray) -> None:
        pass

    def step_wait(self) -> Any:
        record, obs = self.play.step()
        return obs, record.rewards, record.dones, record.infos

    def close(self) -> None:
        pass

    def seed(self, seed: int | None = None) -> list[None]:
        return [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def make_plain(task: Task) -> Learn:
    """SB3's own loop and replay buffer, with our network and the hyperparameters that both know."""
    hyperparams = task.hyperparams()
    names = ("learning_rate", "buffer_size", "learning_starts", "batch_size", "train_freq", "gradient_steps")
    policy_kwargs = dict(hyperparams.get("policy_kwargs", {}))
    # Our optimizers are not SB3's, whose Adam is not fused
    policy_kwargs |= {"optimizer_class": th.optim.Adam, "optimizer_kwargs": {"fused": False}}
    arguments = {name: hyperparams[name] for name in (*names, "temperature") if name in hyperparams}
    # A larger memory than there are steps is never filled; SB3 would allocate it.
    arguments["buffer_size"] = min(arguments["buffer_size"], task.n_timesteps)
    policy: Any = STUDENT_POLICIES[task.policy()]
    env = RecordedVecEnv(Recording(task.recording), task.make_env(1))
    model = RecordedPlainDistillation(
        env, None, policy=policy, policy_kwargs=policy_kwargs, seed=task.seed, device="cpu", **arguments
    )
    return lambda on_progress, clock: learn_sb3(model, task, ProgressCallback(on_progress))
