"""The rooms of the package: what may import what, and how large rooms and modules may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

PACKAGE = REPOSITORY / "sb3_distill"
# From the bottom up: a room imports those of earlier lines, and no neighbour in its own.
TIERS = (
    ("version", "algorithms"),
    ("reading",),
    ("common",),
    ("state",),
    ("results",),
    ("networks", "envs"),
    ("buffers", "quantization"),
    ("agents",),
    ("evaluation",),
    ("base",),
    ("pd", "rtpd", "qpd", "mtpd", "ppd"),
    ("export", "visualize", "fit", "resume"),
    ("study",),
    ("compress", "push"),
    ("zoo", "cli"),
    ("__init__", "__main__"),
)
TIER_OF = {room: tier for tier, rooms in enumerate(TIERS) for room in rooms}
MODULES = {
    ".".join(("sb3_distill", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every module of the package that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sb3_distill":
            assert node.module is not None and node.level == 0
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield node.lineno, name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in MODULES:
                    yield node.lineno, alias.name


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_has_its_place():
    assert {room_of(module) for module in MODULES} == set(TIER_OF)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    own = room_of(module)
    wrong = [
        f"line {line}: {own} imports {imported}"
        for line, imported in imports_of(MODULES[module])
        if room_of(imported) != own and TIER_OF[room_of(imported)] >= TIER_OF[own]
    ]
    assert not wrong


def test_there_are_no_circles():
    """Also none between modules of one room, in functions or under TYPE_CHECKING."""
    left = {module: {imported for _, imported in imports_of(path)} for module, path in MODULES.items()}
    while left:
        free = [module for module, imported in left.items() if not imported & left.keys()]
        assert free, f"these import each other: {sorted(left)}"
        for module in free:
            del left[module]


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=lambda folder: folder.name)
def test_rooms_are_small(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 12


@pytest.mark.parametrize("folder", ["sb3_distill", "tests", "benchmarks", "examples"])
def test_files_are_short(folder):
    long = {
        str(path): n for path in (REPOSITORY / folder).rglob("*.py") if (n := len(path.read_text().splitlines())) > 400
    }
    assert not long
