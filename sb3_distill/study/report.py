"""``sb3-distill report``: the results of studies as one self-contained page, as Markdown and as LaTeX."""

import base64
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
from matplotlib.figure import Figure

from sb3_distill.algorithms import STUDENTS
from sb3_distill.common.arguments import add_gym_packages, percentage
from sb3_distill.common.files import write_together
from sb3_distill.common.formats import format_problem
from sb3_distill.common.locks import locked
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.export.web.page import read_play
from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.schema import conform, read_fields
from sb3_distill.reading.text import read_json
from sb3_distill.results.comparison import MARGIN
from sb3_distill.results.curves import CURVES_FILE, N_LAST
from sb3_distill.results.figures import show_literally
from sb3_distill.results.row import FORMAT, Row
from sb3_distill.results.statistics import GEOMETRIC_MEAN
from sb3_distill.results.tables import escape_markdown, format_markdown
from sb3_distill.study.cell import Cell, StudyError, plays_one_game
from sb3_distill.study.manifest import Manifest, describe_versions, group_seeds
from sb3_distill.study.run import RESULTS, describe_replaced, find_replaced
from sb3_distill.study.tables import (
    Group,
    describe_numbers,
    geometric_groups,
    group_rows,
    plot_factors,
    plot_group_sizes,
    plot_groups,
    table_of,
    to_latex,
)
from sb3_distill.visualize.curves import plot_runs

# Number of steps that a video of localization maps shows
_VIDEO_STEPS = 240


@dataclass(frozen=True)
class Failure:
    """
    A cell that failed.

    :param labels: its labels
    :param problem: why it failed
    """

    labels: dict[str, str]
    problem: str


@dataclass(frozen=True)
class Results:
    """
    The results of a study, as read from its results file.

    :param study: the content of the study file, with the number of cells and the labels of the grid
    :param rows: the rows of the finished cells
    :param manifests: the manifests of the finished cells
    :param failures: the cells that failed
    """

    study: dict[str, Any]
    rows: list[Row]
    manifests: list[Manifest]
    failures: list[Failure]


# Names in the file that are others here, and what the study says that reports show
_FIELDS = {"agents": "rows"}
_STUDY = {
    **dict.fromkeys(("name", "title", "paper", "notes"), str),
    "cells": int,
    "grid": dict[str, list[str]],
    "published": list[dict[str, Any]],
}


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


@dataclass(frozen=True)
class Section:
    """
    The section of the report about one study.

    :param name: name of the study
    :param title: title of the study
    :param paper: the paper whose results are reproduced
    :param notes: differences from the paper
    :param n_cells: number of cells
    :param missing: number of cells that have not finished
    :param failures: labels and problem of each cell that failed, as text
    :param table: rows of the table, the header first; empty before the first cell has finished
    :param n_left: number of left-aligned text columns at the start of the table
    :param legend: text below the table
    :param figures: figures of the results
    :param videos: videos of localization maps
    :param commands: the commands that repeat the training
    :param versions: versions of packages and hardware
    """

    name: str
    title: str
    paper: str
    notes: str
    n_cells: int
    missing: int
    failures: list[str]
    table: list[list[str]]
    n_left: int
    legend: str
    figures: list[Picture]
    videos: list[Picture]
    commands: list[str]
    versions: list[str]


def load_results(folder: Path) -> Results:
    """
    :param folder: a study's folder
    :return: the study's results
    :raises StudyError: the folder has no results
    """
    try:
        content = read_json(folder / RESULTS)
        if not isinstance(content, dict):
            raise ReadError(f"it is no mapping, but {type(content).__name__}")
        problem = format_problem(RESULTS, content.pop("format", FORMAT), FORMAT)
        if problem is not None:
            raise ReadError(problem)
        results = read_fields(Results, {_FIELDS.get(name, name): value for name, value in content.items()}, RESULTS)
        study = results.study | {
            name: conform(results.study.get(name), annotation, f"study.{name}") for name, annotation in _STUDY.items()
        }
        for row in study["published"]:
            conform(row.get("percent"), float, "study.published.percent")
        return replace(results, study=study)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{folder} holds no results of a study ({RESULTS}: {error}): run `sb3-distill study` first."
        ) from error


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
    from sb3_distill.agents.files import AgentError
    from sb3_distill.agents.load import load_teacher
    from sb3_distill.envs.recipe import is_atari
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


def describe_protocol(cells: Sequence[Cell]) -> str:
    """
    :param cells: the finished cells
    :return: a description of how scores were measured
    """
    evaluation = cells[0].evaluation
    beside_teacher = [cell.algo == "rtpd" and not plays_one_game(cell) for cell in cells]
    sentences = []
    if not all(beside_teacher):
        best = ", the best model of its evaluations" if evaluation.get("select") == "best" else ""
        starts = "held-out starts" if "starts_from" in evaluation else "starts"
        sentences.append(
            f"{evaluation.get('n_episodes', 30)} episodes with {evaluation.get('epsilon', 0.0):.0%} random actions for "
            f"each run{best}, the same {starts} for teacher and student."
        )
    if any(beside_teacher):
        sentences.append(
            f"Students beside a teacher: the mean over the last {N_LAST} evaluations of each run, which follow each "
            "other and so give no interval for a single run."
        )
    return " ".join(sentences)


def describe_legend(manifests: Sequence[Manifest]) -> str:
    """
    :param manifests: manifests of finished cells
    :return: how the numbers of the table were made
    """
    cells = [manifest.cell for manifest in manifests]
    minutes = sum(manifest.total_seconds for manifest in manifests) / 60
    environments = ", ".join(dict.fromkeys(cell.env for cell in cells))
    seeds = sorted({cell.seed for cell in cells})
    sentences = [f"{environments}. Seeds {', '.join(map(str, seeds))}.", describe_protocol(cells)]
    # Manifests of earlier versions say True.
    if len(seeds) > 1 and any(cell.recording_key and cell.records in ("shared", True) for cell in cells):
        sentences.append(
            "All seeds learned from one recording of the teacher's play: their spread leaves out that of the play."
        )
    if any(cell.students for cell in cells):
        sentences.append(
            "Students of one run learned from the same play and the same minibatches: they are no independent runs."
        )
    copies = [row for manifest in manifests for row in manifest.rows if row.n_distinct and len(row.returns)]
    repeated = [row for row in copies if (row.n_distinct or 0) < len(row.returns)]
    if repeated:
        fewest = min(repeated, key=lambda row: row.n_distinct or 0)
        sentences.append(
            f"In {len(repeated)} of {len(copies)} rows, episodes are exact repeats of others (down to "
            f"{fewest.n_distinct} distinct ones of {len(fewest.returns)}): intervals rest on the distinct ones."
        )
    return " ".join([*sentences, f"{minutes:.0f} minutes of computing."])


def to_markdown(section: Section) -> str:
    """
    :param section: the section of a study
    :return: the section in Markdown, without figures and videos
    """
    text = f"## {escape_markdown(section.title)}\n"
    if section.table:
        text += f"\n{format_markdown(section.table, section.n_left)}\n{escape_markdown(section.legend)}\n"
    if section.missing:
        text += f"\n{section.missing} of {section.n_cells} cells have not finished.\n"
    text += "".join(f"\nFailed: {escape_markdown(failure)}\n" for failure in section.failures)
    return text + (f"\n{escape_markdown(section.notes)}\n" if section.notes else "")


def to_page(sections: Sequence[Section], title: str, plays: Sequence[str] = ()) -> str:
    """
    :param sections: the sections
    :param title: title of the page
    :param plays: pages on which students play
    :return: one self-contained page
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("sb3_distill.study", "."), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html.j2").render(title=title, studies=sections, plays=plays)


def describe_study(folder: Path, margin: float = MARGIN) -> Section:
    """
    :param folder: a study's folder
    :param margin: per cent of the teacher by which a student may be worse
    :return: the study's section of the report
    """
    results = load_results(folder)
    study, manifests = results.study, results.manifests
    grid = study["grid"]
    groups = group_rows(results.rows, grid, study["published"])
    table = [*groups, *geometric_groups(groups, list(dict.fromkeys(grid.get("env", ()))))]
    return Section(
        name=study["name"],
        title=study["title"],
        paper=study["paper"],
        notes=study["notes"],
        n_cells=study["cells"],
        missing=study["cells"] - len(manifests),
        failures=[f"{' '.join(failure.labels.values())}: {failure.problem}" for failure in results.failures],
        table=table_of(table, margin) if table else [],
        n_left=len(groups[0].labels) if groups else 0,
        legend=f"{describe_legend(manifests)} {describe_numbers(table, margin)}" if manifests else "",
        figures=draw_figures(folder, groups, manifests),
        videos=draw_videos(folder, manifests),
        # Make paths relative to the parent of the study's folder, so that the report shows no private paths.
        commands=[manifest.command.replace(f"{folder.resolve().parent}/", "") for manifest in manifests],
        versions=describe_versions(manifests),
    )


def write_report(
    folders: Sequence[Path], output: Path, title: str, margin: float = MARGIN, exports: Sequence[Path] = ()
) -> None:
    """
    Write ``index.html``, ``tables.md`` and ``tables.tex``.

    :param folders: folders of studies
    :param output: folder for the report's files
    :param title: title of the report
    :param margin: per cent of the teacher by which a student may be worse
    :param exports: folders with a ``play.html`` (``export --format web``), whose students play in the report
    :raises StudyError: a folder holds no results
    :raises ValueError: a folder has no such page
    :raises OSError: a file cannot be written
    """
    plays = [read_play(folder) for folder in exports]
    sections = [describe_study(folder, margin) for folder in folders]
    latex = [to_latex(section.table, section.n_left, section.title) for section in sections if section.table]
    texts = "\n".join(map(to_markdown, sections)), "\n".join(latex), to_page(sections, title, plays)
    files = dict(zip(("tables.md", "tables.tex", "index.html"), texts, strict=True))
    with locked(output, "writes a report", wait=True):
        write_together({output / name: content for name, content in files.items()})


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments after the verb
    :return: exit status
    """
    description = "Write the results of studies as one page (index.html), Markdown (tables.md) and LaTeX (tables.tex)."
    parser = Parser("sb3-distill report", description, "logs/studies/pd_table1_small -o report/")
    parser.add_argument("studies", type=Path, nargs="+", help="folders that `sb3-distill study` wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("report"), help="folder to be written")
    parser.add_argument("--title", default="Policy distillation", help="title of the report")
    parser.add_argument(
        "--margin", type=percentage, default=MARGIN, help="per cent of the teacher by which a student may be worse"
    )
    parser.add_argument(
        "--play",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders that `sb3-distill export --format web` wrote: their students play in the report",
    )
    add_gym_packages(parser)
    args = parser.parse_args(argv)
    try:
        trust_packages(args.gym_packages)
        for folder in args.studies:
            replaced = find_replaced(folder, load_results(folder).manifests)
            if replaced:
                print(f"Warning: {describe_replaced(replaced)}", file=sys.stderr)
        write_report(args.studies, args.output, args.title, args.margin, args.play)
    except (ValueError, OSError) as error:
        print(f"sb3-distill report: {error}", file=sys.stderr)
        return 1
    print(args.output / "index.html")
    return 0
