"""Learning curves of run folders."""

from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
from matplotlib.figure import Figure

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.files import AgentNotFoundError
from sb3_distill.agents.sources import env_name_of_run, find_agent
from sb3_distill.common.files import file_name
from sb3_distill.envs.recipe import is_atari
from sb3_distill.results.curves import Curve, plot_learning_curves, read_curves, read_episodes
from sb3_distill.visualize.figures import distinct_names

# Default of SB3's AtariWrapper
_ATARI_FRAME_SKIP = 4


def curves_of_run(folder: Path) -> dict[str, Curve]:
    """
    :param folder: a run folder
    :return: by name, the curves of its evaluations (see ``read_curves``); without evaluations, the curve of its
        training episodes
    :raises ValueError: the folder has neither, its files are damaged, or the training episodes are the teacher's
    """
    curves = read_curves(folder)
    if curves:
        return curves
    episodes = read_episodes(folder)
    _check_player(folder)
    return {"training episodes": Curve(episodes.steps / _frame_skip(folder), episodes.returns)}


def _frame_skip(folder: Path) -> int:
    """Frames per step of the run: in Atari games, Monitor counts frames, since it is below the frame-skip wrapper."""
    name = env_name_of_run(folder)
    atari = any(is_atari(env_id) for env_id in gym.registry if file_name(env_id) == name)
    return _ATARI_FRAME_SKIP if atari else 1


def _check_player(folder: Path) -> None:
    """Refuse a student's run in which the teacher played the training episodes."""
    try:
        data = read_archive(find_agent(folder).zip_path).data
    except AgentNotFoundError:
        # The run has not finished, so there is no model that tells who played.
        return
    if data.get("rollout_policy", "student") != "student":
        raise ValueError(
            f"{folder} has no evaluations, and its training episodes are not the student's: the teacher played "
            f"(rollout_policy={data['rollout_policy']!r}). Train with --eval-freq to get the student's curve."
        )


def plot_runs(folders: Sequence[Path]) -> Figure:
    """
    :param folders: run folders of one game
    :return: their learning curves, see ``plot_learning_curves``
    :raises ValueError: a folder has no curve, or the runs are of several games
    """
    games = sorted({env_name_of_run(folder) or folder.resolve().name for folder in folders})
    if len(games) > 1:
        raise ValueError(f"One figure shows one game, but these runs are of {', '.join(games)}: name runs of one game.")
    names = distinct_names([folder.resolve() for folder in folders])
    return plot_learning_curves(
        [
            (name if not player else player if len(folders) == 1 else f"{name}: {player}", curve)
            for name, folder in zip(names, folders, strict=True)
            for player, curve in curves_of_run(folder).items()
        ]
    )
