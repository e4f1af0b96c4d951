"""Learning curves of run folders."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
from matplotlib.figure import Figure

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import AgentNotFoundError
from sb3_distill.agents.sources import env_name_of_run, find_agent
from sb3_distill.common.files import file_name
from sb3_distill.envs.recipe import is_atari
from sb3_distill.results.curves import Curve, plot_learning_curves, read_curves, read_episodes
from sb3_distill.results.figures import distinct_names

# Default of SB3's AtariWrapper
_ATARI_FRAME_SKIP = 4
# Of a run's args.yml, what makes it another one; its config.yml has the hyperparameters
_STARTED = ("algo", "env", "n_timesteps", "env_kwargs", "eval_freq", "eval_episodes", "n_eval_envs", "trained_agent")


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
    return {"training episodes": replace(episodes, steps=episodes.steps / _frame_skip(folder))}


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
            f"(rollout_policy={data['rollout_policy']!r}). Train without `--eval-freq -1` to get the student's curve."
        )


def _kind_of(folder: Path) -> str | None:
    """All that a run was started with, except for its seed; None if its files do not say it."""
    (args, config) = ([*folder.glob(f"*/{name}.yml")] for name in ("args", "config"))
    if len(args) != 1 or len(config) != 1:
        return None
    started = read_yaml(args[0])
    return str([folder.resolve().parent.name, [started.get(name) for name in _STARTED], read_yaml(config[0])])


def _seed_of(folder: Path) -> object:
    return next((read_yaml(path).get("seed") for path in folder.glob("*/args.yml")), None)


def name_runs(folders: Sequence[Path]) -> list[str]:
    """
    :param folders: run folders
    :return: a name for each, with the folder of its algorithm; those that differ in their seed alone have one name
    """
    paths = [folder.resolve() for folder in folders]
    names = distinct_names(paths)
    names = [name if "/" in name else f"{path.parent.name}/{name}" for name, path in zip(names, paths, strict=True)]
    kinds: dict[str | None, list[int]] = {}
    for index, folder in enumerate(folders):
        kinds.setdefault(_kind_of(folder), []).append(index)
    for kind, members in kinds.items():
        # The same seed twice is no second run.
        if kind is not None and len({str(_seed_of(folders[index])) for index in members}) == len(members):
            shared = _name_of_seeds([names[index] for index in members])
            for index in members:
                names[index] = shared
    return names


def _name_of_seeds(names: Sequence[str]) -> str:
    """One name for runs that differ in their seed: pd/CartPole-v1_1, 2, 3 where the Zoo has numbered them."""
    if len(names) == 1:
        return names[0]
    bases, _, numbers = zip(*(name.rpartition("_") for name in names), strict=True)
    if len(set(bases)) == 1 and all(map(str.isdigit, numbers)):
        return f"{bases[0]}_{', '.join(numbers)}"
    return f"{names[0]} and {len(names) - 1} more"


def plot_runs(folders: Sequence[Path], teacher: Sequence[float] = ()) -> Figure:
    """
    :param folders: run folders of one game
    :param teacher: the teacher's mean return, and if they are known the bounds of its 95% interval
    :return: their learning curves, see ``plot_learning_curves``
    :raises ValueError: a folder has no curve, or the runs are of several games
    """
    for folder in folders:
        if not folder.is_dir():
            problem = "is no folder" if folder.exists() else "does not exist"
            raise ValueError(f"{folder} {problem}: name run folders, such as logs/pd/CartPole-v1_1.")
    games = sorted({env_name_of_run(folder) or folder.resolve().name for folder in folders})
    if len(games) > 1:
        raise ValueError(f"One figure shows one game, but these runs are of {', '.join(games)}: name runs of one game.")
    names = name_runs(folders)
    alone = len(set(names)) == 1
    return plot_learning_curves(
        [
            (name if not player else player if alone else f"{name}: {player}", curve)
            for name, folder in zip(names, folders, strict=True)
            for player, curve in curves_of_run(folder).items()
        ],
        teacher,
    )
