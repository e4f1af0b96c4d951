"""Results of a study that somebody damaged or wrote by hand."""

import json
import re

import pytest

from sb3_distill.cli import main
from sb3_distill.results.row import Row
from sb3_distill.results.tables import to_json
from sb3_distill.study.cell import StudyError
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import Manifest, manifest_of
from sb3_distill.study.reporting.results import load_results
from sb3_distill.study.run import RESULTS, collect
from tests.study.studies import write


@pytest.fixture
def study(tmp_path):
    """The folder of a study with two finished cells."""
    study = read_study(write(tmp_path / "s.yml"))
    for cell in study.cells:
        row = Row(cell.env, cell.key, "pd", 10, 40, percent_of_teacher=90.0, percent_interval=[80.0, 99.0])
        path = tmp_path / "study/cells" / cell.key / "manifest.json"
        path.parent.mkdir(parents=True)
        own = Row.from_dict({**row.to_dict(), **cell.labels})
        path.write_text(to_json(Manifest(cell, (own,), {"train": 1.0}, "python", {"python": "3"}).to_dict()))
    collect(study, tmp_path / "study")
    return tmp_path / "study"


def put(content, place, value):
    *outer, last = place
    for name in outer:
        content = content[name]
    content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["agents"], 1, "rows must be a list"),
        (["agents", 0, "percent_of_teacher"], "90", "percent_of_teacher must be a number or null, not '90'"),
        (["agents", 0, "percent_interval"], [1.0], "percent_interval of a row must be two numbers"),
        (["agents", 0, "n_bytes"], None, "n_bytes must be a whole number"),
        (["agents", 0, "loss"], {}, "the label loss of a row"),
        (["manifests", 0, "rows"], [], "a manifest has no rows"),
        (["manifests", 0, "seconds"], {"train": "x"}, "seconds.train must be a number"),
        (["manifests", 0, "cell", "labels"], {"loss": 1}, "labels.loss must be text"),
        (["manifests", 0, "cell", "evaluation"], {"epsilon": "x"}, "evaluation.epsilon of a manifest must be a number"),
        (["study", "cells"], "2", "study.cells must be a whole number"),
        (["study", "grid"], [], "study.grid must be a mapping"),
        (["study", "published"], [{"env": "A"}], "study.published.percent must be a number"),
        (["failures"], [1], "failures must be a mapping"),
        (["manifests", 0, "rows", 0, "agent"], "../../../etc", "A cell is the name of a folder.*not '../../../etc'"),
        (["manifests", 0, "cell", "algo"], "..", "An algorithm is the name of a folder.*not '..'"),
    ],
)
def test_report_says_what_is_wrong(place, value, message, study, tmp_path, capsys):
    assert len(load_results(study).manifests) == 2
    content = json.loads((study / RESULTS).read_text())
    put(content, place, value)
    (study / RESULTS).write_text(json.dumps(content))
    assert main(["report", str(study), "-o", str(tmp_path / "report")]) == 1
    assert re.search(f"sb3-distill report: .*{message}", capsys.readouterr().err)


def test_a_damaged_manifest_is_named(study):
    cell = read_study(study.parent / "s.yml").cells[0]
    path = study / "cells" / cell.key / "manifest.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(StudyError, match=r"manifest.json is damaged .*delete its folder"):
        manifest_of(study, cell)
