"""Fits a student to a log of observations, to which its teacher answers, and measures how alike both act."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.metadata import MAX_FRAMES
from sb3_distill.base.distillation import DistillationAlgorithm
from sb3_distill.common.answers import Answers
from sb3_distill.common.losses import compare_actions
from sb3_distill.common.schedules import read_schedule
from sb3_distill.common.utils import counted, unknown_choice
from sb3_distill.envs.views import ObservationView, part_of_space, plain_keys
from sb3_distill.fit.env import LogEnv
from sb3_distill.fit.log import Episode, LogError, check_share, check_there, hold_out, read_log
from sb3_distill.pd import PolicyDistillation
from sb3_distill.qpd import QPD

ALGORITHMS: dict[str, type[DistillationAlgorithm]] = {"pd": PolicyDistillation, "qpd": QPD}
# How often the log is read, if nothing else is said
N_PASSES = 10
# What the log decides
_DECIDED = ("env", "n_teacher_episodes", "rollout_policy", "recording")


@dataclass(frozen=True)
class Fit:
    """
    A student of a log.

    :param model: the student
    :param teacher: its teacher
    :param n_episodes: episodes that were held out
    :param n_steps: their steps
    :param alike: how alike both act on them, see ``compare_actions``
    """

    model: DistillationAlgorithm
    teacher: Teacher
    n_episodes: int
    n_steps: int
    alike: Mapping[str, float]

    def describe(self) -> str:
        """
        :return: one line that says how alike student and teacher act
        """
        where = f"on {counted(self.n_steps, 'held-out step')} ({counted(self.n_episodes, 'episode')})"
        if "agreement" in self.alike:
            return f"agreement with the teacher {where}: {100 * self.alike['agreement']:.2f}%"
        return (
            f"mean distance from the teacher's actions {where}: {self.alike['action_distance']:.4f}, where an action "
            "goes from -1 to 1"
        )


def fit(
    source: str | Path,
    teacher: Any,
    algo: str | None = None,
    policy: str | None = None,
    n_timesteps: int | None = None,
    held_out: float = 0.1,
    frame_stack: int = 1,
    seed: int = 0,
    device: th.device | str = "auto",
    progress_bar: bool = False,
    **params: Any,
) -> Fit:
    """
    Fit a student to recorded observations. Nobody plays: the teacher answers in the order of each episode.

    :param source: the log, see ``read_log``
    :param teacher: the trained agent, see ``load_teacher``
    :param algo: "pd" or "qpd"; None: "qpd" for a teacher with a distribution over actions or with continuous actions
    :param policy: the student's policy; None: ``CnnPolicy`` for images, ``MultiInputPolicy`` for Dict observations,
        else ``MlpPolicy``
    :param n_timesteps: how many steps are read; None: the log ten times
    :param held_out: share of the episodes on which student and teacher are compared
    :param frame_stack: how many observations the student sees at once; the teacher sees the newest
    :param seed: seed of the student, and of which episodes are held out
    :param device: Device on which the student learns
    :param progress_bar: Display a progress bar
    :param params: further arguments of the algorithm
    :return: the student, and how alike it is to its teacher
    :raises ValueError: the log, the teacher or an argument cannot be used
    """
    check_there(source)
    check_share(held_out)
    kwargs = None if isinstance(teacher, Teacher) else params.get("teacher_kwargs")
    teacher = load_teacher(teacher, device=device, teacher_kwargs=kwargs)
    space = teacher.observation_space
    if teacher.needs_masks:
        raise LogError(f"The teacher {teacher.source} needs action masks, which a log does not have: take another one.")
    if algo is None:
        algo = "qpd" if teacher.has_distribution or isinstance(teacher.action_space, spaces.Box) else "pd"
    if algo not in ALGORITHMS:
        raise ValueError(unknown_choice("algorithm of a log", algo, ALGORITHMS))
    check_params(algo, params)
    if not 1 <= frame_stack <= MAX_FRAMES:
        raise ValueError(f"frame_stack must be a number from 1 to {MAX_FRAMES}, not {frame_stack}.")
    if frame_stack > 1 and not isinstance(space, spaces.Box):
        raise ValueError(
            f"frame_stack={frame_stack}: the teacher's observations are {space}. Its student can see several at once "
            "only of a Box, because the teacher must see the newest alone: leave out frame_stack (--frame-stack)."
        )
    episodes = read_log(source, space)
    kept, other = hold_out(episodes, held_out, np.random.default_rng(seed))
    n_kept = sum(map(len, kept))
    if policy is None:
        seen = part_of_space(space, plain_keys(params.get("student_keys"), "student_keys"), "student_keys")
        policy = "CnnPolicy" if is_image_space(seen, check_channels=False) else "MlpPolicy"
        policy = "MultiInputPolicy" if isinstance(seen, spaces.Dict) else policy
    params.setdefault("buffer_size", n_kept)
    if isinstance(params.get("learning_rate"), str):
        params["learning_rate"] = read_schedule(params["learning_rate"])
    n_timesteps = N_PASSES * n_kept if n_timesteps is None else n_timesteps
    learning_starts = params.setdefault("learning_starts", min(1_000, n_kept, n_timesteps // 10))
    if n_timesteps <= learning_starts:
        raise ValueError(
            f"n_timesteps={n_timesteps} must be more than learning_starts={learning_starts}, or the student learns "
            "nothing: read more steps, or start earlier."
        )
    model: Any = ALGORITHMS[algo](
        policy,
        _environment(kept, teacher, frame_stack),
        teacher=teacher,  # type: ignore[call-arg]
        n_teacher_episodes=0,
        rollout_policy="teacher",
        seed=seed,
        device=device,
        **params,
    )
    model.learn(n_timesteps, progress_bar=progress_bar)
    # Where it plays
    model.env_id = teacher.env_id
    if frame_stack > 1:
        model.frame_stack = frame_stack
    student = load_teacher(model, device=device)
    if len(episodes) == 1:
        # Memories and stacks go on over the cut.
        alike = compare(student, teacher, episodes, frame_stack, n_kept)
    else:
        alike = compare(student, teacher, other, frame_stack)
    return Fit(model, teacher, len(other), sum(map(len, other)), alike)


def check_params(algo: str, params: Iterable[str]) -> None:
    """
    :param algo: "pd" or "qpd"
    :param params: names of further arguments of the algorithm
    :raises ValueError: the algorithm has no such argument, or ``fit`` gives it itself
    """
    own = {*inspect.signature(fit).parameters, *_DECIDED}
    free = [name for name in inspect.signature(ALGORITHMS[algo]).parameters if name not in own and name[0] != "_"]
    for name in params:
        if name in _DECIDED:
            raise ValueError(f"{name} is no parameter here: the log decides it, so leave it out.")
        if name not in free:
            raise ValueError(unknown_choice(f"argument of {algo}", name, free))


def _environment(episodes: Sequence[Episode], teacher: Teacher, frame_stack: int) -> VecEnv:
    env: VecEnv = DummyVecEnv([lambda: LogEnv(episodes, teacher.observation_space, teacher.action_space)])
    return VecFrameStack(env, frame_stack) if frame_stack > 1 else env


def compare(
    student: Teacher, teacher: Teacher, episodes: Sequence[Episode], frame_stack: int = 1, first: int = 0
) -> dict[str, float]:
    """
    :param student: the student
    :param teacher: its teacher
    :param episodes: observations of each episode
    :param frame_stack: how many observations the student sees at once
    :param first: the step from which on they are compared; those before are only seen
    :return: how alike they act, see ``compare_actions``
    """
    view = ObservationView(_environment(episodes, teacher, frame_stack), student.facts.student_keys)
    view.show_teacher(teacher.observation_space)
    obs: Any = view.reset()
    state, starts, pairs = None, np.ones(1, dtype=bool), []
    for step in range(sum(map(len, episodes))):
        expected, state = teacher.answer(obs_as_tensor(view.teacher_obs(obs), teacher.device), state, starts)
        if step >= first:
            answers, _ = student.answer(obs_as_tensor(obs, student.device))
            pairs.append((expected, answers))
        obs, _, starts, _ = view.step(np.zeros((1, *(teacher.action_space.shape or ()))))
    expected, answers = (Answers.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    return {name: float(number) for name, number in compare_actions(expected, answers, teacher.action_space).items()}
