"""The figures and videos of a report."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium as gym
from matplotlib.figure import Figure

from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import load_teacher
from sb3_distill.algorithms import STUDENTS
from sb3_distill.envs.recipe import is_atari
from sb3_distill.results.curves import CURVES_FILE
from sb3_distill.results.figures import show_literally
from sb3_distill.results.statistics import GEOMETRIC_MEAN
from sb3_distill.study.manifest import Manifest, group_seeds
from sb3_distill.study.tables import Group, plot_factors, plot_group_sizes, plot_groups
from sb3_distill.visualize.curves import plot_runs

# Number of steps that a video of localization maps shows
_VIDEO_STEPS = 240


@dataclass(frozen=True)
class Picture:
    """
    :param data: the file in base64
    :param caption: the caption
    :param inches: width of the figure in inches
    """

    data: str
    caption: str
    inches: float = 0.0


def encode(figure: Figure) -> str:
    """
    :param figure: a figure
    :return: the figure as PNG in base64
    """
    buffer = io.BytesIO()
    show_literally(figure)
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def draw_videos(folder: Path, manifests: Sequence[Manifest]) -> list[Picture]:
    """
    :param folder: a study's folder
    :param manifests: manifests of the finished cells
    :return: one video per game, with the localization maps of a student that has a global max-pool
    """
    from sb3_distill.visualize.activations import is_pooled
    from sb3_distill.visualize.episodes import play_episodes
    from sb3_distill.visualize.maps import draw_maps, write_pictures

    videos: dict[str, Picture] = {}
    for manifest in manifests:
        cell = manifest.cell
        try:
            if cell.algo not in STUDENTS or cell.env in videos or not is_atari(cell.env):
                continue
            zips = cell.zips(manifest.run_in(folder))
            agents = {label: load_teacher(path, device="cpu") for label, path in zips.items()}
        except (AgentError, gym.error.Error):
            continue
        pooled = next(((label, agent) for label, agent in agents.items() if is_pooled(agent)), None)
        if pooled is None:
            continue
        label, agent = pooled
        (episode,) = play_episodes(agent, cell.env, max_steps=_VIDEO_STEPS)
        pictures, chosen = draw_maps(agent, episode)
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / "maps.mp4"
            write_pictures(pictures, path)
            data = base64.b64encode(path.read_bytes()).decode()
        videos[cell.env] = Picture(
            data,
            f"{' '.join([f'{cell.env},', *cell.row_labels.values(), label]).rstrip()}: the frame, the maps "
            f"{', '.join(map(str, chosen))} that contribute most to its actions, their peaks, and the maximum of all.",
        )
    return list(videos.values())


def draw_figures(folder: Path, groups: Sequence[Group], manifests: Sequence[Manifest]) -> list[Picture]:
    """
    :param folder: a study's folder
    :param groups: groups of the study's results
    :param manifests: manifests of the finished cells
    :return: the figures of the report
    """
    figures = [(plot_groups(groups), "Bars: mean over seeds. Points: single runs.")] if groups else []
    if (factors := plot_factors(groups)) is not None:
        figures.insert(0, (factors, "Pale: runs that differ in this alone. Bold: their means."))
    # A multi-task student is one network for all tasks, so plot its size with the mean over the tasks.
    sized = [group for group in groups if group.labels.get("task", GEOMETRIC_MEAN) == GEOMETRIC_MEAN]
    sizes = {(group.labels.get("env"), group.n_bytes) for group in sized if group.percents}
    # Plot sizes only if students of the same game differ in size (the same architecture has another size per game).
    if len(sizes) > len({env for env, _ in sizes}):
        figures.append((plot_group_sizes(sized), "Size against return: mean over seeds, and the range of single runs."))
    for members in group_seeds(manifests):
        drawn = [own for own in members if (own.run_in(folder) / CURVES_FILE).is_file()]
        if drawn and drawn[0].cell.algo == "rtpd":
            labels = " ".join(label for name, label in drawn[0].cell.labels.items() if name != "seed")
            caption = f"Learning curves: {labels}, seed {', '.join(str(own.cell.seed) for own in drawn)}."
            figures.append((plot_runs([own.run_in(folder) for own in drawn]), caption))
    return [Picture(encode(figure), caption, figure.get_figwidth()) for figure, caption in figures]
