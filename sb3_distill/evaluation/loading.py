"""Loads agents that are to play: what an ONNX file leaves open, the environment says."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecTransposeImage

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.kinds.onnx import is_own_export
from sb3_distill.agents.load import is_onnx_file, load_teacher
from sb3_distill.envs.imports import why_not_made
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, is_atari


def load_player(
    source: Any,
    env_id: str | None = None,
    teacher_kwargs: Mapping[str, Any] | None = None,
    device: Any = "auto",
    local_only: bool = False,
    recipe: EnvRecipe | None = None,
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
    if recipe is not None and not is_atari(env_id):
        # It may see the newest of stacked observations alone.
        recipe = replace(recipe, frame_stack=1)
    with closing(_as_seen(make_eval_env(env_id, 1, recipe))) as env:
        return load_teacher(source, device=device, env_id=env_id, env=env, teacher_kwargs=teacher_kwargs)


def _as_seen(venv: VecEnv) -> VecEnv:
    """An environment whose images have their channels first, as agents of SB3 see them."""
    space = venv.observation_space
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        return VecTransposeImage(venv)
    return venv


def check_teacher_kwargs(teacher_kwargs: Mapping[str, Any] | None, sources: Sequence[Any]) -> None:
    """
    :param teacher_kwargs: what a user says of ONNX files beside them
    :param sources: the agents that the user names
    :raises AgentError: none of them is an ONNX file
    """
    if teacher_kwargs and not any(map(is_onnx_file, sources)):
        named = ", ".join(str(source) for source in sources if source is not None)
        raise AgentError(
            f"teacher_kwargs (--teacher-kwargs) say what an ONNX file does not, and none is named: {named}."
        )
