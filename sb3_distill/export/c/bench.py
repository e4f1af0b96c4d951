"""What an exported policy in C takes: flash and RAM on this machine and on microcontrollers, instructions there."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from sb3_distill.export.c.build import BuildError, CPlayer, Footprint, find_compiler, find_size, measure
from sb3_distill.export.c.cortex import TARGETS, measure_cortex, missing_tools
from sb3_distill.export.c.source import CSource, c_title
from sb3_distill.export.description import Description
from sb3_distill.export.integer_policy import IntegerPolicy
from sb3_distill.results.tables import format_table

# Of footprint.csv, in the order of the fields of ``Footprint``
COLUMNS = ("folder", "target", "code", "constants", "state", "stack", "instructions")


def open_c(folder: Path, description: Description) -> CPlayer:
    """
    :param folder: folder that ``sb3-distill export`` wrote
    :param description: its ``policy.json``
    :return: the compiled ``policy.c``
    :raises ValueError: there is no compiler; or ``policy.c`` is not what belongs to ``policy.npz``: nobody's own code
        is run
    """
    policy = IntegerPolicy.load(folder / "policy.npz")
    stack = description.frame_stack
    if policy.shape != tuple(description.observation.shape) or math.prod(policy.shape) % stack:
        raise BuildError(f"{folder}: policy.npz and policy.json have other observations: export the agent again.")
    source = CSource(policy, c_title(description.algo, description.env_id, description.sha256), stack, str(folder))
    for name, content in source.code().items():
        if (folder / name).read_bytes() != content:
            raise BuildError(
                f"{folder / name} is not what this version writes for policy.npz, so it is not built and run here: "
                "export the agent again, or measure an edited file with a compiler of your own."
            )
    return CPlayer(folder, policy, stack)


def footprints(folder: Path, player: CPlayer) -> list[Footprint]:
    """
    :param folder: folder of the export
    :param player: its policy, compiled
    :return: what it takes on this machine and, where their tools are installed, on microcontrollers; a line says which
        are not
    """
    compiler, size = find_compiler(), find_size()
    measured = [measure(folder, "this machine", compiler, size)] if compiler and size else []
    missing = missing_tools()
    if missing:
        print(f"{folder}: Cortex-M is not measured: {', '.join(missing)} not installed.", file=sys.stderr)
        return measured
    for target in TARGETS:
        try:
            measured.append(measure_cortex(folder, target, player.policy.action_shape is None))
        except BuildError as error:
            print(f"{folder}: {target} is not measured: {error}", file=sys.stderr)
    return measured


def format_footprints(rows: Sequence[tuple[str, Footprint]]) -> str:
    """
    :param rows: name of the folder, and what its policy takes
    :return: a table
    """
    cells = [["policy in C", "processor", "code", "constants", "state", "stack", "instructions"]]
    for folder, row in rows:
        numbers = (row.code, row.constants, row.state, row.stack, row.instructions)
        cells.append([folder, row.target, *("" if number is None else f"{number:,}" for number in numbers)])
    return format_table(cells, n_left=2)
