"""Which rows of results are alike: runs of one kind, which differ in their seed alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from sb3_distill.results.row import ROW_FIELDS, Row

# What was measured, which differs between runs that are alike
_MEASURED = {
    *("mean", "std", "median", "iqm", "mean_interval", "iqm_interval", "n_distinct", "returns", "lengths", "traces"),
    *("teacher_mean", "percent_of_teacher", "max_percent", "quotient", "percent_interval", "n_distinct_pairs"),
}
# Judged after the measurement
_JUDGED = {"margin", "verdict"}
# Of each run
_OWN = {"seed", "agent", "agent_sha256"}
# Values of these fields speak for themselves.
_PLAIN = ("env", "task", "player", "algo", "agent", "percent_definition")


def conditions_of(row: Row) -> dict[str, Any]:
    """
    :param row: a row of results
    :return: how it was scored; scores under other conditions are other quantities
    """
    n_episodes = len(row.returns) or None
    beside = {"scored_by": "evaluations of the run"} if row.is_of_run else {"n_episodes": n_episodes}
    return {
        "percent_definition": row.percent_definition,
        "starts_sha256": row.starts_sha256,
        "obs_noise": row.obs_noise,
        "action_delay": row.action_delay,
        "obs_bits": row.obs_bits,
        **beside,
        **row.conditions,
    }


def facts_of(row: Row) -> dict[str, Any]:
    """
    :param row: a row of results
    :return: all that is known of it, except for its seed and what was measured
    """
    # What a study compares comes first, so that it names the rows where this is enough.
    facts: dict[str, Any] = {"env": row.env, **row.labels, "task": row.task, "player": row.player}
    facts |= conditions_of(row)
    facts |= {name: getattr(row, name) for name in ROW_FIELDS if name not in _MEASURED | _JUDGED | _OWN}
    facts |= {name: value for name, value in row.settings.items() if name not in facts}
    # Without a seed, nothing says whether agents are runs of one kind.
    return facts if row.seed is not None else {**facts, "agent": row.agent}


def group_alike(rows: Sequence[Row], names: Sequence[str]) -> tuple[list[str], dict[tuple[str, ...], list[Row]]]:
    """
    :param rows: rows of results
    :param names: facts by which rows are grouped
    :return: these names and all others that are needed so that each group has rows of one kind alone; and the groups,
        by the values of these facts
    """
    names = list(names)
    facts = [{**{"seed": row.seed, "agent": row.agent}, **facts_of(row)} for row in rows]
    told_apart = list(dict.fromkeys(name for row in rows for name in facts_of(row)))
    while True:
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, own in enumerate(facts):
            groups.setdefault(tuple(_text(own.get(name)) for name in names), []).append(index)
        more = next(
            (
                name
                for name in told_apart
                if any(len({_text(facts[index].get(name)) for index in members}) > 1 for members in groups.values())
            ),
            None,
        )
        if more is None:
            return names, {key: [rows[index] for index in members] for key, members in groups.items()}
        names.append(more)


def describe(facts: Mapping[str, str], labels: Sequence[str] = ()) -> str:
    """
    :param facts: facts of a group of rows, as text
    :param labels: names of facts whose values speak for themselves, beside environment, task, player and the like
    :return: the facts on one line
    """
    plain = {*_PLAIN, *labels}
    texts = {name: value[:8] if name.endswith("sha256") else value for name, value in facts.items()}
    return " ".join(text if name in plain else f"{name}={text}" for name, text in texts.items() if text)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
