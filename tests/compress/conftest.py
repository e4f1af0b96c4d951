from pathlib import Path

import pytest

from sb3_distill.compress.compress import Compressed
from tests.compress.games import search_short


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compress")


@pytest.fixture(scope="session")
def found(folder: Path) -> Compressed:
    """Two rounds: one of the students that are always tried first, one of those that the sampler chooses."""
    return search_short(folder, folder / "out", n_rounds=2, command="the command")
