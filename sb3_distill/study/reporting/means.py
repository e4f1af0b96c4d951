"""Geometric means over the games of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

from sb3_distill.results.statistics import GEOMETRIC_MEAN, geometric_mean
from sb3_distill.study.tables import TEACHER_SHA256, Group, find_published


def geometric_groups(
    groups: Sequence[Group], games: Sequence[str], published: Sequence[Mapping[str, Any]] = ()
) -> list[Group]:
    """
    :param groups: groups of a study
    :param games: the study's environments
    :param published: the paper's rows
    :return: for each combination of the other labels that has results in all games, a group with the geometric means
        over the games, one for each seed that all games have; empty if there is only one game. Tasks are no games:
        multi-task students have geometric means of their own. No mean is formed of the paper's numbers: beside these
        groups stand the means that the paper gives.
    """
    together: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        if group.labels.get("env") in games and group.percents and not group.labels.get("task"):
            key = tuple(value for name, value in group.labels.items() if name != "env")
            together.setdefault(key, []).append(group)
    means = []
    for members in together.values():
        if len(games) < 2 or {group.labels["env"] for group in members} != set(games):
            continue
        if len({group.definition for group in members}) > 1:
            continue
        by_game = [dict(zip(group.seeds, group.percents, strict=True)) for group in members]
        seeds = [seed for seed in by_game[0] if all(seed in percents for percents in by_game)]
        if not seeds:
            continue
        seen = [group.seen for group in members]
        n_parameters, n_bytes = {group.n_parameters for group in members}, {group.n_bytes for group in members}
        labels = {**members[0].labels, "env": GEOMETRIC_MEAN}
        compared = [name for name in labels if name != TEACHER_SHA256]
        means.append(
            Group(
                labels=labels,
                percents=tuple(geometric_mean([percents[seed] for percents in by_game]) for seed in seeds),
                scores=(),
                highest=(),
                teacher=(),
                n_parameters=n_parameters.pop() if len(n_parameters) == 1 else None,
                n_bytes=n_bytes.pop() if len(n_bytes) == 1 else None,
                published=find_published({**members[0].facts, "env": GEOMETRIC_MEAN}, compared, published),
                n_seeds=len(seeds),
                seeds=tuple(seeds),
                definition=members[0].definition,
                seen=(
                    geometric_mean([low for low, _ in seen]),
                    geometric_mean([high for _, high in seen]),
                ),
            )
        )
    return means
