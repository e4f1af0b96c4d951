"""What the documentation tells a reader to type is understood by the programs that it names. Nothing is trained."""

import argparse
import ast
import configparser
import importlib
import inspect
import itertools
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces

import sb3_distill_zoo
from sb3_distill.cli import main
from sb3_distill.networks.policies import STUDENT_POLICIES
from sb3_distill.study.cli import find_study
from sb3_distill.study.file import read_study
from tests.docs.blocks import BLOCKS, PAGES, Block, blocks_of, commands_of
from tests.helpers import FRAMES, REPOSITORY

# Programs that are not ours
FOREIGN = {"cc", "cmake", "git"}


class Understood(Exception):
    """A command line was read, and found good."""


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs end once they have read their command line; `train` when its settings are read, too."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> argparse.Namespace:
        options = parse_args(self, *args, **kwargs)
        if self.prog == "train.py":
            return options
        raise Understood

    def stop(self: Any) -> None:
        raise Understood

    sb3_distill_zoo.add_finder()
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr("rl_zoo3.exp_manager.ExperimentManager.create_log_folder", stop)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(tmp_path)
    for folder in ("studies", "benchmarks"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_package.py").write_text(
        "import gymnasium\ngymnasium.register('Corridor-v0', 'my_package:Corridor')\n"
    )
    # `train -i` looks for its agent first.
    (tmp_path / "start.zip").touch()


def extras() -> set[str]:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    return set(config["options.extras_require"])


def check_python(words: list[str]) -> None:
    option, *rest = words
    if option == "-c":
        compile(rest[0], "command", "exec")
    elif option == "-m" and rest[0].startswith("rl_zoo3."):
        check_ours(["zoo", rest[0].removeprefix("rl_zoo3."), *rest[1:]])
    elif option == "-m" and rest[0].startswith("benchmarks."):
        sys.argv = rest
        with pytest.raises(Understood):
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif option == "-m":
        assert rest[0] in ("venv", "pip")
    elif option.startswith("examples/"):
        assert (REPOSITORY / option).is_file()
    else:
        # Exports are folders with programs of their own.
        assert Path(option).name in ("runner.py", "integer_policy.py")


def check_ours(words: list[str]) -> None:
    sys.argv = ["sb3-distill", *words]
    with pytest.raises(Understood):
        main(words)
    if words[0] == "study":
        assert find_study(Path(words[1])).is_file()


def check(words: list[str]) -> None:
    program, *rest = words
    if program == "sb3-distill":
        check_ours(rest)
    elif program == "python":
        check_python(rest)
    elif program == "pip":
        named = re.findall(r"\[([\w,-]+)\]", " ".join(rest))
        assert {extra for group in named for extra in group.split(",")} <= extras()
    elif program == "make":
        assert all(re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE) for target in rest)
    else:
        assert program in FOREIGN


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=str)
def test_every_command_is_understood(
    block: Block, read_only: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in commands_of(block, tmp_path):
        try:
            check(words)
        except SystemExit:
            pytest.fail(f"{block.name}: {' '.join(words)}\n{capsys.readouterr().err}")


class Names:
    """What the names of a Python block stand for, as far as its imports and assignments tell."""

    def __init__(self, tree: ast.Module) -> None:
        self.objects: dict[str, Any] = {}
        # Names of variables -> their class
        self.classes: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    self.objects[alias.asname or alias.name] = getattr(module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    module = importlib.import_module(alias.name)
                    self.objects[alias.asname or alias.name.split(".")[0]] = module
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                (target,) = node.targets
                if isinstance(target, ast.Name):
                    self.classes[target.id] = self.class_made_by(node.value)

    def class_made_by(self, call: ast.Call) -> Any:
        """The class of what a call returns: its own, or that of a classmethod such as load; None: unknown."""
        called = self.find(call.func)
        return called if inspect.isclass(called) else getattr(called, "__self__", None)

    def find(self, node: ast.expr) -> Any:
        """
        What is called; None: unknown.

        :raises AttributeError: there is no such attribute
        """
        if isinstance(node, ast.Name):
            return self.objects.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name) and inspect.isclass(self.classes.get(node.value.id)):
            return getattr(self.classes[node.value.id], node.attr)
        owner = self.find(node.value)
        return None if owner is None else getattr(owner, node.attr)


PYTHON = [block for block in BLOCKS if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_names_and_keywords_of_python_blocks_exist(block: Block) -> None:
    tree = ast.parse(block.text, block.name)
    names = Names(tree)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and callable(called := names.find(call.func)):
            try:
                parameters = inspect.signature(called).parameters
            except ValueError:
                # Functions in C have none.
                continue
            if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
                given = {keyword.arg for keyword in call.keywords if keyword.arg}
                assert given <= parameters.keys(), f"{block.name}: {ast.unparse(call.func)}"


def test_python_blocks_are_complete(tmp_path: Path) -> None:
    """A reader can paste each of them: no name in it comes from nowhere, none is imported for nothing."""
    for block in PYTHON:
        (tmp_path / re.sub(r"\W", "_", block.name)).with_suffix(".py").write_text(block.text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "--output-format", "concise", "."]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_study_files_are_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "study.yml").write_text(block.text)
    assert read_study(tmp_path / "study.yml").cells


NEEDS = {
    "box2d": r"LunarLander",
    "export": r"sb3-distill (export|compress)|sb3_distill\.compress",
    "minari": r"buffers\.minari",
    "minatar": r"MinAtar/",
    "mujoco": r"HalfCheetah",
    "ray": r"--backend ray",
    "visualize": r"visualize tsne",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_the_extras_that_their_blocks_need(page: Path) -> None:
    code = "".join(block.text for block in blocks_of(page) if block.language in ("bash", "python"))
    needed = {extra for extra, pattern in NEEDS.items() if re.search(pattern, code)}
    named = re.findall(r"[`\[](\w+)[`\]]|extra (\w+)", page.read_text())
    assert needed <= {name for names in named for name in names}


def test_parameters_of_the_table_of_networks_are_those_of_the_networks() -> None:
    page = (REPOSITORY / "docs" / "pd.md").read_text()
    rows = re.findall(r"^\| `(\w+Policy)` \|.*\| ([\d,]+) \((\d+)", page, re.MULTILINE)
    assert len(rows) == 7
    for name, n_parameters, n_actions in rows:
        policy = STUDENT_POLICIES[name](FRAMES, spaces.Discrete(int(n_actions)), lambda _: 1e-3)
        assert f"{policy.n_parameters:,}" == n_parameters, name


def test_table_of_the_demo_adds_up() -> None:
    """Parameters and bytes of teacher and student, which `make demo` prints, are those of their layers."""
    page = (REPOSITORY / "README.md").read_text()
    for run, layers in {"dqn/CartPole-v1_1": (4, 256, 256, 2), "demo/pd/CartPole-v1_1": (4, 16, 2)}.items():
        n_parameters = sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(layers))
        (row,) = re.findall(rf"^\S+{run} .*$", page, re.MULTILINE)
        assert re.search(rf" {n_parameters:,} +{4 * n_parameters:,} ", row), row
