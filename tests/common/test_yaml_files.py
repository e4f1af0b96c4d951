"""YAML with a key written twice."""

import pytest
import yaml

from sb3_distill.reading.yaml_keys import DuplicateKeyError, UniqueKeyLoader
from tests.helpers import REPOSITORY

SHIPPED = sorted(path for folder in ("hyperparams", "studies") for path in (REPOSITORY / folder).glob("*.yml"))


@pytest.mark.parametrize(
    "text, key, lines",
    [
        ("a: 1\nb: 2\na: 3", "a", "in line 1 and in line 3"),
        ("x:\n- {y: 1,\n   'y': 2}", "y", "in line 2 and in line 3"),
        ("{a: 1, a: 1}", "a", "in line 1"),
        ("yes: 1\ntrue: 2", "true", "in line 1 and in line 2"),
        ("1: a\n1.0: b", "1.0", "in line 1 and in line 2"),
        ("a: &a {b: 1}\nc: {<<: *a, <<: *a}", "<<", "in line 2"),
        ("a: &a {b: 1, b: 2}\nc: {<<: *a}", "b", "in line 1"),
        ("!!set {a, a}", "a", "in line 1"),
    ],
)
def test_keys_that_are_written_twice(text, key, lines):
    with pytest.raises(DuplicateKeyError) as caught:
        yaml.load(text, Loader=UniqueKeyLoader)
    assert str(caught.value) == f"The key {key!r} is written twice, {lines}. Keep one of them."


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {p: 1, q: 2}\nb: &b {<<: *a, p: 3}\nc: {<<: [*b, *a], q: 5}\nd: [*b, *a, *b]",
        "- {a: 1}\n- {a: 2}",
        "1: a\n'1': b",
        "{=: 1}",
    ],
)
def test_merged_keys_may_be_overridden(text):
    assert yaml.load(text, Loader=UniqueKeyLoader) == yaml.safe_load(text)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_files_have_no_key_twice(path):
    # The Zoo, which reads the hyperparameters, would say nothing.
    assert yaml.load(path.read_text(), Loader=UniqueKeyLoader) == yaml.safe_load(path.read_text())
