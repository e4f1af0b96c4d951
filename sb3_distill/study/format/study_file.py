"""The format of study files: what is checked before the grid is made, and the JSON schema for editors."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, WithJsonSchema

from sb3_distill.common.utils import to_number, unknown_choice
from sb3_distill.study.cell import StudyError

# ``SCHEMA`` is what ``StudyFile`` says, for editors
SCHEMA = Path(__file__).with_name("study.schema.json")
_PUBLISHED = (
    "published must be a list of rows such as {{env: PongNoFrameskip-v4, loss: kl, percent: 100.9}}, not {value!r}."
)
# What is wrong with a key, where more is to be said than its type
_SAID = {
    "setting": "setting must be paper (the papers' own settings) or be left out, not {value!r}.",
    "record": "record must be true (one recording for each seed), shared (one for all seeds) or false, not {value!r}.",
}
_EXPECTED = {
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "list_type": "a list",
    "string_type": "text",
}


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


# Of a number that has no default
_UNSET: Any = None
Settings = dict[str, Any]
Whole = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
# The grid's own reader says what is wrong with a dimension.
Dimension = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "minItems": 1},
                {"type": "object", "minProperties": 1, "additionalProperties": {"type": "object"}},
            ]
        }
    ),
]


class Evaluation(BaseModel):
    """How the agents of a study are scored."""

    model_config = ConfigDict(extra="forbid")
    n_episodes: Whole = Field(30, ge=1, description="episodes of each agent")
    seed: Whole = Field(0, ge=0, description="seed of the first episode")
    eval_freq: Whole = Field(_UNSET, ge=1, description="steps between the evaluations of a run")
    eval_episodes: Whole = Field(_UNSET, ge=1, description="episodes of each evaluation of a run")
    epsilon: Number = Field(0.0, ge=0, le=1, description="share of random actions")
    select: Literal["last", "best"] = Field(
        "last", description="the last model of a run, or that of its best evaluation"
    )
    starts_from: str | None = Field(None, description="who records held-out starts of Atari games: random, or an agent")
    teacher: str | None = Field(None, description="the agent whose score is 100%")
    teachers: dict[str, str] | None = Field(None, description="by task, the agent whose score is 100%")


class Published(BaseModel):
    """A result of a paper, with the labels of the grid that it belongs to."""

    model_config = ConfigDict(extra="allow")
    percent: Number = Field(strict=True, allow_inf_nan=False, description="the paper's score in % of its teacher")


class StudyFile(BaseModel):
    """A study of sb3-distill: a grid of runs, and how they are evaluated."""

    model_config = ConfigDict(extra="forbid")
    title: Text | None = Field(None, description="title in the report")
    paper: Text | None = Field(None, description="the paper whose results are reproduced")
    notes: Text | None = Field(None, description="differences from the paper")
    setting: Literal["paper"] | None = Field(None, description="paper: the papers' own settings for Atari games")
    settings: Settings | None = Field(None, description="algo, env, n_timesteps and hyperparameters of all cells")
    per_env: dict[str, Settings | None] | None = Field(None, description="by environment, settings that win over those")
    grid: dict[str, Dimension] = Field(min_length=1, description="dimensions: lists of values, or names for settings")
    share_play: str | None = Field(None, description="dimension whose values are students of one run")
    record: StrictBool | Literal["shared"] | None = Field(
        None, description="whether the teacher plays once for many runs"
    )
    evaluation: Evaluation | None = Field(None, description="how agents are scored")
    published: list[Published] | None = Field(None, description="results of the paper")


def json_schema() -> str:
    """
    :return: the JSON schema of study files
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **StudyFile.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def check_study_file(where: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param where: path of the study file, for the message
    :param content: its content
    :return: the content, with the numbers of ``evaluation`` as numbers
    :raises StudyError: a key is unknown, or has a value of another kind
    """
    try:
        read = StudyFile.model_validate(content)
    except ValidationError as error:
        # A misspelt name explains what is missing.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        raise StudyError(f"{where}{_describe(problems[0], content)}") from error
    evaluation = {name: getattr(read.evaluation, name) for name in content.get("evaluation") or {}}
    texts = {name: getattr(read, name) for name in ("title", "paper", "notes")}
    return {**content, **texts, "evaluation": evaluation}


def number_problem(name: str, value: Any, least: float, most: float = math.inf, whole: bool = True) -> str:
    """
    :param name: name of a number
    :param value: what came
    :param least: the smallest allowed number
    :param most: the largest allowed number
    :param whole: whether it must be a whole one
    :return: the message
    """
    bounds = f"of at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
    return f"{name} must be a {'whole ' if whole else ''}number {bounds}, not {value!r}."


def read_whole(name: str, value: Any, least: float) -> int:
    """
    :param name: name of a number
    :param value: what came
    :param least: the smallest allowed number
    :return: the number
    :raises ValueError: it is none, or no whole one, or below the smallest
    """
    number = to_number(value)
    if isinstance(value, bool) or not number >= least or not number.is_integer():
        raise ValueError(number_problem(name, value, least))
    return int(number)


def _describe(problem: Any, content: Mapping[str, Any]) -> str:
    """The problem in our words, behind the path of the file."""
    place, kind, value = problem["loc"], problem["type"], problem["input"]
    name = ".".join(str(part) for part in place if part != "[key]")
    if place == ("grid",) and not content.get("grid"):
        return " has no grid: add at least grid: {algo: […], env: […], seed: […]}."
    if kind == "extra_forbidden":
        model, of = (Evaluation, " of evaluation") if len(place) > 1 else (StudyFile, "")
        return f": {unknown_choice(f'key{of}', place[-1], model.model_fields)}"
    if place[0] in _SAID:
        return f": {_SAID[place[0]].format(value=value)}"
    if place[0] == "published" and place[-1] == "percent":
        row = content["published"][place[1]]
        return f": the row {dict(row)} of published needs percent, the paper's score in % of its teacher."
    if place[0] == "published":
        return f": {_PUBLISHED.format(value=content['published'])}"
    if kind == "literal_error":
        return f": {unknown_choice(name, value, Evaluation.model_fields['select'].annotation.__args__)}"  # type: ignore[union-attr]
    if kind in _EXPECTED:
        return f": {name} must be {_EXPECTED[kind]}, not {value!r}."
    limits = Evaluation.model_json_schema()["properties"].get(place[-1], {})
    if "minimum" in limits:
        bounds = limits["minimum"], limits.get("maximum", math.inf)
        return f": {number_problem(name, value, *bounds, whole=limits['type'] == 'integer')}"
    return f": {name}: {problem['msg']}, not {value!r}."
