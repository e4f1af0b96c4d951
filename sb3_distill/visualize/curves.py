"""Learning curves of run folders."""

from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
from matplotlib.figure import Figure

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.files import AgentNotFoundError
from sb3_distill.agents.sources import find_agent
from sb3_distill.common.files import file_name
from sb3_distill.envs.make import is_atari
from sb3_distill.results.curves import Curve, plot_learning_curves, read_curves, read_episodes
from sb3_distill.visualize.figures import distinct_names

# Of SB3's AtariWrapper
_ATARI_FRAME_SKIP = 4


def curves_of_run(folder: Path) -> dict[str, Curve]:
    """
    :param folder: a run folder
    :return: its curves, by who played: those of its evaluations, see ``read_curves``; else "training episodes"
    :raises ValueError: the folder has neither, or damaged ones, or its teacher played the training episodes
    """
    curves = read_curves(folder)
    if curves:
        return curves
    episodes = read_episodes(folder)
    _check_player(folder)
    return {"training episodes": Curve(episodes.steps / _frame_skip(folder), episodes.returns)}


def _frame_skip(folder: Path) -> int:
    """Lengths of a Monitor, which sits below the wrapper that skips frames, for one step of the run."""
    name = folder.resolve().name.rsplit("_", 1)[0]
    atari = any(is_atari(env_id) for env_id in gym.registry if file_name(env_id) == name)
    return _ATARI_FRAME_SKIP if atari else 1


def _check_player(folder: Path) -> None:
    """Refuse a student's run whose episodes are its teacher's."""
    try:
        data = read_archive(find_agent(folder).zip_path).data
    except AgentNotFoundError:
        # Not finished: who played cannot be asked.
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
    games = sorted({folder.name.rsplit("_", 1)[0] for folder in folders})
    if len(games) > 1:
        raise ValueError(f"One figure shows one game, but these runs are of {', '.join(games)}.")
    names = distinct_names([folder.resolve() for folder in folders])
    return plot_learning_curves(
        [
            (name if not player else player if len(folders) == 1 else f"{name}: {player}", curve)
            for name, folder in zip(names, folders, strict=True)
            for player, curve in curves_of_run(folder).items()
        ]
    )
