"""The results of a study, as reports read them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sb3_distill.common.formats import format_problem
from sb3_distill.reading.limits import ReadError
from sb3_distill.reading.schema import conform, read_fields
from sb3_distill.reading.text import read_json
from sb3_distill.results.row import FORMAT, Row
from sb3_distill.study.cell import StudyError
from sb3_distill.study.manifest import Manifest
from sb3_distill.study.run import RESULTS

# Names in the file that are others here, and what the study says that reports show
_FIELDS = {"agents": "rows"}
_STUDY = {
    **dict.fromkeys(("name", "title", "paper", "notes"), str),
    "cells": int,
    "grid": dict[str, list[str]],
    "published": list[dict[str, Any]],
}


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


def load_results(folder: Path) -> Results:
    """
    :param folder: a study's folder
    :return: the study's results
    :raises StudyError: the folder has no results
    """
    if not (folder / RESULTS).is_file():
        place = "" if folder.is_dir() else f" ({folder} is {'a file' if folder.exists() else 'not there'})"
        raise StudyError(f"{folder} holds no results of a study{place}: run `sb3-distill study` first.")
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
