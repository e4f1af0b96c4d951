"""Examples in Python run to their ends, with the Zoo's own agents as teachers, and their students play well."""

import re
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, TRAINED_AGENTS, run_python

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(not TRAINED_AGENTS.is_dir(), reason="needs the Zoo's trained agents (RL_TRAINED_AGENTS)"),
]

# By example: how it prints the scores of its students, how many these are, and the least that each must be. CartPole's
# best is 500; of two tasks it is the geometric mean of per cents; Pendulum's teacher has about -180.
SCORES = {
    "finetune": (r"(?:after PPO|4 bits): ([\d.]+) ±", 2, 450),
    "multi_task": (r"geometric mean +([\d.]+)", 1, 95),
    "own_ppo_teacher": (r"student: ([\d.]+) \+/-", 1, 450),
    "own_teacher": (r"student: ([\d.]+) \+/-", 1, 450),
    "pixels": (r"pixels: ([\d.]+) \+/-", 1, 450),
    "privileged_teacher": (r"numbers: ([-\d.]+) \+/-", 1, -250),
    "proximal": (r"distill_coef=lin_1.0: ([\d.]+) \+/-", 1, 450),
    "quantized_student": (r"QPD, 4 bits +\d+ +([\d.]+) ±", 1, 450),
    "zoo_teacher": (r"student: ([\d.]+) \+/-", 1, 450),
}


@pytest.mark.parametrize("name", SCORES)
def test_an_example_shows_a_student_that_plays(name: str, tmp_path: Path) -> None:
    pattern, n_scores, least = SCORES[name]
    result = run_python(tmp_path, REPOSITORY / "examples" / f"{name}.py", RL_TRAINED_AGENTS=str(TRAINED_AGENTS))
    scores = [float(score) for score in re.findall(pattern, result.stdout)]
    assert len(scores) == n_scores and min(scores) >= least, result.stdout
