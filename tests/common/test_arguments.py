"""Values of command-line arguments."""

import argparse

import pytest

from sb3_distill.common.arguments import keyword


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:1", 1),
        ("a:'text'", "text"),
        ("a:{'net_arch': [8]}", {"net_arch": [8]}),
        ("a: dict(net_arch=dict(pi=[8], vf=[]), x=None)", {"net_arch": {"pi": [8], "vf": []}, "x": None}),
    ],
)
def test_values_of_settings_are_literals(text, value):
    assert keyword(text) == ("a", value)


@pytest.mark.parametrize(
    "text",
    ["a:text", "a:list([8])", "a:dict(**{'b': 1})", "a:dict([8])", "a:dict(b=open('c'))", "a:dict(b=nn.ReLU)", "a"],
)
def test_nothing_else_is_evaluated(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be key:value with a Python literal as the value"):
        keyword(text)
