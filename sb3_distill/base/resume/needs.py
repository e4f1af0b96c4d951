"""What a run needs of memory and disk: said before it starts, and refused where it is not there."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EventCallback,
    EveryNTimesteps,
)

from sb3_distill.agents.files import RUN_STATE
from sb3_distill.base.cost import check_memory, check_room, fits, in_words, zip_bytes
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.buffers.state import capacity, pickle_bytes, step_bytes
from sb3_distill.buffers.tasks import MultiTaskBuffer
from sb3_distill.common.utils import counted
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
    one, held = _replay_bytes(model)
    if model.verbose > 0:
        print(f"The replay buffer will take {in_words(one * n_kept)} of memory, for {counted(n_kept, 'step')}.")
    n_tasks = buffer.n_tasks if isinstance(buffer, MultiTaskBuffer) else 1
    size = fits(one, held) // n_tasks
    advice = f"Set buffer_size to at most {size} (in the Zoo: -params buffer_size:{size}), or learn for fewer steps."
    check_memory(
        f"The replay buffer, with {counted(n_kept, 'step')},",
        one * n_kept,
        advice if size else "Free memory first: other programs may take it.",
        held,
    )


def announce_checkpoints(model: Any, callback: BaseCallback, n_bytes: int, problem: str | None) -> None:
    """
    Say what checkpoints need, and refuse what the disk has no room for.

    :param model: a model that begins to learn
    :param callback: its callbacks, one at least of which saves checkpoints
    :param n_bytes: how many bytes the state beside them has at the end of the run
    :param problem: why the environment's state is not in it; None: it is
    :raises ValueError: there is too little room
    """
    n_steps = max(model._total_timesteps - model.num_timesteps, 0)
    saved = list(_saves(callback, n_steps // model.n_envs, n_steps, model.n_envs))
    n_zips = sum(n for _, n in saved)
    checkpoints = counted(n_zips, "checkpoint")
    in_zips = n_zips * _zip_bytes(model)
    in_pickles = sum(_pickles_bytes(model, n) for each, n in saved if each.save_replay_buffer)
    if model.verbose > 0:
        size = (
            f"With its replay buffer it takes up to {in_words(n_bytes)} on disk, and twice that while it is replaced."
        )
        print(
            f"Each checkpoint replaces {RUN_STATE}, with which the run can be resumed.{f' {size}' if n_bytes else ''}"
        )
        if n_zips:
            print(f"The run saves {checkpoints}, about {in_words(in_zips)} on disk.")
        if in_pickles:
            print(f"The replay buffers that it saves with them take up to about {in_words(in_pickles)}.")
    states = sorted({Path(each.save_path, RUN_STATE).resolve() for each, _ in saved})
    in_states = n_bytes * len(states)
    check_room(
        Path(saved[0][0].save_path),
        f"{RUN_STATE} and {checkpoints}" + (" with their replay buffers" if in_pickles else ""),
        in_states + in_zips + in_pickles,
        "Make room, choose another folder, save fewer checkpoints (in the Zoo: --save-freq), or lower buffer_size.",
        n_bytes,
        sum(state.stat().st_size for state in states if state.is_file()),
        # What a pickle holds is known less well.
        n_sure=in_states + in_zips,
    )
    if problem is not None:
        warnings.warn(
            f"The environment's state cannot be kept ({problem}): a run that is resumed begins new episodes. All "
            "else is restored."
        )


def announce_recording(model: Any, recorder: RecordingWriter, n_kept: int) -> None:
    """
    Say what a recording needs, and refuse what the disk has no room for, or memory beside the replay buffer.

    :param model: a model that begins to learn
    :param recorder: what writes the recording
    :param n_kept: number of steps in the replay buffer when the run is over
    :raises ValueError: there is too little room
    """
    n_steps = recorder.n_steps + max(model._total_timesteps - model.num_timesteps, 0)
    n_bytes = recorder.step_bytes(model.action_space) * n_steps
    what = (
        "The steps of a recording (its compressed frames come on top)"
        if recorder.images
        else "The steps of a recording"
    )
    if model.verbose > 0:
        print(f"{what} take {in_words(n_bytes)} on disk.")
    advice = "Make room, name another folder as recording, or learn for fewer steps."
    check_room(recorder.folder, what, n_bytes, advice)
    # They are written at the end, as are those with which a run went on.
    in_memory = recorder.memory_bytes(model.action_space)
    one, held = _replay_bytes(model)
    check_memory(
        f"The recording, which is kept in memory until the run ends, with the replay buffer ({in_words(one * n_kept)})",
        in_memory * n_steps + one * n_kept,
        "Learn for fewer steps, without a recording, or with a smaller buffer_size.",
        in_memory * recorder.n_steps + held,
    )


def _replay_bytes(model: Any) -> tuple[float, float]:
    """How many bytes of memory a step of the replay buffer takes, and all that it holds already."""
    buffer = model.replay_buffer
    one = step_bytes(buffer, frame_stack_of(model.env), in_memory=True)
    return one, one * buffer.size() * model.n_envs


def _saves(callback: BaseCallback, n_calls: int, n_steps: int, n_envs: int) -> Iterator[tuple[CheckpointCallback, int]]:
    """The callbacks that save checkpoints, each with how often it does if it is called so often."""
    if isinstance(callback, CheckpointCallback):
        yield callback, n_calls // callback.save_freq
    elif isinstance(callback, CallbackList):
        for child in callback.callbacks:
            yield from _saves(child, n_calls, n_steps, n_envs)
    elif isinstance(callback, EventCallback):
        # Nobody knows how often other events will come.
        n_events = min(n_calls, 1)
        if isinstance(callback, EveryNTimesteps):
            n_events = min(n_calls, n_steps // n_envs // max(-(-callback.n_steps // n_envs), 1))
        elif isinstance(callback, EvalCallback):
            n_events = n_calls // callback.eval_freq if callback.eval_freq > 0 else 0
        on_new_best = getattr(callback, "callback_on_new_best", None)
        for inner, n_inner in ((callback.callback, n_events), (on_new_best, min(n_events, 1))):
            if inner is not None:
                yield from _saves(inner, n_inner, n_steps, n_envs)


def _pickles_bytes(model: Any, n_pickles: int) -> float:
    """About how many bytes the replay buffers take that are saved at so many moments of a run."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None or not n_pickles:
        return 0.0
    n_held, n_most = buffer.size() * model.n_envs, capacity(buffer)
    n_to_come = max(model._total_timesteps - model.num_timesteps, 1)
    # The buffer grows until it is full.
    n_growing = min(max(n_most - n_held, 0), n_to_come)
    mean = n_held + n_growing - n_growing**2 / n_to_come / 2
    n_steps = mean * n_pickles + n_growing / 2
    one = pickle_bytes(buffer, frame_stack_of(model.env), n_steps / n_pickles)
    return one * n_pickles


def _zip_bytes(model: BaseAlgorithm) -> int:
    parts: dict[str, Any] = model.get_parameters()
    return zip_bytes(part for name in parts if "optimizer" not in name for part in parts[name].values())
