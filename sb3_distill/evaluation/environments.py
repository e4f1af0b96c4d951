"""The environments in which an agent plays: those of its own run, made anew."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.checks import same_bounds
from sb3_distill.agents.files import AgentError
from sb3_distill.envs.imports import check_env_id, check_env_kwargs, import_trusted, registered_spec, why_not_made
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, default_recipe
from sb3_distill.envs.views import FlatView, Keys, ObservationView


def find_env_id(agent: Teacher, env_id: str | None = None) -> str:
    """
    :param agent: a loaded agent
    :param env_id: the id that the user names; None: the id of the environment on which the agent was trained
    :return: the environment's id
    :raises AgentError: the user names no id, and the agent's files do not tell it; or the environment is not registered
    :raises ValueError: the files name an environment of a package that is not trusted, also among its arguments
    """
    is_named = env_id is not None
    if env_id is None:
        env_id = agent.env_id
        if env_id is None:
            raise unknown_env(agent.source)
        check_env_id(env_id, f"{agent.source}: the run's files")
    if env_id == agent.env_id:
        check_env_kwargs(agent.env_kwargs, f"{agent.source}: the run's files")
    packages = agent.facts.recipe.gym_packages if agent.facts.recipe else ()
    import_trusted(packages)
    missing = None
    try:
        registered_spec(env_id)
    except gym.error.Error as error:
        missing = error
    problem = None if missing is not None and packages else why_not_made(env_id)
    if problem is not None:
        raise AgentError(f"The environment {env_id} of {agent.source} cannot be made. {problem}") from missing
    if missing is not None:
        if packages:
            advice = f"Its run had --gym-packages {' '.join(packages)}: pass it if you trust it"
        else:
            advice = "Pass the package that registers it with --gym-packages (in Python: import it first)"
        if not is_named:
            advice += ", or name another environment with --env ID (in Python, env_id=)"
        raise AgentError(f"The environment {env_id} of {agent.source} cannot be made: {missing} {advice}.") from missing
    return env_id


def unknown_env(source: Any) -> AgentError:
    """
    :param source: an agent whose files do not say where it plays
    :return: the error that says so
    """
    return AgentError(f"{source} does not say its environment: name it with --env (in Python, env_id=).")


def recipe_of(agent: Teacher, env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> EnvRecipe:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment in which it plays
    :param env_kwargs: arguments of the environment; None: if the agent was trained on it those of its training,
        otherwise none
    :return: how the environment is made; what the agent's files do not say is as the Zoo's default
    """
    own = agent.facts.recipe or EnvRecipe()
    if env_kwargs is None:
        env_kwargs = own.env_kwargs if agent.env_id == env_id else {}
    return replace(complete_recipe(own, env_id, agent.observation_space), env_kwargs=env_kwargs)


def complete_recipe(recipe: EnvRecipe, env_id: str, observation_space: spaces.Space | None = None) -> EnvRecipe:
    """
    :param recipe: how the environments of a run were made, as far as its files say it
    :param env_id: id of the environment
    :param observation_space: observations of the agent that is to play; None: whatever the environment gives
    :return: the same, and what the files do not say is as the Zoo's default
    """
    usual = default_recipe(env_id, observation_space)
    return replace(
        recipe,
        wrappers=usual.wrappers if recipe.wrappers is None else recipe.wrappers,
        frame_stack=usual.frame_stack if recipe.frame_stack is None else recipe.frame_stack,
    )


def play_where_it_taught(teacher: Teacher, students: Sequence[Teacher]) -> None:
    """
    Let a teacher that has no run of its own, such as an object or an ONNX file, play in the environments of its
    students' runs, and see what it saw there.

    :param teacher: the teacher
    :param students: its students, or others that are compared with it
    :raises AgentError: it sees another thing in each run
    """
    own = [each for each in students if each.facts.teacher_sha256 and teacher.is_agent(each.facts.teacher_sha256)]
    students = own or students
    students = [each for each in students if each.facts.recipe is not None or each.facts.teacher_keys is not None]
    if not students or not _has_no_run(teacher) or teacher.facts.recipe is not None:
        return
    first = _what_taught(students[0])
    for student in students:
        if (other := _what_taught(student)) != first:
            raise AgentError(
                f"{students[0].source} and {student.source} are compared with one teacher, {teacher.source}, which "
                f"sees different things there ({_say(first)} in the first run, {_say(other)} in the other), but plays "
                "only once here: evaluate each in a command of its own."
            )
    facts = students[0].facts
    teacher.facts = replace(teacher.facts, recipe=facts.recipe, student_keys=facts.teacher_keys)


def _has_no_run(agent: Teacher) -> bool:
    return agent.facts.algo in ("object", "onnx")


def _what_taught(student: Teacher) -> tuple[Any, ...]:
    """What decides on the observations of its teacher, which sees the newest of stacked ones."""
    recipe = student.facts.recipe or EnvRecipe()
    wrappers = recipe.wrappers
    if wrappers is None and student.env_id is not None:
        wrappers = default_recipe(student.env_id).wrappers
    return student.facts.teacher_keys, list(wrappers or ()), list(recipe.vec_wrappers)


def _say(taught: tuple[Any, ...]) -> str:
    keys, *wrappers = taught
    names = [wrapper.to_config() for group in wrappers for wrapper in group or ()]
    return f"teacher_keys={keys!r}, wrappers {', '.join(map(str, names)) or 'none'}"


def shared_env_kwargs(agents: Sequence[Teacher], env_id: str) -> dict[str, Any]:
    """
    :param agents: agents that are compared
    :param env_id: id of the environment in which they play
    :return: arguments of the environment, as the runs in it say
    :raises AgentError: they differ
    """
    known = [agent for agent in agents if agent.env_kwargs is not None and agent.env_id == env_id]
    for agent in known:
        if agent.env_kwargs != known[0].env_kwargs:
            raise AgentError(
                f"The runs of {env_id} were trained with different arguments of the environment ("
                f"{known[0].env_kwargs} of {known[0].source}, {agent.env_kwargs} of {agent.source}): say with "
                "--env-kwargs key:value which are meant, and with --env-kwargs alone that none are."
            )
    return dict(known[0].env_kwargs or {}) if known else {}


def check_fits(agent: Teacher, env_id: str, venv: VecEnv) -> None:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment in which it is to play
    :param venv: this environment
    :raises ValueError: the agent was trained with other spaces
    """
    own = agent.observation_space, agent.action_space
    there = venv.observation_space, venv.action_space
    for kind, mine, its in zip(("observations", "actions"), own, there, strict=True):
        # SB3 transposes images with the channels last, so the order of the axes may differ.
        same_shape = sorted(mine.shape or ()) == sorted(its.shape or ())
        if not same_shape or getattr(mine, "n", None) != getattr(its, "n", None):
            raise ValueError(
                f"{agent.source} cannot play {env_id}: it was trained with {kind} {mine}"
                f"{'' if agent.env_id is None else f' on {agent.env_id}'}, not {its}. Name the environment it was "
                "trained on."
            )
    mine, its = own[1], there[1]
    if isinstance(mine, spaces.Box) and isinstance(its, spaces.Box) and not same_bounds(mine, its):
        raise ValueError(
            f"{agent.source} cannot play {env_id}: its actions go from {mine.low.tolist()} to {mine.high.tolist()}, "
            f"those of the environment from {its.low.tolist()} to {its.high.tolist()}, so the same number is another "
            "action there. Name the environment it was trained on."
        )


def transpose_for(venv: VecEnv, shape: Sequence[int] | None) -> VecEnv:
    """
    :param venv: an environment that fits an agent
    :param shape: shape of the agent's observations
    :return: the environment; if the agent's images are channels-first and the environment's are not, transposed
    """
    fits = shape is None or venv.observation_space.shape == tuple(shape)
    return venv if fits else VecTransposeImage(venv)


def own_view(
    source: str, env_id: str, venv: VecEnv, keys: Keys = None, flat_keys: Sequence[str] | None = None
) -> VecEnv:
    """
    :param source: an agent, for the message
    :param env_id: id of the environment in which it is to play
    :param venv: this environment
    :param keys: what it sees of Dict observations, see ``ObservationView``
    :param flat_keys: what it sees of them in a row, see ``FlatView``
    :return: what it sees of the environment
    :raises ValueError: the environment has no such parts
    """
    try:
        if keys is not None:
            venv = ObservationView(venv, keys)
        return venv if flat_keys is None else FlatView(venv, flat_keys)
    except ValueError as error:
        raise ValueError(
            f"{source} cannot play {env_id}: {error} A run folder of the Zoo says the wrappers of its run, a zip "
            "alone does not: name the folder, or an environment that is registered with its wrappers (--env, "
            "--gym-packages)."
        ) from error


def make_env_of(
    agent: Teacher,
    env_id: str,
    n_envs: int = 1,
    env_kwargs: Mapping[str, Any] | None = None,
    start_wrapper: Callable[[gym.Env], gym.Env] | None = None,
    native: bool | None = False,
) -> VecEnv:
    """
    :param agent: a loaded agent
    :param env_id: id of the environment
    :param n_envs: number of copies
    :param env_kwargs: see ``recipe_of``
    :param start_wrapper: see ``make_eval_env``
    :param native: see ``make_eval_env``
    :return: the environment of the agent's run, made anew, with observations in the agent's own format
    :raises ValueError: the environment cannot be made, or has other spaces than the agent
    """
    recipe = recipe_of(agent, env_id, env_kwargs)
    try:
        return _make_env(agent, env_id, n_envs, recipe, start_wrapper, native)
    except ValueError:
        # Those of its student's run may stack observations of which a teacher knows the newest alone.
        if _has_no_run(agent) and (recipe.frame_stack or 1) > 1:
            with suppress(ValueError):
                return _make_env(agent, env_id, n_envs, replace(recipe, frame_stack=1), start_wrapper, native)
        raise


def _make_env(agent: Teacher, env_id: str, n_envs: int, recipe: EnvRecipe, *options: Any) -> VecEnv:
    venv = make_eval_env(env_id, n_envs, recipe, *options)
    try:
        venv = own_view(agent.source, env_id, venv, agent.facts.student_keys, agent.facts.flat_keys)
        check_fits(agent, env_id, venv)
    except ValueError:
        venv.close()
        raise
    return transpose_for(venv, agent.observation_space.shape)


def with_channels_first(venv: VecEnv) -> VecEnv:
    """
    :param venv: an environment
    :return: the same with the channels of its images first, as agents of SB3 see them
    """
    space = venv.observation_space
    parts: Any = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    turned = any(is_image_space(part) and not is_image_space_channels_first(part) for part in parts)
    return VecTransposeImage(venv) if turned else venv
