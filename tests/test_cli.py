"""The command line of the package: which verbs there are, and what they cost to list."""

import argparse
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from sb3_distill.cli import VERBS, main
from sb3_distill.version import __version__
from sb3_distill.zoo.run import COMMANDS
from tests.helpers import run_python


@pytest.mark.parametrize("command", [[], ["zoo"]])
def test_verbs_are_listed_and_typing_errors_caught(tmp_path: Path, command: list[str]) -> None:
    script = ["-m", "sb3_distill", *command]
    shown = run_python(tmp_path, *script, "--help").stdout
    assert all(verb in shown for verb in (COMMANDS if command else ("teachers", "zoo")))
    typo, meant = ("trian", "train") if command else ("zooo", "zoo")
    assert f"unknown verb '{typo}', did you mean '{meant}'?" in run_python(tmp_path, *script, typo, status=2).stderr
    assert "a verb is missing" in run_python(tmp_path, *script, status=2).stderr


def test_commands_of_the_zoo_are_found_without_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--algo", "pd"]) == 2
    assert "train is a command of the Zoo: sb3-distill zoo train ..." in capsys.readouterr().err


def test_console_script_is_light(tmp_path: Path) -> None:
    code = "import sys; from sb3_distill.cli import main; main(['--version']); print('torch' in sys.modules)"
    assert run_python(tmp_path, "-c", code).stdout == f"sb3-distill {__version__}\nFalse\n"


def test_terminals_without_the_signs_of_a_table_lose_no_results(
    cartpole_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["evaluate", str(cartpole_teacher), "--env", "CartPole-v1", "-n", "2"]) == 0
    terminal.flush()
    shown = terminal.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert " ? " in shown and "CartPole-v1, 2 episodes" in shown


def test_what_is_wrong_is_not_hidden_by_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "student.zip", "--n-episods", "3"])
    first, *hints = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and first.endswith(
        "unrecognized arguments: --n-episods 3, did you mean '--n-episodes'?"
    )
    assert (
        hints[0].startswith("example: sb3-distill evaluate ") and hints[1] == "the options: sb3-distill evaluate --help"
    )


FIGURES = ("maps", "localization", "q-values", "sizes", "bars", "curves", "tsne")
COMMANDS_WITH_HELP = [
    *([verb] for verb in VERBS if verb != "zoo"),
    ["export", "bench"],
    *(["visualize", figure] for figure in FIGURES),
]


class Understood(Exception):
    """A command line was read, and found good."""


@pytest.mark.parametrize("command", COMMANDS_WITH_HELP, ids=" ".join)
def test_help_says_defaults_and_has_an_example_that_works(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for extra in ("onnx", "onnxruntime", "sklearn", "ray"):
        monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for number in re.findall(
        r"^  .*--(?:seed|epsilon|n-episodes|jobs|points) \S+ .*$", shown.partition("\n\n")[2], re.MULTILINE
    ):
        assert "(default: " in number
    example = shown.rstrip().rpartition("\nexample: ")[2]
    assert example.startswith(" ".join(["sb3-distill", *command]))
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *args: Any) -> None:
        parse_args(self, *args)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(Understood):
        main(example.split()[1:])


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (["visualize", "curve", "run"], "curves"),
        (["visualize", "curves", "run", "--ouput", "a.png", "-o", "b.png"], "--output"),
        (["export", "bnech", "out"], "bench"),
        (["export", "agent", "-o", "out", "--format", "onxx"], "onnx"),
        (["compress", "agent", "-o", "out", "--targt=c"], "--target"),
        (["study", "mine.yml", "--backend", "rya"], "ray"),
    ],
)
def test_words_that_nobody_knows_get_the_closest_one(
    command: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(command)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 2 and f"did you mean '{meant}'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["export", "compress"])
def test_a_missing_extra_is_named(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main([verb, "agent.zip", "-o", "out"]) == 1
    assert "onnx is not installed: pip install 'sb3-distill[export]'" in capsys.readouterr().err
