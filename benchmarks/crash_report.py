"""What is counted after a kill: broken files, lost checkpoints, processes that are left behind."""

import json
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import yaml

from sb3_distill.agents.archive import read_archive
from sb3_distill.agents.normalization import read_normalization
from sb3_distill.base.resume.resuming import RUN_STATE
from sb3_distill.state.file import read_state

# What SB3 and the Zoo write around us
_AROUND_US = ("evaluations.npz", "args.yml", "config.yml", "command.txt", "monitor.csv", "/vecnormalize.pkl")


@dataclass
class Report:
    """What was counted."""

    kills: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    broken_around_us: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    same: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was broken, lost, left behind or different."""
        return not (self.broken or self.lost or self.left_behind or self.different)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"kills                        {sum(self.kills.values())} ("
                + ", ".join(f"{name} {count}" for name, count in self.kills.items())
                + ")",
                f"broken files                 {len(self.broken)} {self.broken[:3] or ''}",
                f"broken files of SB3 and Zoo  {len(self.broken_around_us)} {self.broken_around_us[:3] or ''}",
                f"lost checkpoints             {len(self.lost)} {self.lost[:3] or ''}",
                f"processes left behind        {len(self.left_behind)} {self.left_behind[:3] or ''}",
                f"complete, with the same rows {sum(self.same.values())} of "
                f"{sum(self.same.values()) + len(self.different)} {self.different[:3] or ''}",
            ]
        )


def check_files(root: Path, name: str, report: Report) -> set[Path]:
    """Look at all files that a killed job has left. Returns the whole models and states among them."""
    whole = set()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        # Files that are being written
        if any(part.endswith(".partial") for part in path.relative_to(root).parts):
            continue
        try:
            if _read(path):
                whole.add(path)
        except Exception as error:
            found = report.broken_around_us if str(path).endswith(_AROUND_US) else report.broken
            found.append(f"{name}: {path.name}: {type(error).__name__}: {error}")
    return whole


def _read(path: Path) -> bool:
    """Read a file whole, and return whether it is a model or a state."""
    if path.name in (RUN_STATE, "state.zip"):
        read_state(path)
        return True
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
        read_archive(path)
        return True
    if path.name == "policy.json":
        for file, described in json.loads(path.read_text())["files"].items():
            assert (path.parent / file).stat().st_size == described["bytes"], f"{file} is another one"
    elif "vecnormalize" in path.name:
        assert read_normalization(path) is not None
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".npz":
        np.load(path, allow_pickle=False)
    elif path.suffix == ".yml":
        # With the tags of the Zoo's files, composed only
        assert yaml.compose(path.read_text()) is not None
    elif path.suffix == ".onnx":
        onnx.checker.check_model(str(path))
    return False
