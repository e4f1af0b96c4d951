"""Rows as they stand in files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sb3_distill.results.likeness import group_alike
from sb3_distill.results.row import Row, parse_rows, teachers_of
from sb3_distill.results.tables import to_json

FIRST, SECOND = "a" * 64, "b" * 64
ROW = Row("A", "cell", "pd", 1, 4, percent_of_teacher=90.0, teacher_sha256=FIRST, labels={"loss": "kl"}, seed=0)


@pytest.mark.parametrize(
    "row",
    [
        {"mean": 3.0, "mean_interval": [1.0, 5.0], "teacher_mean": None, "percent_of_teacher": None},
        {"percent_of_teacher_bytes": None, "n_macs": 8, "percent_of_teacher": 90.0, "returns": [1.0], "lengths": [2]},
        {"agent_sha256": FIRST, "n_macs": None, "percent_of_teacher": 90.0, "returns": [1.0]},
        {"player": "small", "percent_of_teacher": 90.0, "max_percent": None, "loss": "kl", "seed": "0"},
        {"task": "Pong", "percent_of_teacher": 90.0, "percent_interval": [80.0, 95.0], "seed": 0, "labels": "a label"},
    ],
)
def test_rows_are_written_as_they_were_read(row):
    row = {"env": "A", "agent": "x", "algo": "pd", "n_parameters": 1, "n_bytes": 4, **row}
    assert Row.from_dict(row).to_dict() == row
    assert parse_rows(to_json({"agents": [Row.from_dict(row).to_dict()]})) == [Row.from_dict(row)]


def test_what_is_no_number_is_null():
    row = Row("A", "x", "rtpd", 1, 4, player="small", percent_of_teacher=float("nan"), max_percent=float("nan"))
    written = json.loads(to_json(row.to_dict()))
    assert written["percent_of_teacher"] is None and written["max_percent"] is None
    assert Row.from_dict(written).to_dict() == written


def test_what_is_empty_is_left_out():
    kwargs = {"env": "A", "agent": "x", "algo": "pd", "n_parameters": 1, "n_bytes": 4}
    row = Row(**kwargs, returns=np.array([1.0, 2.0]), lengths=[], mean_interval=np.array([]))
    written = row.to_dict()
    assert list(written["returns"]) == [1, 2] and not {"lengths", "mean_interval"} & written.keys()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"agents": [1]}', '{"agents": [{"env": "A"}]}'])
def test_files_that_are_no_results(text):
    with pytest.raises(ValueError):
        parse_rows(text)


def test_a_mean_is_over_students_of_one_teacher():
    # Another seed is another student.
    other = replace(ROW, agent_sha256="c" * 64, seed=1)
    assert [len(rows) for rows in group_alike([ROW, other], ["env"])[1].values()] == [2]
    taught_by_another = replace(other, teacher_sha256=SECOND)
    assert teachers_of([ROW, taught_by_another, replace(ROW, teacher_sha256=None)]) == [FIRST, SECOND]
    names, groups = group_alike([ROW, taught_by_another], ["env"])
    assert "teacher_sha256" in names and [len(rows) for rows in groups.values()] == [1, 1]


@pytest.mark.parametrize(
    ("students", "expected"),
    [
        (
            {"net1": "Net1Policy", "wide": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [9]}, "loss": "nll"}},
            {
                "net1": {"policy": "Net1Policy", "loss": "kl"},
                "wide": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [9]}, "loss": "nll"},
            },
        ),
        (["Net1Policy"], {"net1": {"policy": "Net1Policy", "loss": "kl"}}),
    ],
)
def test_students_beside_a_teacher_have_settings_of_their_own(students, expected):
    """The policy and its arguments that the run names are the teacher's."""
    hyperparams = {"policy": "CnnPolicy", "policy_kwargs": {"net_arch": [4]}, "loss": "kl", "students": students}
    rows = [Row("A", "cell", "rtpd", 1, 4, player=name).to_dict() for name in expected]
    content = {"agents": rows, "manifests": [{"cell": {"hyperparams": hyperparams}, "rows": rows}]}
    empty = {"n_timesteps": None, "records": None}
    read = {row.player: row.settings for row in parse_rows(to_json(content))}
    assert read == {name: {**empty, **settings} for name, settings in expected.items()}
