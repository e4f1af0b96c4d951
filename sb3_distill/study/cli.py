"""``sb3-distill study``: run the cells of a study that have not finished yet, and write the results."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym

from sb3_distill.common.arguments import add_gym_packages, whole_number
from sb3_distill.common.files import shipped_folder
from sb3_distill.common.utils import counted, unknown_choice
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.results.comparison import MARGIN
from sb3_distill.results.row import Row
from sb3_distill.results.tables import format_spread, format_table, interval_text
from sb3_distill.study.backends import CELL, run_locally, run_on_ray
from sb3_distill.study.cell import Study, StudyError
from sb3_distill.study.file import read_study
from sb3_distill.study.manifest import clear_stopped, is_running, manifest_of, manifests_of, stopped_in
from sb3_distill.study.plan.needs import describe_needs
from sb3_distill.study.plan.replaced import describe_replaced, find_replaced, put_aside
from sb3_distill.study.run import (
    RESULTS,
    collect,
    describe_missing,
    estimate_seconds,
    format_seconds,
    only_study_in,
    run_study,
)
from sb3_distill.study.tables import PARTS


def print_plan(study: Study, folder: Path) -> None:
    """
    :param study: the study
    :param folder: the study's folder
    """
    manifests = manifests_of(folder, study.cells)
    rows = [[*study.cells[0].labels, "state", "time"]]
    for cell in study.cells:
        finished = manifest_of(folder, cell)
        seconds = estimate_seconds(cell, manifests) if finished is None else finished.total_seconds
        state = "finished" if finished else _state_of(folder, cell.key)
        rows.append([*cell.labels.values(), state, format_seconds(seconds)])
    print(format_table(rows, n_left=len(rows[0]) - 1))


def _state_of(folder: Path, key: str) -> str:
    """The state of a cell that has not finished."""
    if is_running(folder, key):
        return "running"
    return "stopped" if stopped_in(folder, key) else "to do"


def print_needs(study: Study, folder: Path, n_jobs: int, is_here: bool) -> None:
    """
    :param study: the study
    :param folder: the study's folder
    :param n_jobs: number of cells that run at the same time
    :param is_here: whether they run on this machine
    :raises ValueError: it has less memory, or less room on its disk, than they need
    """
    manifests = manifests_of(folder, study.cells)
    remaining = [estimate_seconds(cell, manifests) for cell in study.cells if manifest_of(folder, cell) is None]
    when = "time known when cells have finished"
    known = [seconds for seconds in remaining if seconds is not None]
    if len(known) == len(remaining):
        total = max([sum(known) / n_jobs, *known])
        basis = "finished cells" if manifests else "a rough guess; finished cells give a better one"
        at_once = f" with {n_jobs} at the same time" if n_jobs > 1 else ""
        when = f"time about {format_seconds(total)}{at_once} (from {basis})"
    print(f"{counted(len(study.cells), 'cell')}, {len(remaining)} to do, {when}")
    needs = describe_needs(study.cells, folder, n_jobs if is_here else None)
    if needs:
        print(needs)


def settle_replaced(study: Study, folder: Path, anew: bool) -> None:
    """
    Let no cell stand beside others whose teacher, of the same name, was another one.

    :param study: the study
    :param folder: the study's folder
    :param anew: whether such cells are run anew
    :raises StudyError: there are such cells, and they are not to be run anew
    """
    replaced = find_replaced(folder, manifests_of(folder, study.cells), study.cells)
    if not replaced:
        return
    if not anew:
        raise StudyError(
            f"{describe_replaced(replaced)}\nTheir results and new ones would be mixed in one table. Put the agents "
            f"back, or run these cells again with --anew (their old results are moved to {folder / 'replaced'}), or "
            "name another folder with -o."
        )
    put_aside(replaced, folder)
    # What they were recording goes with them.
    clear_stopped(folder)
    print(f"{describe_replaced(replaced)}\nThese are run again; their old results are in {folder / 'replaced'}.")


def find_study(named: Path) -> Path:
    """
    :param named: a study file, or the name of one that we ship
    :return: the file
    :raises StudyError: it is neither
    """
    if named.is_file():
        return named
    shipped = {path.stem: path for path in sorted(shipped_folder("studies").glob("*.yml"))}
    # A study's results may lie beside, in a folder of its name
    if str(named) in shipped:
        return shipped[str(named)]
    if named.suffix or len(named.parts) > 1 or named.is_dir():
        problem = "is a folder" if named.is_dir() else "does not exist"
        raise StudyError(f"{named} {problem}: name a study file, such as my_study.yml, or a study that we ship.")
    raise StudyError(unknown_choice("study", str(named), shipped))


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments after the verb
    :return: exit status
    """
    parser = Parser(
        "sb3-distill study",
        "Run the cells of a study file, one for each combination of its grid. Finished cells are skipped.",
        "pd_table1_small --dry-run",
    )
    parser.add_argument(
        "file", type=Path, help="study file, such as mine.yml, or the name of one that we ship, such as pd_table1_small"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder (default: logs/studies/NAME)")
    parser.add_argument(
        "--anew",
        action="store_true",
        help="run cells again whose teacher was replaced since; their old results are moved to FOLDER/replaced",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the cells and what they need, run nothing")
    parser.add_argument(
        "--save-freq",
        type=whole_number(1),
        metavar="N",
        help="steps between two checkpoints of a cell. A cell that was stopped goes on from the newest one (default: "
        "it begins again). Give this option again when you repeat the command",
    )
    machines = parser.add_argument_group("where the cells run")
    machines.add_argument("--backend", choices=["local", "ray"], default="local", help="local processes, or Ray")
    machines.add_argument("--address", help="address of a running Ray cluster (default: start Ray on this machine)")
    machines.add_argument(
        "-j",
        "--jobs",
        type=whole_number(1),
        default=os.cpu_count() or 1,
        help="cells that run at the same time (default: one for each processor)",
    )
    machines.add_argument("--threads", type=whole_number(1), default=1, help="threads of each cell")
    add_gym_packages(parser)
    args = parser.parse_args(argv)
    try:
        trust_packages(args.gym_packages)
        study = read_study(find_study(args.file), args.gym_packages)
        folder = args.output or Path("logs") / "studies" / study.name
        command = CELL if args.save_freq is None else (*CELL, "--save-freq", str(args.save_freq))
        if args.backend == "ray":
            backend = run_on_ray(args.address, args.jobs, args.threads, command)
        else:
            backend = run_locally(args.jobs, args.threads, command)
        if args.dry_run:
            print_plan(study, folder)
            for missing in describe_missing(cell for cell in study.cells if manifest_of(folder, cell) is None):
                print(f"Missing: {missing}", file=sys.stderr)
            print_needs(study, folder, args.jobs, args.backend == "local")
            replaced = find_replaced(folder, manifests_of(folder, study.cells), study.cells)
            if replaced:
                print(f"Warning: {describe_replaced(replaced)}", file=sys.stderr)
            return 0
        with only_study_in(folder):
            settle_replaced(study, folder, args.anew)
            print_needs(study, folder, args.jobs, args.backend == "local")
            try:
                failures = run_study(study, folder, backend)
            except KeyboardInterrupt:
                rows = collect(study, folder)
                kept = "" if args.save_freq else " Cells under way begin anew: --save-freq keeps what they have done."
                print(
                    f"sb3-distill study: interrupted. {folder / RESULTS} has {counted(len(rows), 'row')} of finished "
                    f"cells; to continue, repeat the command.{kept}",
                    file=sys.stderr,
                )
                return 130
            rows = collect(study, folder)
    except gym.error.Error as error:
        print(f"sb3-distill study: {args.file} names an environment that is not registered: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"sb3-distill study: {error}", file=sys.stderr)
        return 1
    print_results(study, rows)
    print(f"{folder / RESULTS}; the report: sb3-distill report {folder}")
    for key, problem in failures.items():
        print(f"failed: {key}: {problem} (see {folder / 'failed' / key})", file=sys.stderr)
    return 1 if failures else 0


def print_results(study: Study, rows: Sequence[Row]) -> None:
    """
    :param study: the study
    :param rows: rows of its results
    """
    content = [row.to_dict() for row in rows]
    names = [*study.cells[0].labels, *(name for name in PARTS if any(name in own for own in content))]
    table = [[*names, "parameters", "bytes", "score", "% of teacher (95%)", f"margin {MARGIN:g}%"]]
    for row, own in zip(rows, content, strict=True):
        score = "" if row.mean is None else format_spread(row.mean, row.std)
        percent = row.percent_of_teacher
        percents = "" if percent is None else f"{percent:.1f}{interval_text(row.percent_interval)}"
        labels = (str(own.get(name, "")) for name in names)
        table.append([*labels, f"{row.n_parameters:,}", f"{row.n_bytes:,}", score, percents, row.verdict or ""])
    print(format_table(table, n_left=len(names)))
    definitions = sorted({row.percent_definition for row in rows if row.percent_definition})
    if definitions:
        print(f"% of teacher: {' or '.join(definitions)}, each run by itself; the interval is over pairs of episodes")
