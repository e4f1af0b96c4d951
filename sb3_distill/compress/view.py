"""What the agent that is compressed and its students see of an environment, which can be parts of Dict observations."""

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.envs.imports import find_wrapper
from sb3_distill.envs.inspection import describe_space_mismatch
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, read_wrappers
from sb3_distill.envs.views import ObservationView, part_of_space, plain_keys
from sb3_distill.evaluation.environments import make_env_of, recipe_of, with_channels_first

_WRAPPER = "--env-wrapper (env_wrapper)"


@dataclass(frozen=True)
class View:
    """
    What a user says of it.

    :param env_wrapper: wrappers around those of the agent's run, as the Zoo's configurations name them
    :param teacher_keys: the keys of Dict observations that the agent sees; None: those of its run
    :param student_keys: those that its students see; None: those that the agent saw in its run
    :param frame_stack: how many observations its students see at once; None: as many as the agent
    """

    env_wrapper: Any = None
    teacher_keys: Any = None
    student_keys: Any = None
    frame_stack: int | None = None


@dataclass(frozen=True)
class StudentView:
    """
    What students see.

    :param recipe: how their environment is made
    :param keys: the keys of Dict observations that they see; None: everything
    """

    recipe: EnvRecipe
    keys: Any = None


def show(teacher: Teacher, env_id: str, view: View) -> StudentView:
    """
    Let an agent play in these wrappers, and see these keys.

    :param teacher: the agent that is compressed
    :param env_id: the environment
    :param view: what is said of it
    :return: what its students see
    :raises ValueError: a wrapper is not trusted, or does not exist; or the agent has a memory, and its students are
        shown nothing of the past
    """
    recipe, own = recipe_of(teacher, env_id), teacher.facts.student_keys
    wrappers = read_wrappers(view.env_wrapper, _WRAPPER)
    for wrapper in wrappers:
        find_wrapper(wrapper.name, gym.Wrapper, _WRAPPER)
    recipe = replace(recipe, wrappers=[*(recipe.wrappers or ()), *wrappers])
    frame_stack = recipe.frame_stack if view.frame_stack is None else view.frame_stack
    if teacher.has_memory and (frame_stack or 1) < 2 and view.env_wrapper is None:
        raise ValueError(
            f"{teacher.source} has a memory, which the students of compress do not have: show them the last "
            'observations with --frame-stack 4, or a history with --env-wrapper sb3_distill.StackedEntries:"dict(...)" '
            "(in Python, frame_stack=4 or env_wrapper=...)."
        )
    teacher.facts = replace(
        teacher.facts,
        recipe=recipe,
        student_keys=own if view.teacher_keys is None else plain_keys(view.teacher_keys, "teacher_keys"),
    )
    return StudentView(
        replace(recipe, frame_stack=frame_stack),
        own if view.student_keys is None else plain_keys(view.student_keys, "student_keys"),
    )


def make_students_env(teacher: Teacher, env_id: str, seen: StudentView, n_envs: int = 1) -> VecEnv:
    """
    :param teacher: the agent, after ``show``
    :param env_id: the environment
    :param seen: what students see
    :param n_envs: number of copies
    :return: the environment, with everything that agent and students see
    :raises ValueError: see ``make_env_of``
    """
    if seen.keys is None and teacher.facts.student_keys is None and seen.recipe == teacher.facts.recipe:
        return make_env_of(teacher, env_id, n_envs, native=None)
    return with_channels_first(make_eval_env(env_id, n_envs, seen.recipe, native=None))


def students_space(teacher: Teacher, env_id: str, seen: StudentView) -> spaces.Space:
    """
    :param teacher: the agent, after ``show``
    :param env_id: the environment
    :param seen: what students see
    :return: what they observe
    :raises ValueError: the environment has no such keys, or the agent cannot play in it, or not with as many stacked
        observations as students see
    """
    with closing(make_env_of(teacher, env_id)):
        pass
    with closing(make_students_env(teacher, env_id, seen)) as venv:
        space = part_of_space(venv.observation_space, seen.keys, "student_keys")
        if seen.recipe != teacher.facts.recipe:
            shown = ObservationView(venv, seen.keys, teacher.facts.student_keys)
            shown.show_teacher(teacher.observation_space)
            if describe_space_mismatch(teacher.observation_space, shown.teacher_space):
                n_stack = seen.recipe.frame_stack
                raise ValueError(
                    f"--frame-stack (frame_stack) is {n_stack}, but {teacher.source} sees neither a stack of {n_stack} "
                    "observations nor the newest one alone: leave the option out, so that its students see what it "
                    "sees."
                )
        return space
