"""Reads and checks study files, and makes the cells of their grids."""

import difflib
import itertools
import math
import re
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_distill.algorithms import ALGORITHMS, arguments_of, resolve
from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.imports import registered_spec, why_not_made
from sb3_distill.envs.recipe import is_atari
from sb3_distill.reading.text import load_yaml
from sb3_distill.reading.yaml_keys import DuplicateKeyError
from sb3_distill.results.statistics import GEOMETRIC_MEAN
from sb3_distill.study.cell import (
    DISTILLING,
    FIRST,
    Cell,
    Study,
    StudyError,
    evaluation_keys,
    leaves_one_agent,
    plays_one_game,
)
from sb3_distill.study.format.study_file import check_study_file, read_whole
from sb3_distill.study.grid import (
    RUN_FIELDS,
    Layer,
    Overrides,
    check_dimensions,
    check_distinct,
    mapping_of,
    read_dimension,
    share_play,
    with_references,
    with_teachers_of_cells,
)
from sb3_distill.study.plan.start import check_start
from sb3_distill.study.values import check_values

# Hyperparameters that the Zoo accepts in addition to the arguments of the algorithm
ZOO_HYPERPARAMS = ("env_wrapper", "frame_stack", "n_envs", "normalize", "policy_kwargs", "policy", "callback", "strict")
MAX_CELLS = 10_000
_EXPONENTIAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def check_names(where: str, kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """
    :param where: path of the study file, for the message
    :param kind: the kind of thing that is named, e.g. "algorithm"
    :param names: the names to check
    :param known: the allowed names
    :raises StudyError: a name is not allowed
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise StudyError(f"{where}: {unknown_choice(kind, name, known)}")


@lru_cache
def known_hyperparams(algo: str) -> list[str]:
    """
    :param algo: key of the Zoo's ``--algo``
    :return: names of the hyperparameters that the algorithm and the Zoo accept
    """
    algorithm = resolve(algo)
    names = (arguments_of(algorithm) | set(ZOO_HYPERPARAMS)) - algorithm.refused_arguments
    return sorted(names - {"env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"})


def check_hyperparams(where: str, algo: str, names: Iterable[str], more: Iterable[str] = ()) -> None:
    """
    :param where: where the settings stand, for the message
    :param algo: key of the Zoo's ``--algo``
    :param names: names of its settings
    :param more: other names that are allowed there
    :raises StudyError: a name is not known; of what it refuses, the algorithm itself says why
    """
    refused = resolve(algo).refused_arguments
    checked = [name for name in names if name not in refused]
    check_names(where, "setting", checked, [*more, *known_hyperparams(algo)])


def _number(where: str, name: str, value: Any, least: float) -> int:
    try:
        return read_whole(name, value, least)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error


def _read_numbers(value: Any) -> Any:
    """Convert numbers such as 1e-3 and 2.7e7, which YAML 1.1 reads as text."""
    if isinstance(value, Mapping):
        return {name: _read_numbers(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_read_numbers(entry) for entry in value]
    if isinstance(value, str) and _EXPONENTIAL.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() else number
    return value


def _part_of(cell: Cell) -> str:
    """The field that tells the rows of one cell apart; nothing if it has one row."""
    if leaves_one_agent(cell.algo, cell.hyperparams):
        return "player" if cell.students else ""
    return "player" if cell.algo == "rtpd" else "task"


def _read_published(
    where: str, value: Any, labels: Mapping[str, Collection[str]], cells: Collection[Cell]
) -> tuple[dict[str, Any], ...]:
    rows = value or []
    # A paper's number belongs to no seed of ours.
    labels = {name: choices for name, choices in labels.items() if name != "seed"}
    known: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for row in rows:
        names = [*labels, *({"env"} - labels.keys()), "player", "task"]
        check_names(where, "field of published", row, [*names, "percent"])
        if "env" in row.keys() - labels.keys():
            check_names(where, "env of published", [str(row["env"])], {cell.env for cell in cells})
        # A paper's mean over all games stands beside no single run.
        is_mean = row.get("env") == GEOMETRIC_MEAN and len({cell.env for cell in cells}) > 1
        placed = {"env", *labels} - ({"env"} if is_mean else set())
        for name in row.keys() & labels.keys() & placed:
            check_names(where, f"{name} of published", [str(row[name])], labels[name])
        # What a row must say, so that it stands beside its own game and network alone
        needed = {"env", *(name for name, choices in labels.items() if len(choices) > 1)}
        if needed <= row.keys():
            own = {name: str(row[name]) for name in row.keys() & placed}
            parts = {_part_of(cell) for cell in cells if own.items() <= {"env": cell.env, **cell.labels}.items()}
            unknown = {"player", "task"} & row.keys() - parts
            if not parts or unknown:
                reason = f"the runs there have no {min(unknown)}" if parts else "no run is of this env and these labels"
                raise StudyError(f"{where}: the row {dict(row)} of published stands beside no result: {reason}.")
            needed |= parts - {""}
        missing = sorted(needed - row.keys())
        if missing:
            raise StudyError(
                f"{where}: the row {dict(row)} of published does not say {', '.join(missing)}: a paper's number stands "
                "beside its own game and network alone. Put numbers of others into notes."
            )
        other = known.setdefault(tuple(str(row.get(name)) for name in names if name in needed), row)
        if other is not row:
            raise StudyError(
                f"{where}: the rows {dict(other)} and {dict(row)} of published stand beside the same result. Keep one."
            )
    return tuple(dict(row) for row in rows)


def _check_evaluation(where: str, evaluation: Mapping[str, Any], cells: Sequence[Cell]) -> None:
    used = set().union(*(evaluation_keys(cell) for cell in cells))
    for name in evaluation:
        if name not in used:
            beside = any(cell.algo == "rtpd" and not leaves_one_agent("rtpd", cell.hyperparams) for cell in cells)
            hint = " Settings say how rtpd evaluates students." if beside else ""
            hint = f"Its cells read {', '.join(sorted(used))}.{hint}"
            raise StudyError(f"{where}: no cell of the study reads evaluation.{name}: leave it out. {hint}")
    needs = {"select 'best'": evaluation.get("select") == "best", "eval_episodes": "eval_episodes" in evaluation}
    for name in (name for name, needed in needs.items() if needed and "eval_freq" in used - evaluation.keys()):
        raise StudyError(f"{where}: evaluation.{name} needs evaluation.eval_freq, the steps between evaluations.")


def _check_cell(where: str, cell: Cell) -> None:
    if ":" not in cell.env:
        try:
            registered_spec(cell.env)
        except gym.error.Error as error:
            close = difflib.get_close_matches(cell.env, gym.registry, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise StudyError(f"{where}: there is no environment {cell.env!r}.{hint}") from error
    # Of several tasks, each one, too
    for env_id in (cell.env, *(cell.env_kwargs.get("env_ids") or ())):
        problem = why_not_made(env_id) if isinstance(env_id, str) else None
        if problem is not None:
            raise StudyError(f"{where}: {problem}")
    if cell.hyperparams.get("strict") and not (cell.env == "MultiTaskAtari-v0" or is_atari(cell.env)):
        raise StudyError(
            f"{where}: setting: paper has the settings that the papers have for Atari games, and {cell.env} is none: "
            "leave it out."
        )
    policy = cell.hyperparams.get("policy")
    if policy is not None:
        check_names(where, f"policy of {cell.algo}", [policy], resolve(cell.algo).policy_aliases)
    if cell.algo in (*DISTILLING, "rtpd") and cell.hyperparams.get("students"):
        try:
            names = resolve(cell.algo).read_students(cell.hyperparams["students"])
        except ValueError as error:
            raise StudyError(f"{where}: {error}") from error
        if cell.algo in DISTILLING and FIRST in names:
            raise StudyError(f"{where}: students: {FIRST!r} is the name of the first student in results. Rename yours.")
    if "starts_from" in cell.evaluation and not (plays_one_game(cell) and is_atari(cell.env)):
        raise StudyError(
            f"{where}: evaluation.starts_from records states of Atari games for pd, qpd, ppd, and rtpd with students: "
            f"null or select: best, not for {cell.algo} on {cell.env}. Leave it out."
        )
    if cell.records and cell.algo in DISTILLING and cell.hyperparams.get("rollout_policy") != "teacher":
        raise StudyError(
            f"{where}: record shares the teacher's play between students, so the teacher must act: add rollout_policy: "
            "teacher to settings, or leave record out."
        )


def _share_play(where: str, dimension: Any, cells: Sequence[Cell]) -> list[Cell]:
    labels = cells[0].labels
    check_names(where, "dimension of share_play", [dimension], labels)
    for cell in cells:
        if cell.algo not in DISTILLING or cell.hyperparams.get("students"):
            name = "students of its own" if cell.algo in DISTILLING else cell.algo
            raise StudyError(
                f"{where}: share_play trains the values of grid.{dimension} as students of one run of pd or qpd, but a "
                f"cell has {name}. Leave one of the two out (rtpd takes its students from the setting students)."
            )
    if len({cell.labels[dimension] for cell in cells}) < 2:
        raise StudyError(
            f"{where}: grid.{dimension} has one value, which has nobody to share its play with: leave share_play out."
        )
    entries = {algo: resolve(algo).student_entries for algo in DISTILLING}
    return share_play(where, dimension, cells, entries)


def read_study(path: str | Path, gym_packages: Sequence[str] = ()) -> Study:
    """
    :param path: a YAML file
    :param gym_packages: packages that each cell imports first
    :return: the study
    :raises StudyError: the file has an error; the message says where and what is allowed
    """
    path = Path(path)
    where = str(path)
    try:
        loaded = load_yaml(path)
    except DuplicateKeyError as error:
        raise StudyError(f"{where}: {error}") from error
    except ValueError as error:
        raise StudyError(f"{where} is no YAML in UTF-8: {error}") from error
    content = check_study_file(where, mapping_of(where, "the file", _read_numbers(loaded)))
    settings, per_env = content.get("settings") or {}, content.get("per_env") or {}
    strict = {"strict": True} if content.get("setting") else {}
    evaluation, record = content["evaluation"], content.get("record") or False
    dimensions = {name: read_dimension(where, name, value) for name, value in content["grid"].items()}
    check_dimensions(where, list(dimensions.values()))
    labels = {name: [layer.label for layer in layers] for name, layers in dimensions.items()}
    n_cells = math.prod(map(len, dimensions.values()))
    if n_cells > MAX_CELLS:
        raise StudyError(f"{where}: the grid has {n_cells:,} cells, more than {MAX_CELLS:,}: make several studies.")
    overrides = Overrides(where)
    cells = []
    for combination in itertools.product(*dimensions.values()):
        # Precedence: the grid over per_env over settings
        env = ChainMap(*(layer.settings for layer in combination), settings).get("env")
        own = per_env.get(str(env)) or {}
        own_layers = [Layer("settings", settings), Layer(f"per_env.{env}", own)]
        chosen = overrides.merge([Layer("setting", strict), *own_layers, *combination])
        if not isinstance(env, str) or not isinstance(chosen.get("algo"), str):
            raise StudyError(f"{where}: algo and env must be named, in the grid or in settings.")
        if "env" in own:
            raise StudyError(f"{where}: per_env.{env} must not set env: its settings are those of {env}.")
        check_names(where, "algorithm", [chosen["algo"]], ALGORITHMS)
        hyperparams = {name: value for name, value in chosen.items() if name not in RUN_FIELDS}
        check_hyperparams(where, chosen["algo"], hyperparams, RUN_FIELDS)
        n_timesteps = chosen.get("n_timesteps")
        cell = Cell(
            algo=chosen["algo"],
            env=env,
            seed=_number(where, "seed", chosen.get("seed", 0), 0),
            n_timesteps=None if n_timesteps is None else _number(where, "n_timesteps", n_timesteps, 1),
            hyperparams=hyperparams,
            labels=dict(zip(dimensions, (layer.label for layer in combination), strict=True)),
            evaluation=evaluation,
            env_kwargs=mapping_of(where, "env_kwargs", chosen.get("env_kwargs") or {}),
            records="per seed" if record is True else record,
            gym_packages=list(gym_packages),
        )
        _check_cell(where, cell)
        check_values(where, cell)
        cells.append(cell)
    overrides.check()
    check_distinct(where, cells)
    runs = cells if content.get("share_play") is None else _share_play(where, content["share_play"], cells)
    for run in runs:
        check_start(where, run)
    _check_evaluation(where, evaluation, cells)
    check_names(where, "environment of per_env", per_env, {cell.env for cell in cells})
    return Study(
        path.stem,
        content["title"] or path.stem,
        tuple(with_teachers_of_cells(where, with_references(runs))),
        _read_published(where, content.get("published"), labels, cells),
        content["paper"] or "",
        content["notes"] or "",
    )
