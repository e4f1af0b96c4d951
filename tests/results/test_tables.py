"""Rows as text, Markdown and JSON."""

import json

import pytest

from sb3_distill.results.tables import format_markdown, format_table, to_json


def test_tables():
    assert format_table([("a", "n"), ("long", "10")], n_left=1) == "a      n\nlong  10"


def test_markdown():
    assert format_markdown([("a", "b"), ("x|y", "1")], n_left=1) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"


def test_json_without_nan():
    text = to_json({"a": float("nan"), "b": [1.5, float("inf")], "c": (None, "x")})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [1.5, None], "c": [None, "x"]}
