"""The command line of the package: which verbs there are, and what they cost to list."""

import sys
from pathlib import Path

import pytest

from sb3_distill.cli import main
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


def test_console_script_is_light(tmp_path: Path) -> None:
    code = "import sys; from sb3_distill.cli import main; main(['--version']); print('torch' in sys.modules)"
    assert run_python(tmp_path, "-c", code).stdout == f"sb3-distill {__version__}\nFalse\n"


def test_terminals_without_the_signs_of_a_table_lose_no_results(cartpole_teacher: Path, tmp_path: Path) -> None:
    command = ["-m", "sb3_distill", "evaluate", cartpole_teacher, "--env", "CartPole-v1", "-n", "2"]
    result = run_python(tmp_path, *command, PYTHONIOENCODING="ascii")
    assert " ? " in result.stdout and "CartPole-v1, 2 episodes" in result.stdout


@pytest.mark.parametrize("verb", ["export", "compress"])
def test_help_needs_no_extra_and_a_missing_one_is_named(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0 and "--env" in capsys.readouterr().out
    assert main([verb, "agent.zip", "-o", "out"]) == 1
    assert "onnx is not installed: pip install 'sb3-distill[export]'" in capsys.readouterr().err
