"""Study files: what they may say, and the cells that they stand for."""

import hashlib
import inspect
import itertools
import json
import pkgutil
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sb3_distill.common.utils import unknown_choice
from sb3_distill.zoo.registration import ALGORITHMS

KEYS = ("title", "paper", "settings", "grid", "per_env", "evaluation", "record", "published", "notes")
EVALUATION_KEYS = ("n_episodes", "epsilon", "seed", "select", "eval_freq", "eval_episodes", "teacher", "teachers")
SELECTIONS = ("last", "best")
# What says which run it is; everything else is a hyperparameter.
RUN_FIELDS = ("algo", "env", "seed", "n_timesteps", "env_kwargs")
# The Zoo's own, beside the arguments of the algorithm
ZOO_HYPERPARAMS = ("env_wrapper", "frame_stack", "n_envs", "normalize", "policy_kwargs", "policy", "callback")


class StudyError(ValueError):
    """A study file says what it cannot mean."""


@dataclass(frozen=True)
class Cell:
    """
    One run of a study.

    :param algo: key of the Zoo's ``--algo``
    :param env: environment
    :param seed: its seed
    :param n_timesteps: its length
    :param hyperparams: what differs from ``hyperparams/<algo>.yml``
    :param labels: where in the grid it lies
    :param evaluation: how its agents are scored
    :param env_kwargs: arguments of the environment
    :param records: whether the teacher's play is shared with other cells
    """

    algo: str
    env: str
    seed: int
    n_timesteps: int | None = None
    hyperparams: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    records: bool = False

    @property
    def key(self) -> str:
        """A folder's name: readable, and another one for every other setting."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        words = [re.sub(r"[^A-Za-z0-9.]+", "", str(value)) for value in self.labels.values()]
        return "-".join([*words, digest])

    @property
    def recording_key(self) -> str | None:
        """A name for the teacher's play: the same for all cells that can share it; None where there is none."""
        if not self.records or self.algo not in ("pd", "qpd"):
            return None
        # What a student does with the play does not change it.
        shared = {"teacher", "teacher_eps", "n_envs", "frame_stack", "env_wrapper", "train_freq"}
        settings = {name: value for name, value in self.hyperparams.items() if name in shared}
        about = [self.algo, self.env, self.n_timesteps, self.env_kwargs, settings]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.env.replace('/', '-')}-{digest}"


@dataclass(frozen=True)
class Study:
    """
    A study file.

    :param name: its file's name
    :param title: one line
    :param cells: its runs
    :param published: rows of the paper, with the labels of the grid and ``percent``
    :param paper: what is reproduced
    :param notes: what differs, for the report
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    published: tuple[dict[str, Any], ...] = ()
    paper: str = ""
    notes: str = ""


def check_names(where: str, kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """
    :param where: the file
    :param kind: what they name
    :param names: the names that came
    :param known: those that may
    :raises StudyError: one of them is unknown
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise StudyError(f"{where}: {unknown_choice(kind, name, known)}")


def known_hyperparams(algo: str) -> list[str]:
    """
    :param algo: key of the Zoo's ``--algo``
    :return: the hyperparameters that its runs take
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


def _mapping(where: str, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: {name} must map names to values, not {value!r}.")
    return dict(value)


def _variants(where: str, name: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """A dimension of the grid as labels with the settings that they stand for."""
    if isinstance(value, Mapping):
        return [(str(label), _mapping(where, f"grid.{name}.{label}", settings)) for label, settings in value.items()]
    if not isinstance(value, list) or not value:
        raise StudyError(f"{where}: grid.{name} must be a list of values or a mapping of names to hyperparameters.")
    return [(str(entry), {name: entry}) for entry in value]


def merge(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param settings: nested settings
    :param changes: what is said later
    :return: both; where they name the same, the changes; mappings in mappings are merged too
    """
    merged = dict(settings)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if both else value
    return merged


def read_study(path: str | Path) -> Study:
    """
    :param path: a YAML file
    :return: the study
    :raises StudyError: what is wrong in it, and what would be right
    """
    path = Path(path)
    where = str(path)
    try:
        content = _mapping(where, "the file", yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise StudyError(f"{where} is no YAML: {error}") from error
    check_names(where, "key", content, KEYS)
    if "grid" not in content:
        raise StudyError(f"{where} has no grid: say at least grid: {{algo: […], env: […], seed: […]}}.")
    settings = _mapping(where, "settings", content.get("settings") or {})
    per_env = _mapping(where, "per_env", content.get("per_env") or {})
    evaluation = _mapping(where, "evaluation", content.get("evaluation") or {})
    check_names(where, "key of evaluation", evaluation, EVALUATION_KEYS)
    if evaluation.get("select", "last") not in SELECTIONS:
        raise StudyError(f"{where}: " + unknown_choice("evaluation.select", evaluation["select"], SELECTIONS))
    if evaluation.get("select") == "best" and evaluation.get("eval_freq", -1) <= 0:
        raise StudyError(
            f"{where}: evaluation.select 'best' needs evaluation.eval_freq, the steps between evaluations."
        )
    grid = _mapping(where, "grid", content["grid"])
    dimensions = {name: _variants(where, name, value) for name, value in grid.items()}
    cells = []
    for combination in itertools.product(*dimensions.values()):
        changes: dict[str, Any] = {}
        for _, variant in combination:
            changes = merge(changes, variant)
        chosen = merge(settings, changes)
        if "env" not in chosen or "algo" not in chosen:
            raise StudyError(f"{where}: algo and env must be named, in the grid or in settings.")
        check_names(where, "algorithm", [chosen["algo"]], ALGORITHMS)
        # What the file says of this environment, before what the grid says of this cell
        own = _mapping(where, f"per_env.{chosen['env']}", per_env.get(chosen["env"]) or {})
        chosen = merge(merge(settings, own), changes)
        hyperparams = {name: value for name, value in chosen.items() if name not in RUN_FIELDS}
        check_names(where, "setting", hyperparams, [*RUN_FIELDS, *known_hyperparams(chosen["algo"])])
        if content.get("record") and chosen["algo"] in ("pd", "qpd") and chosen.get("rollout_policy") != "teacher":
            raise StudyError(
                f"{where}: record shares the teacher's play between students; say rollout_policy: teacher in settings, "
                "or leave record out."
            )
        n_timesteps = chosen.get("n_timesteps")
        cells.append(
            Cell(
                algo=chosen["algo"],
                env=chosen["env"],
                seed=int(chosen.get("seed", 0)),
                n_timesteps=None if n_timesteps is None else int(float(n_timesteps)),
                hyperparams=hyperparams,
                labels=dict(zip(dimensions, (label for label, _ in combination), strict=True)),
                evaluation=evaluation,
                env_kwargs=dict(chosen.get("env_kwargs", {})),
                records=bool(content.get("record", False)),
            )
        )
    check_names(where, "environment of per_env", per_env, {cell.env for cell in cells})
    for row in content.get("published") or ():
        check_names(where, "field of published", row, [*dimensions, "player", "task", "percent", "score"])
    return Study(
        path.stem,
        str(content.get("title", path.stem)),
        tuple(cells),
        tuple(content.get("published") or ()),
        str(content.get("paper", "")),
        str(content.get("notes", "")),
    )
