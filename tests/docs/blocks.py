"""The code blocks of the documentation, and what each of their shell commands says."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"(?:^<!-- run: (?P<run>.+?) -->\n)?^```(?P<language>[\w{}-]*)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_RUN = re.compile(r"no, (?P<reason>.+)|-n (?P<n_timesteps>\d+)")


@dataclass(frozen=True)
class Block:
    """
    A code block of a page.

    :param name: page and line
    :param language: as its fence says
    :param text: its lines
    :param reason: why it is not run; None: it is
    :param n_timesteps: how long everything trains when it is run
    """

    name: str
    language: str
    text: str
    reason: str | None
    n_timesteps: int

    def __str__(self) -> str:
        return self.name


def blocks_of(page: Path) -> list[Block]:
    """All code blocks of a page, in their order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        name = f"{page.relative_to(REPOSITORY)}:{line}"
        run = _RUN.fullmatch(match["run"] or "-n 2000")
        assert run, f"{name}: say `run: -n STEPS` or `run: no, REASON`, not `run: {match['run']}`"
        found.append(Block(name, match["language"], match["text"], run["reason"], int(run["n_timesteps"] or 0)))
    assert text.count("\n```") + text.startswith("```") == 2 * len(found), f"{page}: a fence is not read"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(block: Block, folder: Path) -> list[list[str]]:
    """
    What a shell block calls, with variables, loops and patterns expanded by the shell itself. Nothing is run.

    :param block: a block of the shell
    :param folder: where its patterns look for files, and where its redirections write
    :return: words of each command; those of a path of their own, such as ./a.out, are left out
    """
    # No program is on the path, so that the shell hands every command to this function.
    record = """
command_not_found_handle() { printf '%s\\037' "$@" >&3; printf '\\036' >&3; }
cd() { :; }
set -u
exec 3>commands
"""
    bash = shutil.which("bash")
    assert bash
    result = subprocess.run(
        [bash, "-c", record + block.text], cwd=folder, env={"PATH": "/nowhere"}, capture_output=True, text=True
    )
    problems = [line for line in result.stderr.splitlines() if not line.endswith("No such file or directory")]
    assert not problems, f"{block.name}: {problems}"
    calls = (folder / "commands").read_text().split("\036")[:-1]
    return [call.split("\037")[:-1] for call in calls]


def listing() -> str:
    """All blocks of the shell and of Python, and what the tests do with each."""
    blocks = [block for block in BLOCKS if block.language in ("bash", "python")]
    lines = [f"{each}  {f'read only: {each.reason}' if each.reason else 'run'}" for each in blocks]
    n_run = sum(block.reason is None for block in blocks)
    return "\n".join([*lines, f"{len(blocks)} blocks, of which {n_run} are run by `make test-ci`"])


if __name__ == "__main__":
    print(listing())
