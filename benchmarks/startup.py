"""Time that the Zoo hook adds to every start of the interpreter.

``python -m benchmarks.startup`` makes two empty virtual environments, puts the start-up files into one of them, runs
``python -X importtime -c pass`` alternately in both, and prints the medians of the import time of ``site``.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
N_STARTS = 20


def site_microseconds(python: Path) -> int:
    """Cumulative import time of ``site``, which reads the start-up files."""
    result = subprocess.run([python, "-X", "importtime", "-c", "pass"], capture_output=True, text=True, check=True)
    match = re.search(r"\|\s+(\d+) \| site$", result.stderr, re.MULTILINE)
    assert match is not None
    return int(match.group(1))


def main() -> None:
    """Entry point of ``python -m benchmarks.startup``."""
    with tempfile.TemporaryDirectory() as folder:
        pythons = []
        for name in ("without", "with"):
            venv.create(Path(folder) / name, symlinks=True)
            pythons.append(Path(folder) / name / "bin" / "python")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for file in ("sb3_distill.pth", "sb3_distill_zoo.py"):
            shutil.copy(ROOT / file, Path(folder) / "with" / "lib" / version / "site-packages")
        for python in pythons:
            site_microseconds(python)  # fills the bytecode cache
        times = [[site_microseconds(python) for python in pythons] for _ in range(N_STARTS)]
    without, with_hook = (statistics.median(column) / 1000 for column in zip(*times, strict=True))
    print(f"site, medians of {N_STARTS}: {without:.2f} ms without the hook, {with_hook:.2f} ms with it")
    print(f"the hook: {with_hook - without:.2f} ms")


if __name__ == "__main__":
    main()
