"""What a run needs of memory and disk: said before it starts, and refused where it is not there."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CheckpointCallback

from sb3_distill.agents.files import RUN_STATE
from sb3_distill.base.cost import check_memory, check_room, fits, in_words
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.buffers.state import step_bytes
from sb3_distill.buffers.tasks import MultiTaskBuffer
from sb3_distill.envs.inspection import frame_stack_of


def announce_rollout(model: Any) -> None:
    """
    Refuse a rollout buffer that does not fit into memory.

    :param model: an on-policy model that begins to learn
    :raises ValueError: this machine has less memory
    """
    parts = vars(model.rollout_buffer).values()
    arrays = [array for part in parts for array in (part.values() if isinstance(part, dict) else [part])]
    n_bytes = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    if model.verbose > 0:
        print(f"The rollout buffer takes {in_words(n_bytes)} of memory.")
    check_memory("The rollout buffer", n_bytes, "Lower n_steps or n_envs.")


def announce_replay(model: Any, n_kept: int) -> None:
    """
    Say how much memory a replay buffer takes, and refuse one that does not fit.

    :param model: an off-policy model that begins to learn
    :param n_kept: number of steps in the buffer when the run is over
    :raises ValueError: this machine has less memory
    """
    buffer = model.replay_buffer
    one = step_bytes(buffer, frame_stack_of(model.env), in_memory=True)
    if model.verbose > 0:
        print(f"The replay buffer will take {in_words(one * n_kept)} of memory, for {n_kept:,} steps.")
    n_tasks = buffer.n_tasks if isinstance(buffer, MultiTaskBuffer) else 1
    size = fits(one) // n_tasks
    check_memory(
        f"The replay buffer, with {n_kept:,} steps,",
        one * n_kept,
        f"Set buffer_size to at most {size} (in the Zoo: -params buffer_size:{size}), or learn for fewer steps.",
        one * buffer.size() * model.n_envs,
    )


def announce_checkpoints(model: Any, callback: CheckpointCallback, n_bytes: int, problem: str | None) -> None:
    """
    Say what checkpoints need, and refuse what the disk has no room for.

    :param model: a model that begins to learn
    :param callback: what saves its checkpoints
    :param n_bytes: how many bytes the state beside them has at the end of the run
    :param problem: why the environment's state is not in it; None: it is
    :raises ValueError: there is too little room
    """
    n_steps = max(model._total_timesteps - model.num_timesteps, 0)
    n_zips = n_steps // model.n_envs // callback.save_freq
    in_zips = n_zips * _zip_bytes(model)
    if model.verbose > 0:
        size = (
            f"With its replay buffer it takes up to {in_words(n_bytes)} on disk, and twice that while it is replaced."
        )
        print(
            f"Each checkpoint replaces {RUN_STATE}, with which the run can be resumed.{f' {size}' if n_bytes else ''}"
        )
        if n_zips:
            print(f"The run saves {n_zips:,} checkpoints, about {in_words(in_zips)} on disk.")
    state = Path(callback.save_path, RUN_STATE)
    check_room(
        state.parent,
        f"{RUN_STATE} and {n_zips:,} checkpoints",
        n_bytes * (1 + n_zips * callback.save_replay_buffer) + in_zips,
        "Make room, choose another folder, save fewer checkpoints (in the Zoo: --save-freq), or lower buffer_size.",
        n_bytes,
        state.stat().st_size if state.is_file() else 0,
    )
    if problem is not None:
        warnings.warn(
            f"The environment's state cannot be kept ({problem}): a run that is resumed begins new episodes. All "
            "else is restored."
        )


def announce_recording(model: Any, recorder: RecordingWriter) -> None:
    """
    Say what a recording needs, and refuse what the disk has no room for.

    :param model: a model that begins to learn
    :param recorder: what writes the recording
    :raises ValueError: there is too little room
    """
    n_bytes = recorder.step_bytes(model.action_space) * max(model._total_timesteps - model.num_timesteps, 0)
    what = (
        "The steps of a recording (its compressed frames come on top)"
        if recorder.images
        else "The steps of a recording"
    )
    if model.verbose > 0:
        print(f"{what} take {in_words(n_bytes)} on disk.")
    advice = "Make room, name another folder in recording=, or learn for fewer steps."
    check_room(recorder.folder, what, n_bytes, advice)


def _zip_bytes(model: BaseAlgorithm) -> int:
    """About how many bytes a zip of the model has: weights, and two moments of each in its optimizer."""
    parts: dict[str, Any] = model.get_parameters()
    return sum(12 * part.numel() for name in parts if "optimizer" not in name for part in parts[name].values())
