"""Reads and checks study files, and makes the cells of their grids."""

import difflib
import inspect
import itertools
import math
import pkgutil
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from sb3_distill.algorithms import ALGORITHMS
from sb3_distill.common.utils import to_number, unknown_choice
from sb3_distill.envs.recipe import is_atari
from sb3_distill.results.row import ROW_FIELDS
from sb3_distill.study.cell import COUNTS, EVALUATION_KEYS, Cell, Study, StudyError, evaluation_keys, leaves_one_agent

KEYS = ("title", "paper", "settings", "grid", "per_env", "evaluation", "record", "published", "notes")
SELECTIONS = ("last", "best")
# Settings of the run itself; all other settings are hyperparameters.
RUN_FIELDS = ("algo", "env", "seed", "n_timesteps", "env_kwargs")
# Other fields of rows of results, and "percent" of published rows: dimensions of the grid must not have these names
RESULT_FIELDS = {*ROW_FIELDS, "percent"} - {*RUN_FIELDS}
# Hyperparameters that the Zoo accepts in addition to the arguments of the algorithm
ZOO_HYPERPARAMS = ("env_wrapper", "frame_stack", "n_envs", "normalize", "policy_kwargs", "policy", "callback")
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


def known_hyperparams(algo: str) -> list[str]:
    """
    :param algo: key of the Zoo's ``--algo``
    :return: names of the hyperparameters that the algorithm and the Zoo accept
    """
    cls = pkgutil.resolve_name(ALGORITHMS[algo])
    names: set[str] = set(ZOO_HYPERPARAMS)
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
    return sorted(names - {"self", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"})


def _number(where: str, name: str, value: Any, least: float, most: float = math.inf, whole: bool = True) -> Any:
    number = to_number(value)
    if isinstance(value, bool) or not least <= number <= most or (whole and not number.is_integer()):
        bounds = f"of at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
        raise StudyError(f"{where}: {name} must be a {'whole ' if whole else ''}number {bounds}, not {value!r}.")
    return int(number) if whole else number


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


def _mapping(where: str, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: {name} must be a mapping of names to values, not {value!r}.")
    return dict(value)


def _variants(where: str, name: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """The labels of a dimension of the grid, each with its settings."""
    if name in RESULT_FIELDS:
        raise StudyError(f"{where}: grid.{name} has the name of a field of the results: choose another one.")
    if isinstance(value, Mapping) and value:
        return [(str(label), _mapping(where, f"grid.{name}.{label}", settings)) for label, settings in value.items()]
    if not isinstance(value, list) or not value:
        raise StudyError(f"{where}: grid.{name} must be a list of values or a mapping of names to hyperparameters.")
    return [(str(entry), {name: entry}) for entry in value]


def merge(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param settings: settings, which may be nested
    :param changes: settings that take precedence
    :return: both merged; nested mappings are merged too
    """
    merged = dict(settings)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if both else value
    return merged


def _read_evaluation(where: str, value: Any) -> dict[str, Any]:
    evaluation = _mapping(where, "evaluation", value or {})
    check_names(where, "key of evaluation", evaluation, EVALUATION_KEYS)
    for name, least in COUNTS.items():
        if name in evaluation:
            evaluation[name] = _number(where, f"evaluation.{name}", evaluation[name], least)
    if "epsilon" in evaluation:
        evaluation["epsilon"] = _number(where, "evaluation.epsilon", evaluation["epsilon"], 0, 1, whole=False)
    check_names(where, "evaluation.select", [evaluation.get("select", "last")], SELECTIONS)
    needs = {"select 'best'": evaluation.get("select") == "best", "eval_episodes": "eval_episodes" in evaluation}
    for name in (name for name, needed in needs.items() if needed and "eval_freq" not in evaluation):
        raise StudyError(f"{where}: evaluation.{name} needs evaluation.eval_freq, the steps between evaluations.")
    return evaluation


def _read_published(
    where: str, value: Any, labels: Mapping[str, Collection[str]], cells: Collection[Cell]
) -> tuple[dict[str, Any], ...]:
    rows = value or []
    # What a row must say, so that it stands on a row of its own game and network alone
    needed = {"env", *(name for name, choices in labels.items() if name != "seed" and len(choices) > 1)}
    if not any(leaves_one_agent(cell.algo, cell.hyperparams) for cell in cells):
        needed.add("player" if all(cell.algo == "rtpd" for cell in cells) else "task")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise StudyError(
            f"{where}: published must be a list of rows such as {{env: PongNoFrameskip-v4, loss: kl, percent: 100.9}}, "
            f"not {rows!r}."
        )
    for row in rows:
        check_names(where, "field of published", row, [*labels, "env", "player", "task", "percent"])
        if "env" in row.keys() - labels.keys():
            check_names(where, "env of published", [str(row["env"])], {cell.env for cell in cells})
        for name in row.keys() & labels.keys():
            check_names(where, f"{name} of published", [str(row[name])], labels[name])
        if isinstance(row.get("percent"), bool) or not isinstance(row.get("percent"), (int, float)):
            raise StudyError(
                f"{where}: the row {dict(row)} of published needs percent, the paper's score in % of its teacher."
            )
        missing = sorted(needed - row.keys())
        if missing:
            raise StudyError(
                f"{where}: the row {dict(row)} of published does not say {', '.join(missing)}: a paper's number stands "
                "beside its own game and network alone. Put numbers of others into notes."
            )
    return tuple(dict(row) for row in rows)


def _check_evaluation(where: str, evaluation: Mapping[str, Any], cells: Iterable[Cell]) -> None:
    used = set().union(*(evaluation_keys(cell) for cell in cells))
    for name in evaluation:
        if name not in used:
            hint = f"Its cells read {', '.join(sorted(used))}." if used else "Settings say how rtpd evaluates students."
            raise StudyError(f"{where}: no cell of the study reads evaluation.{name}: leave it out. {hint}")


def _check_cell(where: str, cell: Cell) -> None:
    if ":" not in cell.env and cell.env not in gym.registry:
        close = difflib.get_close_matches(cell.env, gym.registry, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise StudyError(f"{where}: there is no environment {cell.env!r}.{hint}")
    policy = cell.hyperparams.get("policy")
    if policy is not None:
        check_names(
            where, f"policy of {cell.algo}", [policy], pkgutil.resolve_name(ALGORITHMS[cell.algo]).policy_aliases
        )
    one_agent = leaves_one_agent(cell.algo, cell.hyperparams)
    if cell.evaluation.get("select") == "best" and not one_agent:
        raise StudyError(
            f"{where}: evaluation.select 'best' is for pd, qpd, and rtpd with students: null; this {cell.algo} run "
            "keeps no best model. Leave select out."
        )
    if "starts_from" in cell.evaluation and not (one_agent and is_atari(cell.env)):
        raise StudyError(
            f"{where}: evaluation.starts_from records states of Atari games for pd, qpd, and rtpd with students: null, "
            f"not for {cell.algo} on {cell.env}. Leave it out."
        )
    if cell.records and cell.algo in ("pd", "qpd") and cell.hyperparams.get("rollout_policy") != "teacher":
        raise StudyError(
            f"{where}: record shares the teacher's play between students, so the teacher must act: add rollout_policy: "
            "teacher to settings, or leave record out."
        )


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
        content = _mapping(where, "the file", _read_numbers(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{where} is no YAML in UTF-8: {error}") from error
    check_names(where, "key", content, KEYS)
    if not content.get("grid"):
        raise StudyError(f"{where} has no grid: add at least grid: {{algo: […], env: […], seed: […]}}.")
    settings = _mapping(where, "settings", content.get("settings") or {})
    per_env = _mapping(where, "per_env", content.get("per_env") or {})
    evaluation = _read_evaluation(where, content.get("evaluation"))
    record = content.get("record") or False
    if record != "shared" and not isinstance(record, bool):
        raise StudyError(
            f"{where}: record must be true (one recording for each seed), shared (one for all seeds) or false, not "
            f"{record!r}."
        )
    grid = _mapping(where, "grid", content["grid"])
    dimensions = {name: _variants(where, name, value) for name, value in grid.items()}
    labels = {name: [label for label, _ in variants] for name, variants in dimensions.items()}
    cells: dict[str, Cell] = {}
    for combination in itertools.product(*dimensions.values()):
        changes: dict[str, Any] = {}
        for _, variant in combination:
            changes = merge(changes, variant)
        chosen = merge(settings, changes)
        if not isinstance(chosen.get("env"), str) or not isinstance(chosen.get("algo"), str):
            raise StudyError(f"{where}: algo and env must be named, in the grid or in settings.")
        check_names(where, "algorithm", [chosen["algo"]], ALGORITHMS)
        # Precedence: the grid over per_env over settings
        own = _mapping(where, f"per_env.{chosen['env']}", per_env.get(chosen["env"]) or {})
        chosen = merge(merge(settings, own), changes)
        hyperparams = {name: value for name, value in chosen.items() if name not in RUN_FIELDS}
        check_names(where, "setting", hyperparams, [*RUN_FIELDS, *known_hyperparams(chosen["algo"])])
        n_timesteps = chosen.get("n_timesteps")
        cell = Cell(
            algo=chosen["algo"],
            env=chosen["env"],
            seed=_number(where, "seed", chosen.get("seed", 0), 0),
            n_timesteps=None if n_timesteps is None else _number(where, "n_timesteps", n_timesteps, 1),
            hyperparams=hyperparams,
            labels=dict(zip(dimensions, (label for label, _ in combination), strict=True)),
            evaluation=evaluation,
            env_kwargs=_mapping(where, "env_kwargs", chosen.get("env_kwargs") or {}),
            records="per seed" if record is True else record,
            gym_packages=list(gym_packages),
        )
        _check_cell(where, cell)
        if cell.key in cells:
            raise StudyError(f"{where}: the grid has the same cell twice: {cell.labels}. Name every value once.")
        cells[cell.key] = cell
    _check_evaluation(where, evaluation, cells.values())
    check_names(where, "environment of per_env", per_env, {cell.env for cell in cells.values()})
    return Study(
        path.stem,
        str(content.get("title", path.stem)),
        tuple(cells.values()),
        _read_published(where, content.get("published"), labels, cells.values()),
        str(content.get("paper", "")),
        str(content.get("notes", "")),
    )
