"""The format of study files, and its JSON schema for editors."""

import json

import pytest

from sb3_distill.study.cell import EVALUATION_KEYS, StudyError
from sb3_distill.study.file import read_study
from sb3_distill.study.format.study_file import SCHEMA, Evaluation, check_study_file, json_schema
from tests.study.studies import write


def test_the_schema_in_the_package_is_what_the_code_says():
    """If this fails: write the text of ``json_schema()`` into the file ``SCHEMA``."""
    assert SCHEMA.read_text() == json_schema()
    schema = json.loads(SCHEMA.read_text())
    assert schema["required"] == ["grid"] and not schema["additionalProperties"]
    assert set(Evaluation.model_fields) == set(EVALUATION_KEYS)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"settings": [1]}, r"settings must be a mapping of names to values, not \[1\]"),
        ({"per_env": {"CartPole-v1": 3}}, "per_env.CartPole-v1 must be a mapping of names to values, not 3"),
        ({"grid": [1]}, r"grid must be a mapping of names to values, not \[1\]"),
        ({"grid": None}, "has no grid: add at least grid"),
        ({"title": ["a"]}, r"title must be text, not \['a'\]"),
        ({"share_play": ["loss"]}, "share_play must be text"),
        ({"evaluation": 3}, "evaluation must be a mapping of names to values, not 3"),
        ({"evaluation": {"n_episodes": 2.5}}, "evaluation.n_episodes must be a whole number of at least 1, not 2.5"),
        ({"evaluation": {"epsilon": True}}, "evaluation.epsilon must be a number between 0 and 1, not True"),
        ({"evaluation": {"teachers": "x"}}, "evaluation.teachers must be a mapping of names to values, not 'x'"),
        (
            {"published": [{"loss": "kl", "percent": True}]},
            "row {'loss': 'kl', 'percent': True} of published needs percent",
        ),
        # A misspelt key comes before what is missing because of it.
        ({"grid": None, "gird": {"loss": ["kl"]}}, "Unknown key 'gird'.*Did you mean 'grid'"),
    ],
)
def test_each_key_says_what_it_expects(tmp_path, changes, message):
    with pytest.raises(StudyError, match=message):
        read_study(write(tmp_path / "s.yml", **changes))


def test_a_good_file_keeps_its_values_and_numbers_become_numbers():
    content = {"title": 2015, "grid": {"seed": [0]}, "evaluation": {"n_episodes": 30.0, "epsilon": 0}, "record": True}
    read = check_study_file("s.yml", content)
    assert read["evaluation"] == {"n_episodes": 30, "epsilon": 0.0} and read["title"] == "2015"
    assert type(read["evaluation"]["n_episodes"]) is int and read["grid"] is content["grid"] and read["record"] is True
