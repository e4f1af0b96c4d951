"""Defaults that the tables of the pages name are those of the code."""

import argparse
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from stable_baselines3 import DQN, PPO

from sb3_distill.algorithms import resolve
from sb3_distill.cli import main
from sb3_distill.common.files import default_config
from sb3_distill.study.format.study_file import Evaluation
from tests.helpers import REPOSITORY

DOCS = REPOSITORY / "docs"
# SB3's algorithm whose arguments a class takes, too
BASES = {"ppd": PPO, "rtpd": DQN, "mtdqn": DQN}
# The Zoo's own settings, and what every section must name
OF_THE_ZOO = {"env_wrapper", "frame_stack", "n_envs", "n_timesteps", "policy"}


def tables(page: Path) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Heads of the tables of a page, and the cells of their rows."""
    for table in re.findall(r"^((?:\|.*\|\n)+)", page.read_text(), re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("| \n").split(" | ")] for line in table.splitlines())
        yield head, rows


def defaults_of(algo: str) -> dict[str, Any]:
    """Defaults of the constructor, also of the arguments that it passes on to SB3's."""
    classes = [BASES[algo]] if algo in BASES else []
    parameters = [inspect.signature(each).parameters.values() for each in (*classes, resolve(algo))]
    return {each.name: each.default for of_class in parameters for each in of_class}


def is_right(cell: str, value: Any) -> bool:
    """Whether a cell says a value: as code, or in words if it is none that a cell could hold."""
    code = re.fullmatch(r"`([^`]*)`", cell)
    if code is None:
        return value in (None, False, []) or isinstance(value, dict)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(code[1].replace(",", "")) == value
    return code[1] == str(value)


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("algo", ["pd", "qpd", "ppd", "rtpd", "mtpd", "mtdqn"])
def test_defaults_in_python_and_in_the_file(algo: str) -> None:
    page = DOCS / f"{'mtpd' if algo == 'mtdqn' else algo}.md"
    first = f"`{algo}`" if page.stem == "mtpd" else "argument"
    ((head, rows),) = [each for each in tables(page) if each[0][:2] == [first, "in Python"]]
    sections = [re.findall(r"`(.+)`", name)[0] for name in head[2:]]
    config, defaults = yaml.safe_load(default_config(algo).read_text()), defaults_of(algo)
    named = set()
    for cell, *cells in rows:
        for name in names_in(cell):
            named.add(name)
            values = [defaults[name], *(config[section].get(name, defaults[name]) for section in sections)]
            wrong = [value for said, value in zip(cells, values, strict=True) if not is_right(said, value)]
            assert not wrong, f"{page.name}: {name} is {wrong}"
    # No other argument differs without a word.
    for section in sections:
        differing = {name for name, value in config[section].items() if defaults.get(name) != value}
        assert differing - OF_THE_ZOO <= named, section


@pytest.mark.parametrize("algo", ["pd", "qpd", "ppd"])
def test_defaults_of_arguments_that_are_explained(algo: str) -> None:
    ((_, rows),) = [each for each in tables(DOCS / f"{algo}.md") if each[0][:2] == ["argument", "default"]]
    defaults = defaults_of(algo)
    for cell, said, _ in rows:
        for name in names_in(cell):
            assert is_right(said, defaults[name]), f"{name} is {defaults[name]}"


class Read(Exception):
    """A program has made its parser."""


def options_of(verb: str, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, argparse.Action]:
    found: dict[str, argparse.Action] = {}

    def parse(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        found.update({name: action for action in self._actions for name in action.option_strings})
        raise Read

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(Read):
        main([verb])
    return found


@pytest.mark.parametrize(("page", "verb"), [("evaluation", "evaluate"), ("compress", "compress"), ("fit", "fit")])
def test_defaults_of_options(page: str, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_of(verb, monkeypatch)
    found = [row for head, rows in tables(DOCS / f"{page}.md") if head[:2] == ["option", "default"] for row in rows]
    named = set()
    for cell, said, _ in found:
        for name in re.findall(r"`(-[\w-]+)", cell):
            action = options[name]
            named.add(action.dest)
            # Words say what an option does that is not there.
            assert is_right(said, action.default), f"{name} is {action.default}"
    importing = {"gym_packages", "allow_import"}
    assert {action.dest for action in options.values()} - {"help"} - importing <= named


def test_defaults_of_the_evaluation_of_studies() -> None:
    ((_, rows),) = [each for each in tables(DOCS / "study.md") if each[0][0] == "key of `evaluation`"]
    for cell, said, _ in rows:
        (name,) = names_in(cell)
        assert is_right(said, Evaluation.model_fields[name].default)
    assert {name for cell, *_ in rows for name in names_in(cell)} == set(Evaluation.model_fields)
