"""What the cells of a study need of memory and disk, before they run."""

import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space

from sb3_distill.algorithms import resolve
from sb3_distill.base.cost import check_memory, check_room, in_words, machine_memory
from sb3_distill.buffers.distillation import DistillationBuffer
from sb3_distill.buffers.replay import FrameReplayBuffer
from sb3_distill.buffers.state import step_bytes
from sb3_distill.buffers.tasks import MultiTaskBuffer, MultiTaskDistillationBuffer, MultiTaskReplayBuffer
from sb3_distill.common.files import default_config
from sb3_distill.common.utils import counted
from sb3_distill.envs.inspection import frame_stack_of
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, is_atari, read_wrappers
from sb3_distill.envs.views import Keys, part_of_space, plain_keys
from sb3_distill.reading.text import load_yaml
from sb3_distill.study.cell import Cell
from sb3_distill.study.manifest import manifest_of
from sb3_distill.study.plan.strict import with_paper

# Those that keep steps in a memory of their own; the others are of SB3, or keep one rollout
_BUFFERS = {
    "pd": DistillationBuffer,
    "qpd": DistillationBuffer,
    "mtpd": MultiTaskDistillationBuffer,
    "mtdqn": MultiTaskReplayBuffer,
}


@lru_cache
def _shipped(algo: str) -> Any:
    """The hyperparameters that we ship, by environment."""
    return load_yaml(default_config(algo))


def settings_of(cell: Cell) -> dict[str, Any]:
    """
    :param cell: a cell
    :return: its hyperparameters, with those that we ship below them, as the Zoo puts them together
    :raises ValueError: its settings contradict each other (see ``with_paper``)
    """
    shipped = _shipped(cell.algo)
    own = shipped.get(cell.env, shipped["atari" if is_atari(cell.env) and "atari" in shipped else "default"])
    return {**own, **with_paper(cell.algo, cell.env, cell.hyperparams, cell.n_timesteps or 0)}


def length_of(cell: Cell) -> int | None:
    """
    :param cell: a cell
    :return: the steps of its run, from the study or from the hyperparameters that we ship; None: neither says them
    :raises ValueError: its settings contradict each other
    """
    n_timesteps = cell.n_timesteps or settings_of(cell).get("n_timesteps")
    return None if n_timesteps is None else int(float(n_timesteps))


def taught_in(cell: Cell) -> tuple[EnvRecipe, Keys]:
    """
    :param cell: a cell
    :return: how the environments of its run are made, and what its teacher sees there of Dict observations
    :raises ValueError: its settings contradict each other, or are of another form
    """
    settings = settings_of(cell)
    return _recipe_of(settings, cell.env_kwargs), plain_keys(settings.get("teacher_keys"), "teacher_keys")


def _recipe_of(settings: Mapping[str, Any], env_kwargs: Mapping[str, Any]) -> EnvRecipe:
    wrappers = read_wrappers(settings.get("env_wrapper"), "env_wrapper")
    return EnvRecipe(env_kwargs, wrappers, frame_stack=settings.get("frame_stack"))


def memory_of(cell: Cell) -> int | None:
    """
    :param cell: a cell that has not run
    :return: about how many bytes of memory its replay buffer takes at the end of the run; None: it has none, or its
        environment cannot be made here
    """
    try:
        settings = settings_of(cell)
        n_timesteps = length_of(cell)
        if cell.algo == "ppd" or n_timesteps is None or "buffer_size" not in settings:
            return None
        made = {name: settings.get(name) for name in ("env_wrapper", "frame_stack", "student_keys")}
        one, n_tasks = _step_of(cell.algo, cell.env, json.dumps([cell.env_kwargs, made]))
        return one * min(int(float(settings["buffer_size"])) * n_tasks, n_timesteps)
    except Exception:
        # Whatever it raises, such as a package that is missing here, the run itself says what is wrong.
        return None


@lru_cache
def _step_of(algo: str, env_id: str, made: str) -> tuple[int, int]:
    """Bytes of a step in memory, and the number of tasks."""
    env_kwargs, settings = json.loads(made)
    with closing(make_eval_env(env_id, recipe=_recipe_of(settings, env_kwargs))) as made_env:
        # As a model does, which puts the channels of images first
        env = OffPolicyAlgorithm._wrap_env(made_env, monitor_wrapper=False)
        space, keys = env.observation_space, plain_keys(settings["student_keys"], "student_keys")
        if keys is not None:
            space = part_of_space(space, resolve(algo)._seen_keys(keys, space, "student_keys"), "student_keys")
        kind = _BUFFERS.get(algo, DictReplayBuffer if isinstance(space, spaces.Dict) else ReplayBuffer)
        if algo not in _BUFFERS and is_image_space(space, check_channels=False):
            kind = FrameReplayBuffer
        buffer = kind(1, space, env.action_space, "cpu")
        n_tasks = buffer.n_tasks if isinstance(buffer, MultiTaskBuffer) else 1
        return step_bytes(buffer, frame_stack_of(env), in_memory=True), n_tasks


def describe_memory(cells: Sequence[Cell], n_jobs: int) -> str:
    """
    Say how much memory the cells take, and refuse those that this machine cannot hold.

    :param cells: the cells that have not finished
    :param n_jobs: number of cells that run at the same time on this machine
    :return: the sentence; empty if nothing is known
    :raises ValueError: any cells that run at the same time need more memory than there is
    """
    known = sorted(n_bytes for n_bytes in map(memory_of, cells) if n_bytes is not None)
    if not known:
        return ""
    n_jobs = min(n_jobs, len(known))
    fewer = f"Run fewer cells at the same time (-j, now {n_jobs}), or set" if n_jobs > 1 else "Set"
    cells_text = f"Each choice of {n_jobs} cells at the same time" if n_jobs > 1 else "Each cell"
    # Also the smallest do not fit.
    check_memory(cells_text, sum(known[:n_jobs]), f"{fewer} a smaller buffer_size in the study file.")
    at_once = f"{n_jobs} cells at the same time" if n_jobs > 1 else "a cell"
    needed, there = in_words(sum(known[-n_jobs:])), in_words(machine_memory())
    return f"Replay buffers: up to {needed} of memory for {at_once} (this machine has {there})"


def describe_room(cells: Sequence[Cell], finished: Sequence[Cell], folder: Path) -> str:
    """
    Say how much room on the disk the cells take, by the finished ones, and refuse them where there is less.

    :param cells: the cells that have not finished
    :param finished: those that have
    :param folder: the study's folder
    :return: the sentence
    :raises ValueError: there is less room
    """
    if not finished:
        return "Disk: known when a cell has finished"
    sizes = [sum(p.stat().st_size for p in (folder / "cells" / c.key).rglob("*") if p.is_file()) for c in finished]
    n_bytes = statistics.median(sizes) * len(cells)
    advice = "Make room, or use another folder (-o)."
    check_room(folder, f"{counted(len(cells), 'cell')}, by the finished ones,", n_bytes, advice)
    return f"Disk: about {in_words(n_bytes)}, by the finished cells"


def describe_needs(cells: Sequence[Cell], folder: Path, n_jobs: int | None) -> str:
    """
    :param cells: all cells of a study
    :param folder: the study's folder
    :param n_jobs: number of cells that run at the same time on this machine; None: they run on others
    :return: what those that have not finished need of memory and disk, as lines; empty if all have
    :raises ValueError: this machine has less
    """
    waiting = [cell for cell in cells if manifest_of(folder, cell) is None]
    if not waiting:
        return ""
    memory = describe_memory(waiting, n_jobs) if n_jobs else ""
    room = describe_room(waiting, [cell for cell in cells if cell not in waiting], folder)
    return "\n".join(filter(None, (memory, room)))
