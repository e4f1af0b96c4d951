"""The grid of a study: its dimensions, which setting comes from where, and cells that are the same."""

import ast
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sb3_distill.algorithms import STUDENTS
from sb3_distill.results.row import ROW_FIELDS
from sb3_distill.study.cell import MULTI_TASK, OF_CELL, ZOO, Cell, StudyError, leaves_one_agent

# Settings of the run itself; all other settings are hyperparameters.
RUN_FIELDS = ("algo", "env", "seed", "n_timesteps", "env_kwargs")
# Other fields of rows of results, and "percent" of published rows: dimensions of the grid must not have these names
RESULT_FIELDS = {*ROW_FIELDS, "percent"} - {*RUN_FIELDS}
# Where a setting stands: the names of the mappings that it is in, then its own
Path = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """
    Settings from one place of a study file.

    :param place: the place, such as "settings" or "grid.student.small"
    :param settings: the settings, which may be nested
    :param label: of a value of a dimension of the grid, its label
    """

    place: str
    settings: dict[str, Any]
    label: str = ""

    @cached_property
    def values(self) -> dict[Path, Any]:
        """The value of each setting, by where it stands."""
        return dict(_values(self.settings))


def _values(settings: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in settings.items():
        path = (*above, str(name))
        if isinstance(value, Mapping):
            yield from _values(value, path)
        else:
            yield path, value


def _overlap(one: Path, other: Path) -> bool:
    """Whether both are the same setting, or one is a mapping that the other one replaces as a whole."""
    return all(mine == its for mine, its in zip(one, other, strict=False))


def _name(path: Path) -> str:
    return ".".join(path)


def mapping_of(where: str, name: str, value: Any) -> dict[str, Any]:
    """
    :param where: path of the study file, for the message
    :param name: name of the entry
    :param value: its value
    :return: the value
    :raises StudyError: it is not a mapping
    """
    if not isinstance(value, Mapping):
        raise StudyError(f"{where}: {name} must be a mapping of names to values, not {value!r}.")
    return dict(value)


def read_dimension(where: str, name: str, value: Any) -> list[Layer]:
    """
    :param where: path of the study file, for the message
    :param name: name of a dimension of the grid
    :param value: its values
    :return: the settings of each value
    :raises StudyError: the dimension has a name of the results, no values, or the same label twice
    """
    if name in RESULT_FIELDS:
        raise StudyError(f"{where}: grid.{name} has the name of a field of the results: choose another one.")
    if isinstance(value, Mapping) and value:
        layers = [
            Layer(f"grid.{name}.{label}", mapping_of(where, f"grid.{name}.{label}", settings), str(label))
            for label, settings in value.items()
        ]
    elif isinstance(value, list) and value:
        layers = [Layer(f"grid.{name}", {name: entry}, str(entry)) for entry in value]
    else:
        raise StudyError(f"{where}: grid.{name} must be a list of values or a mapping of names to hyperparameters.")
    labels = [layer.label for layer in layers]
    twice = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
    if twice:
        raise StudyError(f"{where}: grid.{name} has {', '.join(map(repr, twice))} twice. Name every value once.")
    for layer in layers if name in ROW_FIELDS else ():
        if set(layer.settings) != {name}:
            found = ", ".join(layer.settings) or "nothing"
            raise StudyError(
                f"{where}: {layer.place} must set {name} and nothing else, not {found}, because results have its label "
                f"as their {name}. Give the dimension another name."
            )
    return layers


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


def check_dimensions(where: str, dimensions: Sequence[Sequence[Layer]]) -> None:
    """
    :param where: path of the study file, for the message
    :param dimensions: the values of each dimension of the grid
    :raises StudyError: two dimensions set the same setting, so that the labels of one of them would be untrue
    """
    for first, second in itertools.combinations(dimensions, 2):
        for one, other in itertools.product(first, second):
            for mine, its in itertools.product(one.values, other.values):
                if _overlap(mine, its):
                    raise StudyError(
                        f"{where}: {one.place} and {other.place} both set {_name(max(mine, its, key=len))}, so one of "
                        "them would have no effect. Set it in one dimension of the grid."
                    )


class Overrides:
    """
    Merges the layers of each cell, and remembers which settings have had an effect.

    :param where: path of the study file, for the message
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._effective: set[tuple[str, Path]] = set()
        self._replaced: dict[tuple[str, Path], str] = {}

    def merge(self, layers: Sequence[Layer]) -> dict[str, Any]:
        """
        :param layers: the layers of a cell; later ones take precedence
        :return: all of them merged
        :raises StudyError: a setting is a mapping in one layer and a text in another one, which cannot be merged
        """
        merged: dict[str, Any] = {}
        for index, layer in enumerate(layers):
            merged = merge(merged, layer.settings)
            for path in layer.values:
                replaced = False
                for later in layers[index + 1 :]:
                    for its in (its for its in later.values if _overlap(path, its)):
                        self._check_kinds(layer, path, later, its)
                        self._replaced.setdefault((layer.place, path), later.place)
                        replaced = True
                if not replaced:
                    self._effective.add((layer.place, path))
        return merged

    def _check_kinds(self, layer: Layer, path: Path, later: Layer, its: Path) -> None:
        shorter, value = (path, layer.values[path]) if len(path) < len(its) else (its, later.values[its])
        if len(path) != len(its) and isinstance(value, str):
            raise StudyError(
                f"{self.where}: {layer.place} and {later.place} both set {_name(shorter)}, one as a text and one as a "
                "mapping. These cannot be merged, so one of them would be lost. Write both as mappings."
            )

    def check(self) -> None:
        """
        :raises StudyError: a setting has no effect, because others replace it in every cell
        """
        for (place, path), by in self._replaced.items():
            if (place, path) not in self._effective:
                raise StudyError(
                    f"{self.where}: {place}.{_name(path)} has no effect, because {by} sets it in every cell. Leave one "
                    "of them out."
                )


def _same(value: Any) -> Any:
    """The value in a form that is equal for equal settings: mappings in any order, also as the text dict(…)."""
    if isinstance(value, str):
        try:
            expression = ast.parse(value.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return value
        return _same_call(expression) if isinstance(expression, (ast.Call, ast.Dict)) else value
    if isinstance(value, Mapping):
        return frozenset((str(name), _same(entry)) for name, entry in value.items())
    return tuple(map(_same, value)) if isinstance(value, (list, tuple)) else value


def _same_call(expression: ast.expr) -> Any:
    if isinstance(expression, ast.Call) and ast.unparse(expression.func) == "dict" and not expression.args:
        return frozenset((str(keyword.arg), _same_call(keyword.value)) for keyword in expression.keywords)
    try:
        return _same(ast.literal_eval(expression))
    except (ValueError, TypeError, RecursionError):
        return ast.unparse(expression)


def share_play(where: str, dimension: str, cells: Sequence[Cell], entries: Mapping[str, Sequence[str]]) -> list[Cell]:
    """
    Let cells that differ in one dimension of the grid alone be one run, in which its values are the students.

    :param where: path of the study file, for the message
    :param dimension: the dimension
    :param cells: the cells of the grid
    :param entries: by algorithm, the settings that a student can have for itself
    :return: the runs
    :raises StudyError: the values differ in more than their students
    """
    runs: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        others = tuple(label for name, label in cell.labels.items() if name != dimension)
        runs.setdefault(others, []).append(cell)
    return [_one_run(where, dimension, students, entries[students[0].algo]) for students in runs.values()]


def _one_run(where: str, dimension: str, cells: Sequence[Cell], entries: Sequence[str]) -> Cell:
    first, labels = cells[0], [cell.labels[dimension] for cell in cells]
    students: dict[str, dict[str, Any]] = {}
    for cell, label in zip(cells, labels, strict=True):
        place = f"{where}: grid.{dimension}.{label}"
        pairs = [{**vars(each), **each.hyperparams} for each in (first, cell)]
        for name in sorted((pairs[0].keys() | pairs[1].keys()) - {"hyperparams", "labels", *entries}):
            if any(name not in pair for pair in pairs) or pairs[0][name] != pairs[1][name]:
                raise StudyError(
                    f"{place} sets {name}, which students that share their play have in common: set it in settings, or "
                    "leave share_play out."
                )
        missing = sorted(first.hyperparams.keys() - cell.hyperparams.keys())
        if missing:
            raise StudyError(
                f"{place} does not say {missing[0]}, which grid.{dimension}.{labels[0]} says: a student that shares "
                "its play takes over what it does not say. Say it for every student."
            )
        said = first.hyperparams
        own = {name: value for name, value in cell.hyperparams.items() if name not in said or said[name] != value}
        if "policy" in own and "policy_kwargs" in cell.hyperparams:
            own["policy_kwargs"] = cell.hyperparams["policy_kwargs"]
        students[re.sub(r"\W", "_", f"{dimension}_{label}")] = own
    if len(students) < len(cells):
        raise StudyError(f"{where}: labels of grid.{dimension} are alike but for their special characters: rename one.")
    further = dict(list(students.items())[1:])
    return replace(
        first,
        hyperparams={**first.hyperparams, "students": further},
        labels={**first.labels, dimension: "+".join(labels)},
        share_play={dimension: labels},
    )


def with_references(cells: Sequence[Cell]) -> list[Cell]:
    """
    :param cells: the runs of a study
    :return: the runs. Those that have no teacher count as 100% the teacher of the study's distilled runs of the same
        game, where these have one in common; else the agent beside which the students of one run with the same seed
        learn.
    """
    return [_with_reference(cell, cells) for cell in cells]


def _with_reference(cell: Cell, cells: Sequence[Cell]) -> Cell:
    several = cell.algo in MULTI_TASK
    name, algos = ("teachers", ("mtpd",)) if several else ("teacher", STUDENTS)
    learns_alone = cell.algo not in algos and (several or leaves_one_agent(cell.algo, cell.hyperparams))
    if not learns_alone or name in cell.evaluation:
        return cell
    same_game = [each for each in cells if _game_of(each) == _game_of(cell)]
    # Which agent of the Zoo a run of qpd takes depends on its actions.
    sources = [
        each.hyperparams.get(name, ZOO if each.algo == "pd" else None) for each in same_game if each.algo in algos
    ]
    if not sources and not several:
        sources = [
            f"{OF_CELL}{each.key}" for each in same_game if _has_students_beside(each) and each.seed == cell.seed
        ]
    is_one = bool(sources) and all(source == sources[0] for source in sources)
    if not is_one or not isinstance(sources[0], Mapping if several else str):
        return cell
    return replace(cell, evaluation={**cell.evaluation, name: sources[0]})


def _has_students_beside(cell: Cell) -> bool:
    """Whether the run leaves an agent and its students, and the agent's name does not change any more."""
    is_alone = leaves_one_agent(cell.algo, cell.hyperparams)
    return cell.algo == "rtpd" and not is_alone and not isinstance(cell.hyperparams.get("teacher"), Mapping)


def _game_of(cell: Cell) -> Any:
    # Wrappers of several tasks, such as clipped rewards, are for the training.
    names = ("games", "env_ids") if cell.algo in MULTI_TASK else tuple(sorted(cell.env_kwargs))
    return cell.env.rpartition(":")[2], [(name, cell.env_kwargs.get(name)) for name in names]


def with_teachers_of_cells(where: str, cells: Sequence[Cell]) -> list[Cell]:
    """
    :param where: path of the study file, for the message
    :param cells: the runs of a study
    :return: the runs; of those whose ``teacher`` names labels of the grid, the teacher is the agent of the run that has
        these labels, and all others in common
    :raises StudyError: there is no such run, or it leaves several agents, or has itself such a teacher
    """
    return [_with_teacher_of_cell(where, cell, cells) for cell in cells]


def _with_teacher_of_cell(where: str, cell: Cell, cells: Sequence[Cell]) -> Cell:
    teacher = cell.hyperparams.get("teacher")
    if not isinstance(teacher, Mapping):
        return cell
    labels = {**cell.labels, **{str(name): str(label) for name, label in teacher.items()}}
    other = next((each for each in cells if each.labels == labels and each is not cell), None)
    if other is None:
        raise StudyError(
            f"{where}: teacher {dict(teacher)} names no other run of the grid. Name labels of its dimensions, which "
            f"are {', '.join(cell.labels)}; the run must have all other labels in common with that of its student."
        )
    one = leaves_one_agent(other.algo, other.hyperparams) and not other.students
    if not one or isinstance(other.hyperparams.get("teacher"), Mapping):
        raise StudyError(
            f"{where}: teacher {dict(teacher)} names a run that leaves several agents, or whose own teacher is a run "
            "of the grid. Name one of pd, qpd, or rtpd with students: null, that has one student and another teacher."
        )
    return replace(cell, hyperparams={**cell.hyperparams, "teacher": f"{OF_CELL}{other.key}"})


def settings_of(cell: Cell) -> tuple[Any, ...]:
    """
    :param cell: a cell
    :return: all that its run depends on, however it is spelled: equal for cells that are the same run
    """
    # "package:Env-v0" is "Env-v0".
    env = cell.env.rpartition(":")[2]
    hyperparams = {name: value for name, value in cell.hyperparams.items() if name not in _idle(cell.hyperparams)}
    return (cell.algo, env, cell.seed, cell.n_timesteps, _same(hyperparams), _same(cell.env_kwargs))


def _idle(hyperparams: Mapping[str, Any]) -> set[str]:
    """Settings that change nothing, because of others."""
    idle = {"temperature", "student_temperature"} if hyperparams.get("loss") in ("mse", "nll") else set()
    return idle | ({"teacher_eps"} if hyperparams.get("rollout_policy") == "student" else set())


def check_distinct(where: str, cells: Sequence[Cell]) -> None:
    """
    :param where: path of the study file, for the message
    :param cells: the cells of the grid
    :raises StudyError: two of them have the same settings
    """
    known: dict[Any, Cell] = {}
    for cell in cells:
        other = known.setdefault(settings_of(cell), cell)
        if other is not cell:
            labels = [
                " ".join(f"{name}={label}" for name, label in each.labels.items() if label != beside.labels[name])
                for each, beside in ((other, cell), (cell, other))
            ]
            raise StudyError(
                f"{where}: {labels[0]} and {labels[1]} of the grid are the same cell twice: all their settings are "
                "equal, but for those that have no effect beside the others. Leave one of them out."
            )
