"""What a search leaves: the student as a run folder, its export, the front, a figure, a report, and the record."""

import csv
import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from sb3_distill.agents.files import ZOO_STATISTICS, AgentError
from sb3_distill.common.files import file_name, model_zip, run_folder, whole_file, write_whole
from sb3_distill.common.log import hidden_messages
from sb3_distill.common.utils import counted
from sb3_distill.compress.candidates import Space, weight_bits_text
from sb3_distill.compress.claim import Claim, Claims
from sb3_distill.compress.play import normalize_config
from sb3_distill.compress.search import Search, Student, scored_front
from sb3_distill.export.export import C_FILE, ExportError, export_agent
from sb3_distill.results.figures import add_legend, clip_outliers, make_axes, percent_label, save_figure, scale_by_size
from sb3_distill.results.statistics import FORMULAS, SIGNED_QUOTIENT
from sb3_distill.results.tables import to_json
from sb3_distill.study.manifest import versions
from sb3_distill.study.report import Section, to_page
from sb3_distill.study.reporting.pictures import Picture, encode

FORMAT = 1
RECORD, FRONT, FIGURE, REPORT = "compress.json", "front.csv", "front.png", "report.html"
STUDENT, EXPORT = "student", "export"


@hidden_messages()
def _export(form: str, zip_path: Path, folder: Path, env_id: str) -> dict[str, int]:
    description = export_agent(zip_path, folder, env_id, formats=[form])
    return {name: file.bytes for name, file in description.files.items()}


# By --target: writes and checks the export of a student, and returns the bytes of its files
TARGETS: dict[str, Callable[[Path, Path, str], dict[str, int]]] = {
    form: partial(_export, form) for form in ("onnx", "c")
}


def write_student(zip_path: Path, output: Path, search: Search, student: Student) -> Path:
    """
    :param zip_path: the student's file
    :param output: the folder of the outcome
    :param search: the search
    :param student: the student
    :return: the student's zip in a run folder, as the Zoo makes one
    :raises OSError: a file cannot be written
    """
    env_id, env_name = search.env_id, file_name(search.env_id)
    own = run_folder(output / STUDENT, "qpd", env_id)
    recipe, entries = search.seen.recipe, search.space.entries(student.outcome.params)
    config: dict[str, Any] = {
        "env_wrapper": [wrapper.to_config() for wrapper in recipe.wrappers or ()],
        "vec_env_wrapper": [wrapper.to_config() for wrapper in recipe.vec_wrappers],
        "frame_stack": recipe.frame_stack,
    }
    if search.statistics is not None:
        config["normalize"] = normalize_config(search.seen.keys)
    config = {name: value for name, value in config.items() if value} | {"policy": entries["policy"]}
    args = {
        "algo": "qpd",
        "env": env_id,
        "env_kwargs": dict(recipe.env_kwargs),
        "gym_packages": list(search.gym_packages),
        "seed": search.plan.seed,
    }
    write_whole(own / env_name / "config.yml", yaml.safe_dump(config))
    write_whole(own / env_name / "args.yml", yaml.safe_dump(args))
    if search.statistics is not None:
        write_whole(own / env_name / ZOO_STATISTICS, zip_path.with_name(ZOO_STATISTICS).read_bytes())
    path = model_zip(own, env_id)
    write_whole(path, zip_path.read_bytes())
    return path


class Exports:
    """
    The student that the folder holds, with its export.

    :param output: the folder of the outcome
    :param search: the search
    :param target: form of the export
    """

    def __init__(self, output: Path, search: Search, target: str) -> None:
        self.output, self.search, self.target = output, search, target
        # Bytes of the exported files; and by file of a student, why its export was refused
        self.files: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    def clear(self) -> None:
        """Remove what an earlier student has left."""
        self.files = {}
        for name in (STUDENT, EXPORT):
            shutil.rmtree(self.output / name, ignore_errors=True)

    def write(self, student: Student) -> str:
        """
        :param student: the student that takes the place of an earlier one
        :return: why its export is refused; empty: it is not
        :raises OSError: a file cannot be written
        """
        self.clear()
        path = write_student(self.output / "cells" / student.outcome.zip, self.output, self.search, student)
        try:
            self.files = TARGETS[self.target](path, self.output / EXPORT, self.search.env_id)
        except (ExportError, AgentError) as error:
            self.refused[student.outcome.zip] = str(error)
        return self.refused.get(student.outcome.zip, "")


def front_table(front: Sequence[Student], space: Space, tries: Sequence[Claim]) -> list[list[str]]:
    """
    :param front: the front
    :param space: what could be chosen
    :param tries: the tries on fresh starts
    :return: one line for each student of the front, and for each that failed on fresh starts (of its last try), the
        header first
    """
    claims = {each.student.outcome.zip: each for each in tries}
    # One that failed on fresh starts may not be of the front any more.
    shown = {each.outcome.zip: each for each in [*(claim.student for claim in claims.values()), *front]}
    header = ["student", "weight bits", "input bits", "bytes", "temperature", "% of teacher, search"]
    table = [[*header, "% of teacher, fresh starts", "episodes", "lower bound", "kept"]]
    for student in sorted(shown.values(), key=lambda each: each.n_bytes):
        assert student.pairs is not None
        params = student.outcome.params
        temperature = space.entries(params).get("temperature")
        claim = claims.get(student.outcome.zip)
        table.append(
            [
                space.describe(params),
                weight_bits_text(params),
                str(params["input_bits"]),
                str(student.n_bytes),
                "" if temperature is None else f"{temperature:.3g}",
                f"{student.pairs.percent:.1f}",
                *(["", "", "", ""] if claim is None else _claim_cells(claim)),
            ]
        )
    return table


def _claim_cells(claim: Claim) -> list[str]:
    bound = "" if claim.bound is None else f"{claim.bound:.1f}"
    return [f"{claim.percent:.1f}", str(len(claim.student_score.returns)), bound, "yes" if claim.holds else "no"]


def draw_front(search: Search, tries: Sequence[Claim]) -> Figure:
    """
    :param search: the search, with all students
    :param tries: the tries on fresh starts
    :return: size against return, with the front and the chosen student
    """
    scored = [student for student in search.students if student.pairs is not None]
    figure, axes = make_axes("bytes", percent_label([SIGNED_QUOTIENT]))
    axes.scatter([each.n_bytes for each in scored], [each.percent for each in scored], s=14, color="0.6", label="tried")
    front = scored_front(search.students)
    axes.step(
        [each.n_bytes for each in front], [each.percent for each in front], where="post", color="#0072B2", label="front"
    )
    keep = search.goal.keep
    axes.axhline(keep, color="0.5", linestyle=":", linewidth=1, label=f"to keep: {keep:g}%")
    axes.axhline(100, color="0.7", linewidth=1, zorder=0)
    for each in tries:
        low = 0.0 if each.bound is None else max(each.percent - each.bound, 0.0)
        style: dict[str, Any] = {
            "color": "#D55E00" if each.holds else "0.3",
            "marker": "*" if each.holds else "x",
            "markersize": 11,
        }
        label = "chosen, on fresh starts, with its bound" if each.holds else "failed on fresh starts"
        if not each.holds and each is not tries[0]:
            # Of those that failed, the first is in the legend.
            label = ""
        axes.errorbar([each.student.n_bytes], [each.percent], yerr=[[low], [0.0]], linestyle="", label=label, **style)
    if any(each.percent > 0 for each in scored):
        axes.set_ylim(bottom=max(0.0, min(each.percent for each in scored) - 5.0))
    if scored:
        scale_by_size(axes)
        clip_outliers(axes, [(each.n_bytes, each.percent) for each in scored], [keep, 100.0])
    add_legend(figure, below=True)
    return figure


def _student_record(student: Student, space: Space) -> dict[str, Any]:
    outcome = asdict(student.outcome)
    outcome.pop("traces")
    percent = None if student.pairs is None else student.pairs.percent
    return {**outcome, "network": space.describe(student.outcome.params), "percent_of_teacher": percent}


def _claim_record(claim: Claim) -> dict[str, Any]:
    return {
        "zip": claim.student.outcome.zip,
        "n_bytes": claim.student.n_bytes,
        "n_episodes": len(claim.student_score.returns),
        "first_seed": claim.first_seed,
        "error": claim.error,
        "mean": claim.student_score.mean,
        "teacher_mean": claim.teacher_score.mean,
        "percent_of_teacher": claim.percent,
        "lower_bound": claim.bound,
        "holds": claim.holds,
        "seconds": claim.seconds,
    }


def write_outputs(output: Path, claims: Claims, exports: Exports, text: str, facts: dict[str, Any]) -> None:
    """
    Write the front, the figure, the report, and the record.

    :param output: the folder of the outcome
    :param claims: the tries on fresh starts
    :param exports: the student and its export
    :param text: the outcome in words
    :param facts: what else the record says: the command, the budget, seconds
    :raises OSError: a file cannot be written
    """
    search, tries, chosen = claims.search, claims.tries, claims.chosen
    space, teacher = search.space, search.teacher
    table = front_table(scored_front(search.students), space, tries)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    write_whole(output / FRONT, buffer.getvalue())
    figure = draw_front(search, tries)
    save_figure(figure, output / FIGURE)
    found = {**versions(), "optuna": version("optuna")}
    section = Section(
        name="compress",
        title=f"{search.env_id}: the smallest student that keeps {search.goal.keep:g}%",
        paper="",
        notes=text,
        n_cells=search.n_rounds,
        missing=0,
        failures=[],
        table=table,
        n_left=2,
        legend=(
            f"The front of {counted(len(search.students), 'student')}: none of the others is both as small and as "
            f"good. Those that failed on fresh starts are listed, too. % of the teacher: the {SIGNED_QUOTIENT} "
            f"{FORMULAS[SIGNED_QUOTIENT]}, paired by start; in the search over "
            f"{counted(len(search.reference.returns), 'episode')}, by which students were chosen, so that it flatters "
            "them."
        ),
        figures=[Picture(encode(figure), "Size against return.", figure.get_figwidth())],
        videos=[],
        commands=[str(facts["command"])],
        versions=[", ".join(f"{name} {each}" for name, each in found.items())],
    )
    write_whole(output / REPORT, to_page([section], section.title))
    record = {
        "format": FORMAT,
        **facts,
        "outcome": text,
        "env": search.env_id,
        "teacher_keys": teacher.facts.student_keys,
        "student_keys": search.seen.keys,
        "frame_stack": search.seen.recipe.frame_stack,
        "teacher": {
            "source": teacher.source,
            "sha256": teacher.sha256,
            "n_bytes": teacher.n_bytes,
            "mean": search.reference.mean,
        },
        "goal": asdict(search.goal),
        "plan": asdict(search.plan),
        "n_rounds": search.n_rounds,
        "temperature": space.temperature,
        "runs": [
            {name: getattr(run, name) for name in ("seed", "n_timesteps", "bars", "first_seed")} for run in search.runs
        ],
        "students": [_student_record(student, space) for student in search.students],
        "tries": [_claim_record(each) for each in tries],
        "chosen": None if chosen is None else chosen.student.outcome.zip,
        "target": exports.target,
        "export": exports.files,
        "refused": exports.refused,
        "versions": found,
    }
    with whole_file(output / RECORD) as file:
        file.write(to_json(record).encode())


def describe(claims: Claims, exports: Exports) -> str:
    """
    :param claims: the tries on fresh starts
    :param exports: the student and its export, and why others could not be exported
    :return: the outcome in words
    """
    search, chosen = claims.search, claims.chosen
    teacher, goal = search.teacher, search.goal
    n_tried = len({each.student.outcome.zip for each in claims.tries})
    tried = f"Tried: {counted(len(search.students), 'student')}, {n_tried} of them on fresh starts."
    if chosen is None:
        percents = [each.pairs.percent for each in search.students if each.pairs is not None]
        best = f"The best one had {max(percents):.1f}% on the starts of the search." if percents else "None was scored."
        most = "" if goal.max_bytes is None else f" in at most {goal.max_bytes:,} bytes"
        advice = ["take a longer --budget", "a lower --keep", *([] if goal.max_bytes is None else ["more --max-bytes"])]
        ways = f"{', '.join(advice[:-1])} or {advice[-1]}"
        refused = sorted(set(exports.refused.values()))
        why = f" Their export was refused: {'; '.join(refused)}" if refused else ""
        return (
            f"No student was shown to keep {goal.keep:g}% of the teacher{most}. {best} {tried}{why} The front is kept: "
            f"{ways}."
        )
    # Of some agents the size is not known.
    theirs = teacher.n_bytes
    share = f" ({100.0 * chosen.student.n_bytes / theirs:.3g}% of the teacher's {theirs:,})" if theirs else ""
    files = ", ".join(
        f"{n_bytes:,} bytes in {'the arrays of ' if name == C_FILE else ''}{name}"
        for name, n_bytes in exports.files.items()
    )
    return (
        f"{chosen.student.n_bytes:,} bytes{share} keep "
        f"{chosen.percent:.1f}% of the teacher's return, and at least {chosen.bound:.1f}% with a confidence of "
        f"{goal.confidence:g}%, over {len(chosen.student_score.returns)} episodes from starts on which nothing was "
        f"chosen. Exported: {files}. {tried}"
    )
