"""``sb3-distill report``: the results of studies as one self-contained page, as Markdown and as LaTeX."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sb3_distill.common.arguments import add_gym_packages, percentage
from sb3_distill.common.files import check_own_folder, write_together
from sb3_distill.common.locks import locked
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.export.web.page import read_play
from sb3_distill.results.comparison import MARGIN
from sb3_distill.results.tables import escape_markdown, format_markdown
from sb3_distill.study.manifest import describe_versions
from sb3_distill.study.plan.replaced import describe_replaced, find_replaced
from sb3_distill.study.reporting.legend import describe_legend
from sb3_distill.study.reporting.means import geometric_groups
from sb3_distill.study.reporting.pictures import Picture, draw_figures, draw_videos
from sb3_distill.study.reporting.results import load_results
from sb3_distill.study.tables import describe_numbers, group_rows, table_of, to_latex


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


def to_markdown(section: Section) -> str:
    """
    :param section: the section of a study
    :return: the section in Markdown, without figures and videos
    """
    text = f"## {escape_markdown(section.title)}\n"
    if section.table:
        text += f"\n{format_markdown(section.table, section.n_left)}\n{escape_markdown(section.legend)}\n"
    if section.missing:
        text += f"\nCells that have not finished: {section.missing} of {section.n_cells}.\n"
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
    table = [*groups, *geometric_groups(groups, list(dict.fromkeys(grid.get("env", ()))), study["published"])]
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


# In the head of every page
GENERATOR = 'name="generator" content="sb3-distill"'


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
    :raises OSError: a file cannot be written, or the folder holds somebody else's files of these names
    """
    page = output / "index.html"
    is_ours = page.is_file() and GENERATOR in page.read_text(errors="replace")[:1_000]
    check_own_folder(output, ("index.html", "tables.md", "tables.tex"), is_ours)
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
