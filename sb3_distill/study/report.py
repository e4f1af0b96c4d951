"""``sb3-distill report``: the results of studies as one self-contained page, as Markdown and as LaTeX."""

import argparse
import base64
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.figure import Figure

from sb3_distill.common.figures import COLOURS, make_axes
from sb3_distill.common.tables import format_markdown
from sb3_distill.study.cli import RESULTS
from sb3_distill.study.files import StudyError
from sb3_distill.study.tables import Group, group_rows, table_of, to_latex

# Steps of an episode that a video of maps shows
_VIDEO_STEPS = 240


def load_results(folder: Path) -> dict[str, Any]:
    """
    :param folder: of a study
    :return: its results
    :raises StudyError: there are none
    """
    try:
        results = json.loads((folder / RESULTS).read_text())
        if not results["agents"]:
            raise StudyError(f"{folder} has no finished cell: run `sb3-distill study` first.")
        return results
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise StudyError(f"{folder} holds no results of a study ({error}): run `sb3-distill study` first.") from error


def encode(figure: Figure) -> str:
    """
    :param figure: a picture
    :return: PNG in base64
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return base64.b64encode(buffer.getvalue()).decode()


def plot_groups(groups: Sequence[Group]) -> Figure:
    """
    :param groups: of a study
    :return: bars of per cent of the teacher, the seeds as points, the paper's numbers as lines
    """
    figure, axes = make_axes("", "% of the teacher's return")
    names = list(groups[0].labels)
    last = names[-1]
    outer = list(dict.fromkeys(" ".join(group.labels[name] for name in names[:-1]) for group in groups))
    inner = list(dict.fromkeys(group.labels[last] for group in groups))
    width = 0.8 / len(inner)
    labelled: set[str] = set()
    for group in groups:
        position = outer.index(" ".join(group.labels[name] for name in names[:-1]))
        index = inner.index(group.labels[last])
        x = position - 0.4 + (index + 0.5) * width
        if not group.percents:
            continue
        mean = sum(group.percents) / len(group.percents)
        label = group.labels[last] if group.labels[last] not in labelled else None
        labelled.add(group.labels[last])
        axes.bar(x, mean, width * 0.9, color=COLOURS[index % len(COLOURS)], label=label)
        axes.plot([x] * len(group.percents), group.percents, "o", color="black", markersize=2.5)
        if group.published is not None:
            paper = "paper" if "paper" not in labelled else None
            labelled.add("paper")
            axes.plot([x - width * 0.4, x + width * 0.4], [group.published] * 2, color="black", label=paper)
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    axes.set_xticks(
        range(len(outer)), outer, rotation=20 if len(outer) > 2 else 0, ha="right" if len(outer) > 2 else "center"
    )
    figure.legend(loc="outside right upper", title=last, frameon=False, fontsize="small")
    return figure


def draw_videos(folder: Path, manifests: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """
    :param folder: of a study
    :param manifests: of its finished cells
    :return: localization maps of its students with a global max-pool, one video per game
    """
    from sb3_distill import load_teacher
    from sb3_distill.common.archive import TeacherError
    from sb3_distill.common.evaluation import is_atari
    from sb3_distill.visualize.activations import is_pooled
    from sb3_distill.visualize.episodes import play_episodes
    from sb3_distill.visualize.maps import draw_maps, write_pictures

    videos: dict[str, dict[str, str]] = {}
    for manifest in manifests:
        cell = manifest["cell"]
        if cell["algo"] not in ("pd", "qpd") or cell["env"] in videos or not is_atari(cell["env"]):
            continue
        run = folder / "cells" / manifest["rows"][0]["agent"] / cell["algo"] / f"{cell['env'].replace('/', '-')}_1"
        try:
            agent = load_teacher(run / f"{cell['env'].replace('/', '-')}.zip", device="cpu")
            if not is_pooled(agent):
                continue
        except TeacherError:
            continue
        (episode,) = play_episodes(agent, cell["env"], max_steps=_VIDEO_STEPS)
        pictures, chosen = draw_maps(agent, episode)
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / "maps.mp4"
            write_pictures(pictures, path)
            data = base64.b64encode(path.read_bytes()).decode()
        videos[cell["env"]] = {
            "data": data,
            "caption": f"{cell['env']}, {' '.join(map(str, cell['labels'].values()))}: the frame, the maps "
            f"{', '.join(map(str, chosen))} that its decisions depend on most, and the maximum over all maps.",
        }
    return list(videos.values())


def describe_study(folder: Path) -> dict[str, Any]:
    """
    :param folder: of a study
    :return: what the page shows of it
    """
    results = load_results(folder)
    study, manifests = results["study"], results["manifests"]
    labels = list(manifests[0]["cell"]["labels"])
    groups = group_rows(results["agents"], labels, study["published"])
    evaluation = manifests[0]["cell"]["evaluation"]
    minutes = sum(sum(manifest["seconds"].values()) for manifest in manifests) / 60
    environments = ", ".join(dict.fromkeys(manifest["cell"]["env"] for manifest in manifests))
    legend = (
        f"{environments}. Mean and standard deviation over seeds; {evaluation.get('n_episodes', 30)} episodes with "
        f"{evaluation.get('epsilon', 0.0):.0%} random actions for each run, the same starts for teacher and student. "
        f"{minutes:.0f} minutes of computing."
    )
    versions = manifests[0]["versions"]
    return {
        "name": study["name"],
        "title": study["title"],
        "paper": study["paper"],
        "notes": study["notes"],
        "n_cells": study["cells"],
        "missing": study["cells"] - len(manifests),
        "table": table_of(groups),
        "n_left": len(groups[0].labels),
        "legend": legend,
        "figures": [{"data": encode(plot_groups(groups)), "caption": "Bars: mean over seeds. Points: single runs."}],
        "videos": draw_videos(folder, manifests),
        "commands": [manifest["command"] for manifest in manifests],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def write_report(folders: Sequence[Path], output: Path, title: str) -> None:
    """
    Write ``index.html``, ``tables.md`` and ``tables.tex``.

    :param folders: of studies
    :param output: where the files go
    :param title: of the page
    :raises StudyError: a folder holds no results
    """
    # torch depends on it already
    from jinja2 import Environment, PackageLoader

    studies = [describe_study(folder) for folder in folders]
    environment = Environment(loader=PackageLoader("sb3_distill.study", "."), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(title=title, studies=studies)
    output.mkdir(parents=True, exist_ok=True)
    (output / "index.html").write_text(page)
    (output / "tables.md").write_text(
        "\n".join(
            f"## {study['title']}\n\n{format_markdown(study['table'], study['n_left'])}\n{study['legend']}\n"
            + (f"\n{study['notes']}\n" if study["notes"] else "")
            for study in studies
        )
    )
    latex = [to_latex(study["table"], study["n_left"], study["title"]) for study in studies]
    (output / "tables.tex").write_text("\n".join(latex))


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    parser = argparse.ArgumentParser(prog="sb3-distill report", description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+", help="folders that `sb3-distill study` wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("report"), help="folder (default: report)")
    parser.add_argument("--title", default="Policy distillation", help="of the page")
    args = parser.parse_args(argv)
    try:
        write_report(args.studies, args.output, args.title)
    except (StudyError, OSError) as error:
        print(f"sb3-distill report: {error}", file=sys.stderr)
        return 1
    print(args.output / "index.html")
    return 0
