"""Loads agents that are to play: what an ONNX file leaves open, the environment says."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.kinds.onnx_options import is_own_export
from sb3_distill.agents.load import is_onnx_file, load_teacher
from sb3_distill.envs.imports import why_not_made
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.envs.views import Keys
from sb3_distill.evaluation.environments import (
    complete_recipe,
    find_env_id,
    own_view,
    unknown_env,
    with_channels_first,
)


def load_player(
    source: Any,
    env_id: str | None = None,
    teacher_kwargs: Mapping[str, Any] | None = None,
    device: Any = "auto",
    local_only: bool = False,
    recipe: EnvRecipe | None = None,
    keys: Keys = None,
) -> Teacher:
    """
    Load an agent that is to play.

    :param source: see ``load_teacher``
    :param env_id: the environment in which it is to play; None: its own. An ONNX file learns from it what it does not
        say itself; all other agents know it.
    :param teacher_kwargs: what is said of ONNX files beside them; other agents have no use for it
    :param device: see ``load_teacher``
    :param local_only: see ``load_teacher``
    :param recipe: how the environments of its student's run were made; None: as the Zoo does where a run says nothing
    :param keys: what it saw there of Dict observations, see ``ObservationView``
    :return: the agent
    :raises AgentError: it cannot be loaded
    :raises ValueError: the environment cannot be made
    """
    if not is_onnx_file(source):
        return load_teacher(source, device=device, local_only=local_only)
    if env_id is None or why_not_made(env_id) is not None:
        return load_teacher(source, device=device, env_id=env_id, teacher_kwargs=teacher_kwargs)
    if is_own_export(source):
        # Its own wrappers can change what the environment gives.
        return load_teacher(source, device=device, env_id=env_id, env=SimpleNamespace(), teacher_kwargs=teacher_kwargs)  # type: ignore[arg-type]
    with closing(make_eval_env(env_id, 1, complete_recipe(recipe or EnvRecipe(), env_id))) as venv:
        env = with_channels_first(own_view(str(source), env_id, venv, keys))
        return load_teacher(source, device=device, env_id=env_id, env=env, teacher_kwargs=teacher_kwargs)


def load_where_it_plays(
    source: Any,
    env_id: str | None = None,
    teacher_kwargs: Mapping[str, Any] | None = None,
    device: Any = "auto",
    others: Sequence[Teacher] = (),
) -> tuple[Teacher, str]:
    """
    :param source: see ``load_teacher``
    :param env_id: id of the environment that the user names; None: the agent's own
    :param teacher_kwargs: what is said of an ONNX file
    :param device: see ``load_teacher``
    :param others: agents that are named with it; a student of an ONNX file says what it leaves open
    :return: the agent, and the id of the environment in which it plays
    :raises AgentError: it cannot be loaded, or the environment is neither named nor known
    :raises ValueError: the environment cannot be made
    """
    student = student_of(source, others) if is_onnx_file(source) else None
    if student is not None:
        env_id = find_env_id(student, env_id)
        return load_teacher_of(student, source, env_id, teacher_kwargs, device), env_id
    if env_id is None and is_onnx_file(source) and Path(source).is_file() and not is_own_export(source):
        raise unknown_env(source)
    agent = load_player(source, env_id, teacher_kwargs, device)
    return agent, find_env_id(agent, env_id)


def student_of(source: Any, agents: Iterable[Teacher]) -> Teacher | None:
    """
    :param source: where an agent is
    :param agents: other agents
    :return: the first of them that names it as its teacher; None if none does
    """
    named = [agent for agent in agents if agent.facts.taught_by is not None]
    return next((agent for agent in named if Path(str(agent.facts.taught_by)) == Path(str(source))), None)


def load_teacher_of(
    student: Teacher,
    source: Any,
    env_id: str | None = None,
    teacher_kwargs: Mapping[str, Any] | None = None,
    device: Any = "auto",
    local_only: bool = False,
) -> Teacher:
    """
    Load an agent with which a student is compared. What an ONNX file leaves open, the student's run says.

    :param student: the student
    :param source: see ``load_teacher``
    :param env_id: the environment in which it is to play; None: the student's own
    :param teacher_kwargs: what is said of an ONNX file; None: what the student says of its teacher
    :param device: see ``load_teacher``
    :param local_only: see ``load_teacher``
    :return: the agent
    :raises AgentError: it cannot be loaded
    :raises ValueError: the environment cannot be made
    """
    facts = student.facts
    if teacher_kwargs is None and student_of(source, [student]) is not None:
        teacher_kwargs = facts.teacher_kwargs
    env_id = facts.env_id if env_id is None else env_id
    return load_player(source, env_id, teacher_kwargs, device, local_only, facts.recipe, facts.teacher_keys)
