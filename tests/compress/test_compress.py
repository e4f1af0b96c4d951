"""The search for the smallest student, from an agent to its export."""

import copy
import csv
import dataclasses
import re
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import optuna
import psutil
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from sb3_distill import load_teacher
from sb3_distill.cli import main
from sb3_distill.compress.candidates import Space, front_of
from sb3_distill.compress.compress import Compressed, compress
from sb3_distill.compress.job import CHECKS, Settings, learn_together
from sb3_distill.compress.outputs import Exports
from sb3_distill.compress.play import natural_temperature
from sb3_distill.compress.search import CompressError, Plan, Search, Student
from sb3_distill.compress.view import View, show
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.export.runner import PolicyRunner
from tests.compress.games import GOAL, PLAN, SHORT, Here, record_of, save_teacher, search_short


def test_a_search_leaves_a_student_its_export_and_the_evidence(found: Compressed, folder: Path):
    out, chosen = folder / "out", found.chosen
    assert chosen is not None and chosen.bound >= 80.0 and f"{chosen.student.n_bytes} bytes" in found.text
    exported = (out / "export" / "policy_int.onnx").stat().st_size
    assert f"Exported: {exported:,} bytes in policy_int.onnx. Tried: 6 students" in found.text
    student = load_teacher(out / "student" / "qpd" / f"{SHORT}_1", device="cpu")
    assert (student.n_bytes, student.env_id) == (chosen.student.n_bytes, SHORT)
    runner = PolicyRunner(out / "export" / "policy_int.onnx")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.mean(runner.predict(observations)[0] == student.predict(observations)[0]) > 0.95
    table = list(csv.DictReader((out / "front.csv").open()))
    sizes = [int(row["bytes"]) for row in table]
    assert sizes == sorted(set(sizes)) and [row["kept"] for row in table].count("yes") == 1
    record = record_of(out)
    assert (record["command"], record["plan"]["seed"], record["n_rounds"]) == ("the command", 0, 2)
    assert record["tries"][-1]["lower_bound"] == chosen.bound and record["chosen"] == chosen.student.outcome.zip
    # At least a fifth of the half hour, not what another try would have taken
    assert record["kept_for_the_claim"] == [360.0]
    assert "optuna" in record["versions"] and len(record["students"]) == 6
    page = (out / "report.html").read_text()
    assert "the command" in page and "data:image/png" in page and (out / "front.png").stat().st_size > 1_000


def test_the_student_is_exported_as_c_too(found: Compressed, folder: Path):
    exports = Exports(folder / "c", found.search, "c")
    shutil.copytree(folder / "out" / "cells", folder / "c" / "cells")
    assert exports.write(found.chosen.student) == "" and list(exports.files) == ["policy.c"]
    assert "policy_act" in (folder / "c" / "export" / "policy.c").read_text()


def test_bytes_are_known_before_a_student_is_trained(found: Compressed, folder: Path):
    for student in found.search.students:
        if student.pairs is not None:
            path = folder / "out" / "cells" / student.outcome.zip
            assert load_teacher(path, device="cpu").n_bytes == student.n_bytes


def test_no_start_was_seen_in_the_search(found: Compressed):
    first = {run["first_seed"] for run in record_of(found.search.folder)["tries"]}
    assert min(first) >= 40_000_000 and len(first) == len(found.tries)


def test_a_search_that_was_killed_goes_on_with_the_same_outcome(found: Compressed, folder: Path):
    again, backend = folder / "again", Here()
    shutil.copytree(found.search.folder / "cells", again / "cells")
    # In its second round
    (second,) = (again / "cells").glob("001-*")
    unfinished = again / "cells" / ".001.half"
    second.rename(unfinished)
    search_short(folder, folder / "again", n_rounds=2, backend=backend)
    assert len(backend.keys) == 1 and not unfinished.exists()
    kept = ("students", "tries", "chosen", "export")
    records = [record_of(folder / name) for name in ("out", "again")]
    for record in records:
        for student in record["students"]:
            del student["seconds"], student["learning_seconds"]
        for each in record["tries"]:
            del each["seconds"]
    assert [records[0][name] for name in kept] == [records[1][name] for name in kept]


def test_proposals_depend_on_the_seed_and_on_what_was_found(found: Compressed):
    students = found.search.students
    other = dataclasses.replace(found.search.plan, seed=1)

    def proposed(plan: Plan, known: list[Student]) -> list:
        again = type(found.search)(
            *(getattr(found.search, name) for name in ("teacher", "env_id", "gym_packages", "space", "reference")),
            GOAL,
            plan,
            *(getattr(found.search, name) for name in ("folder", "view", "seen")),
        )
        again.students, again.n_rounds, again._starts = known, 1, []
        # A proposal that is not taught, for want of time, changes nothing.
        first = again.propose()
        assert all(again.propose() == first for _ in range(3))
        return first

    assert proposed(found.search.plan, students) == proposed(found.search.plan, students)
    assert proposed(found.search.plan, students) != proposed(other, students)
    most = 2 * found.search.good[0].n_bytes
    assert all(found.search.space.n_bytes(params) <= most for params in proposed(other, students))


def test_students_that_are_bad_are_stopped_early(folder: Path):
    teacher = load_teacher(save_teacher(folder), device="cpu")
    space = Space("vector", teacher.observation_space, teacher.action_space, 1.0)
    students = space.starts[:3]
    settings = Settings(str(folder), "", SHORT, [], 0, 1_600, students, 1.0, bars=[2.0] * len(CHECKS))
    model, checks = learn_together(settings, teacher, space, show(teacher, SHORT, View()))
    stopped = [bool(check.stopped) for check in checks.values()]
    assert stopped == [False, True, True] and not model.students and not vars(model.siblings)
    assert [len(check.agreement) for check in checks.values()] == [2, 1, 1]
    assert "agreed with the teacher at" in checks["student1"].stopped and model.transition_share == 1.0


def test_the_front_has_no_student_that_is_larger_and_no_better():
    assert front_of([(10, 50.0), (20, 40.0), (10, 60.0), (30, 90.0), (40, 90.0)]) == [2, 3]


def test_q_values_are_searched_around_their_own_temperature(cartpole_teacher: Path):
    teacher = load_teacher(cartpole_teacher, device="cpu")
    temperature = natural_temperature(teacher, record_observations(teacher, "CartPole-v1", 50).values)
    space = Space("vector", teacher.observation_space, teacher.action_space, temperature)
    assert temperature not in (None, 1.0)
    assert space.entries(space.starts[0])["temperature"] == pytest.approx(0.3 * temperature)


# --- The command line


@pytest.mark.ci
def test_none_that_keeps_enough_is_status_3(folder: Path, capsys):
    arguments = ["--max-bytes", "34", "--budget", "1s", "--seed", "2", "--gym-packages", "tests.compress.games"]
    assert main(["compress", str(save_teacher(folder)), "-o", str(folder / "none"), *arguments]) == 3
    assert "No student was shown to keep 95% of the teacher in at most 34 bytes" in capsys.readouterr().out
    assert record_of(folder / "none")["chosen"] is None and not (folder / "none" / "student").exists()


@pytest.mark.ci
def test_the_command_runs_in_processes_of_its_own(folder: Path, capsys):
    out = folder / "command"
    arguments = ["--budget", "1s", "--keep", "50", "--gym-packages", "tests.compress.games"]
    assert main(["compress", str(save_teacher(folder)), "-o", str(out), *arguments]) in (0, 3)
    said = capsys.readouterr().out
    tried = (
        r"round 1: 6 students from \d+ bytes \(linear\) to \d+ bytes \(.* units\), 500 steps; none keeps enough so far"
    )
    assert re.search(rf"{tried}, 0.0 min left, 0.0 of them for the claim", said)
    assert "The search takes about 1 second, with" in said
    record = record_of(out)
    assert record["command"].startswith("sb3-distill compress ") and record["n_rounds"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "100"], "--keep: must be a number of per cent"),
        (["--confidence", "20"], "--confidence: must be a number of per cent from 50"),
        (["--max-bytes", "0"], "--max-bytes: must be a whole number of at least 1"),
        (["--budget", "30"], "--budget: must be a duration such as 90s, 30m or 2h, not 30"),
        (["--budget", "0m"], "--budget: must be a duration"),
        (["--target", "rust"], "--target: invalid choice"),
        (["--seed", "-1"], "--seed: must be a whole number"),
        (["--backend", "slurm"], "--backend: invalid choice"),
    ],
)
def test_bad_options_are_refused_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["compress", "agent.zip", "-o", "out", *arguments])
    assert message in capsys.readouterr().err


def test_what_cannot_be_compressed_is_refused_before_the_search(folder: Path, tmp_path: Path, capsys):
    assert main(["compress", str(tmp_path / "none.zip"), "-o", str(tmp_path / "out")]) == 1
    assert "There is no agent at" in capsys.readouterr().err
    assert main(["compress", str(save_teacher(folder)), "-o", str(tmp_path / "out"), "--env", "Pendulum-v1"]) == 1
    assert "cannot play Pendulum-v1" in capsys.readouterr().err
    nothing = "NoReward-v0"
    gym.register(nothing, lambda: gym.wrappers.TransformReward(CartPoleEnv(), lambda reward: 0.0), max_episode_steps=9)
    with pytest.raises(CompressError, match="scores 0 in NoReward-v0, of which nothing is a per cent"):
        search_short(folder, tmp_path / "out", env_id=nothing)
    del gym.registry[nothing]
    assert not (tmp_path / "out").exists()


def test_a_search_says_what_it_needs_and_is_refused_where_it_does_not_fit(folder: Path, tmp_path: Path, monkeypatch):
    known, said = psutil.virtual_memory(), []
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
        with pytest.raises(ValueError, match=r"The students of a round need up to .* on the disk.* -o"):
            search_short(folder, tmp_path / "out", n_rounds=2, say=said.append)
    said.clear()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: known._replace(total=50_000, available=50_000))
    with pytest.raises(ValueError, match=r"The play of the runs needs 89.6 KB of memory, .* Run fewer"):
        search_short(folder, tmp_path / "out", n_rounds=2, say=said.append)
    needs = r"up to 2 rounds, with the .*, 89.6 KB of memory for what is played, and up to about [\d.]+ KB on disk for"
    assert len(said) == 1 and re.search(needs, said[0])
    assert not (tmp_path / "out").exists()


def test_a_limit_of_bytes_that_no_student_keeps_is_refused_before_anything_plays(folder: Path, tmp_path: Path):
    with pytest.raises(CompressError, match=r"--max-bytes 3: no student would be tried. The smallest .* has \d+ bytes"):
        compress(save_teacher(folder), tmp_path / "out", dataclasses.replace(GOAL, max_bytes=3), PLAN, n_rounds=1)
    assert not (tmp_path / "out").exists()


def test_the_time_of_the_next_round_follows_from_its_length(found: Compressed):
    search = copy.copy(found.search)
    search.plan = dataclasses.replace(PLAN, n_timesteps=400)
    # Rounds of 100 and 200 steps; the next one has 400.
    search.n_rounds, search.seconds = 2, [10.0, 12.0]
    # Of the last 12 seconds, 5 were for learning.
    outcome = dataclasses.replace(search.students[-1].outcome, seconds=12.0, learning_seconds=5.0)
    search.students, search.n_last = [dataclasses.replace(search.students[-1], outcome=outcome)], 1
    assert search.n_timesteps == 400 and search.expected_seconds == 17.0
    search.n_rounds, search.seconds = 0, []
    assert search.expected_seconds == 0.0


def test_no_student_that_can_be_chosen_is_smaller_than_the_least(found: Compressed):
    space = found.search.space
    assert space.n_bytes(space.smallest) < min(map(space.n_bytes, space.starts))
    assert space.file_bytes(space.largest) > max(map(space.file_bytes, space.starts))


@pytest.mark.parametrize(
    "kind, observation_space",
    [
        ("vector", spaces.Box(-1, 1, (4,))),
        ("vector", spaces.Box(-1, 1, (2, 3))),
        ("grid", spaces.Box(0, 1, (4, 10, 10), bool)),
        ("frames", spaces.Box(0, 255, (4, 84, 84), np.uint8)),
    ],
)
def test_a_limit_of_the_least_bytes_leaves_a_student_to_try(found: Compressed, kind, observation_space):
    space = dataclasses.replace(found.search.space, kind=kind, observation_space=observation_space)
    least = space.n_bytes(space.smallest)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert all(least <= space.n_bytes(space.needed(drawn.ask(space.distributions).params)) for _ in range(30))
    own = found.search
    goal = dataclasses.replace(GOAL, max_bytes=least)
    limited = Search(own.teacher, own.env_id, (), space, own.reference, goal, PLAN, own.folder, own.view, own.seen)
    proposed = limited.propose()
    assert proposed and all(space.n_bytes(params) == least for params in proposed)
