"""How the numbers of a report were made, in sentences."""

from collections.abc import Sequence

from sb3_distill.common.utils import counted
from sb3_distill.results.curves import N_LAST
from sb3_distill.study.cell import Cell, plays_one_game
from sb3_distill.study.manifest import Manifest


def describe_protocol(cells: Sequence[Cell]) -> str:
    """
    :param cells: the finished cells
    :return: a description of how scores were measured
    """
    # The study file has one evaluation for all cells.
    first, protocol = cells[0], cells[0].protocol
    beside_teacher = [cell.algo == "rtpd" and not plays_one_game(cell) for cell in cells]
    sentences = []
    if not all(beside_teacher):
        best = ", the best model of its evaluations" if first.selects_best else ""
        starts = "held-out starts" if "starts_from" in first.evaluation else "starts"
        sentences.append(
            f"{counted(protocol['n_episodes'], 'episode')} with {protocol['epsilon']:.0%} random actions for each "
            f"run{best}, the same {starts} for teacher and student."
        )
    if any(beside_teacher):
        sentences.append(
            f"Students beside a teacher: the mean over the last {N_LAST} evaluations of each run, which follow each "
            "other and so give no interval for a single run."
        )
    return " ".join(sentences)


def describe_legend(manifests: Sequence[Manifest]) -> str:
    """
    :param manifests: manifests of finished cells
    :return: how the numbers of the table were made
    """
    cells = [manifest.cell for manifest in manifests]
    minutes = sum(manifest.total_seconds for manifest in manifests) / 60
    environments = ", ".join(dict.fromkeys(cell.env for cell in cells))
    seeds = sorted({cell.seed for cell in cells})
    sentences = [f"{environments}. Seeds {', '.join(map(str, seeds))}.", describe_protocol(cells)]
    # Manifests of earlier versions say True.
    if len(seeds) > 1 and any(cell.recording_key and cell.records in ("shared", True) for cell in cells):
        sentences.append(
            "All seeds learned from one recording of the teacher's play: their spread leaves out that of the play."
        )
    if any(cell.students for cell in cells):
        sentences.append(
            "Students of one run learned from the same play and the same minibatches: they are no independent runs."
        )
    copies = [row for manifest in manifests for row in manifest.rows if row.n_distinct and len(row.returns)]
    repeated = [row for row in copies if (row.n_distinct or 0) < len(row.returns)]
    if repeated:
        fewest = min(repeated, key=lambda row: row.n_distinct or 0)
        sentences.append(
            f"In {len(repeated)} of {counted(len(copies), 'row')}, episodes are exact repeats of others (down to "
            f"{fewest.n_distinct} distinct ones of {len(fewest.returns)}): intervals rest on the distinct ones."
        )
    return " ".join([*sentences, f"{counted(round(minutes), 'minute')} of computing."])
