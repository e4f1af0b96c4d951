"""The studies of the papers' tables and figures, against what the papers say."""

from typing import Any

import pytest

from sb3_distill.study.cell import Cell, Study
from sb3_distill.study.cli import main
from sb3_distill.study.file import read_study
from sb3_distill.study.plan.strict import with_paper
from sb3_distill.study.run import run_study
from tests.helpers import REPOSITORY
from tests.study.studies import run_here, write

HOUR = 54_000  # steps
NETS = ("Net1Policy", "Net2Policy", "Net3Policy")
LOSSES = ("mse", "nll", "kl")
B1 = {
    "BeamRider": (87.1, 85.3, 75.2),
    "Breakout": (105.6, 98.1, 78.6),
    "Enduro": (142.5, 141.3, 117.1),
    "Freeway": (103.5, 103.5, 103.5),
    "MsPacman": (102.5, 86.4, 96.2),
    "Pong": (100.6, 103.7, 96.9),
    "Qbert": (129.6, 130.6, 107.9),
    "Riverraid": (109.3, 102.7, 84.1),
    "Seaquest": (142.7, 163.5, 137.4),
    "SpaceInvaders": (78.6, 49.4, 20.9),
}
TABLE_1 = {
    "Breakout": (33.9, 77.6, 94.7),
    "Freeway": (99.4, 101.4, 103.5),
    "Pong": (94.4, 94.9, 100.9),
    "Qbert": (122.2, 147.6, 155.0),
}
# Scores of expert and student
ACTOR_MIMIC = {
    "Breakout": (276.5, 375.7),
    "Boxing": (95.76, 96.5),
    "Enduro": (1428.6, 1402.5),
    "Pong": (20.9, 20.8),
    "Seaquest": (5769.4, 4860.9),
    "SpaceInvaders": (1388.2, 1325.4),
    "BeamRider": (8520.1, 5602.0),
}
# Scores: distilled with max-pool and the same maps, halved maps; without a pool likewise; then the four alone
ABLATION = {
    "SpaceInvaders": (1283.7, 1325.4, 1384.1, 1181.6, 763.5, 952.0, 1388.2, 917.5),
    "Enduro": (1778.0, 1402.5, 1723.8, 1644.3, 1094.8, 717.5, 1428.6, 1706.2),
    "BeamRider": (6873.3, 5602.0, 8936.0, 8201.1, 7871.2, 4284.0, 8520.1, 8032.6),
}
REAL_TIME = {
    ("Pong", "kl"): (97.5, 100.7, 99.1),
    ("Breakout", "kl"): (100.1, 97.3, 91.1),
    ("Pong", "reverse_kl"): (113.3, 114.4, 100.5),
    ("Breakout", "reverse_kl"): (106.9, 101.3, 107.7),
}
# Means with and without imitation
IMITATION = {
    ("MsPacman", "net4"): (74.8, 63.9),
    ("SpaceInvaders", "net4"): (116.4, 106.6),
    ("Breakout", "net4"): (102.2, 103.0),
    ("MsPacman", "net5"): (79.1, 73.7),
    ("SpaceInvaders", "net5"): (86.0, 89.3),
    ("Breakout", "net5"): (100.4, 100.0),
}
CELLS_OF_ABLATION = [(k, p, m) for k in ("distilled", "alone") for p in ("max", "none") for m in ("same", "halved")]

PUBLISHED: dict[str, dict[tuple, float]] = {
    "pd_table_b1": {
        (g, net): p
        for g, row in {**B1, "geometric mean": (108.3, 101.7, 83.9)}.items()
        for net, p in zip(NETS, row, strict=True)
    },
    "pd_multitask": {
        ("MultiTask", name, "geometric mean"): p for name, p in (("Multi-DQN", 83.5), ("NLL", 105.1), ("KL", 116.9))
    },
    "pd_table2": {("MultiTask", "geometric mean"): 89.3},
    "pd_table1": {(g, loss): p for g, row in TABLE_1.items() for loss, p in zip(LOSSES, row, strict=True)},
    "am_table1": {(g,): round(100 * student / expert, 1) for g, (expert, student) in ACTOR_MIMIC.items()},
    "am_ablation": {
        (game, *cell): round(100 * score / scores[6], 1)
        for game, scores in ABLATION.items()
        for cell, score in zip(CELLS_OF_ABLATION, scores, strict=True)
    },
    "rtpd_table1": {(*key, f"net{n}"): p for key, row in REAL_TIME.items() for n, p in enumerate(row, 1)},
    "rtpd_table2": {
        (game, imitation, net): p
        for (game, net), row in IMITATION.items()
        for imitation, p in zip((True, False), row, strict=True)
    },
}
# Games, and what the settings of all cells are, with those of the paper
GAMES: dict[str, list[str]] = {
    "pd_table1": list(TABLE_1),
    "pd_temperature": list(TABLE_1),
    "pd_table_b1": list(B1),
    "pd_multitask": ["MultiTask"],
    "pd_table2": ["MultiTask"],
    "pd_figure5": ["Qbert", "Breakout", "Pong"],
    "rtpd_table1": ["MsPacman", "Qbert", "BeamRider", "Pong", "SpaceInvaders", "Breakout", "Enduro"],
    "rtpd_table2": ["MsPacman", "SpaceInvaders", "Breakout"],
    "rtpd_time": ["Pong"],
    "am_table1": list(ACTOR_MIMIC),
    "am_ablation": list(ABLATION),
    "qpd_figure1": ["Breakout"],
}
# The ten games of table 2 alone take more hours, and the choice of the temperature takes several.
POLICY_DISTILLATION = {
    "n_timesteps": 500 * HOUR,
    "temperature": 0.01,
    "student_temperature": 1.0,
    "buffer_size": 10 * HOUR,
    "learning_rate": 2.5e-4,
    "rollout_policy": "teacher",
    "teacher_eps": 0.05,
    "gradient_steps": 10_000,
    "optimizer": "CappedRMSprop",
}
NATURE = {
    "buffer_size": 1_000_000,
    "target_update_interval": 10_000,
    "learning_starts": 50_000,
    "learning_rate": 2.5e-4,
    "exploration_final_eps": 0.1,
    "optimizer": "CappedRMSprop",
}
# 100 epochs of 25,000 updates, one after every 4 steps
REAL_TIME_RUN = {**NATURE, "n_timesteps": 100 * 25_000 * 4, "eval_freq": 25_000, "n_eval_episodes": 30}
ACTOR_MIMIC_RUN = {
    "n_timesteps": 20_000_000,
    "policy": "MaxPoolCnnPolicy",
    "loss": "kl",
    "rollout_policy": "student",
    "student_exploration": "softmax",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "pd_table1": {**POLICY_DISTILLATION, "policy": "CnnPolicy"},
    "pd_temperature": {
        **{name: value for name, value in POLICY_DISTILLATION.items() if name != "temperature"},
        "policy": "CnnPolicy",
        "loss": "kl",
    },
    "pd_table_b1": {**POLICY_DISTILLATION, "loss": "kl"},
    "pd_multitask": {"n_timesteps": 500 * HOUR, "policy": "MultiTaskCnnPolicy"},
    "pd_table2": {
        **POLICY_DISTILLATION,
        "n_timesteps": 34_000 * HOUR,
        "policy": "MultiTaskLargeCnnPolicy",
        "loss": "kl",
    },
    "pd_figure5": {
        **NATURE,
        "teacher_source": "best",
        "self_learning": 0,
        "loss": "kl",
        "temperature": 0.01,
        "student_temperature": 1.0,
        "n_timesteps": 50_000_000,
    },
    "rtpd_table1": REAL_TIME_RUN,
    "rtpd_table2": {**REAL_TIME_RUN, "loss": "kl"},
    # Of all phases, see below
    "rtpd_time": {"optimizer": "CappedRMSprop"},
    "am_table1": {**ACTOR_MIMIC_RUN, "temperature": 0.01, "student_temperature": 0.01},
    "am_ablation": {"n_timesteps": 20_000_000},
    "qpd_figure1": {"n_timesteps": 540_000},
}
# Values of the grid
GRIDS: dict[str, dict[str, list[str]]] = {
    "pd_table1": {"loss": list(LOSSES)},
    "pd_temperature": {"temperature": ["1.0", "0.1", "0.01", "0.001"]},
    "pd_table_b1": {"policy": list(NETS)},
    "pd_multitask": {"student": ["Multi-DQN", "NLL", "KL"]},
    "pd_figure5": {"seed": ["0", "1"]},
    "rtpd_table1": {"loss": ["kl", "reverse_kl"]},
    "rtpd_table2": {"imitation": ["True", "False"]},
    "qpd_figure1": {"policy": list(NETS), "bits": ["32", "8", "4"], "seed": ["0", "1", "2"]},
    "am_ablation": {"learning": ["distilled", "alone"], "pool": ["max", "none"], "maps": ["same", "halved"]},
}
# No start states are recorded for students of several games.
NO_OPS = {"n_episodes": 100, "epsilon": 0.05}
HELD_OUT = {**NO_OPS, "starts_from": "random"}
BEST_OF_EVALUATIONS = {"n_episodes": 100, "select": "best", "eval_freq": 500_000, "eval_episodes": 10}
EVALUATIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("pd_table1", "pd_temperature", "pd_table_b1"), HELD_OUT),
    **dict.fromkeys(("pd_multitask", "pd_table2"), NO_OPS),
    **dict.fromkeys(("am_table1", "am_ablation"), BEST_OF_EVALUATIONS),
}


def study_of(name: str) -> Study:
    return read_study(REPOSITORY / "studies" / f"{name}.yml")


def settings_of(cell: Cell) -> dict[str, Any]:
    """All settings of a cell that its study or the paper says."""
    found = with_paper(cell.algo, cell.env, cell.hyperparams, cell.n_timesteps or 0)
    optimizer = found.get("policy_kwargs", {}).get("optimizer_class")
    return {**found, "n_timesteps": cell.n_timesteps, "optimizer": getattr(optimizer, "__name__", None)}


def game_of(env: str) -> str:
    return env.removesuffix("NoFrameskip-v4").removesuffix("Atari-v0")


def test_every_study_of_a_paper_is_known():
    mujoco = ("_mujoco", "_wide", "_squashed", "_more", "_narrow", "_bytes")
    small = ("_small", "_minatar", "_hour", "_memory", "_lunar", *mujoco)
    found = {path.stem for path in (REPOSITORY / "studies").glob("*.yml") if not path.stem.endswith(small)}
    assert found == GAMES.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", GAMES)
def test_settings_are_the_papers(name):
    study = study_of(name)
    assert list(dict.fromkeys(game_of(cell.env) for cell in study.cells)) == GAMES[name]
    for dimension, values in GRIDS.get(name, {}).items():
        assert list(dict.fromkeys(cell.labels[dimension] for cell in study.cells)) == values
    for cell in study.cells:
        assert cell.hyperparams["strict"] is True
        assert SETTINGS[name].items() <= settings_of(cell).items()
        assert EVALUATIONS.get(name, {}).items() <= cell.evaluation.items()


def published_in(name: str) -> dict[tuple, float]:
    rows = {}
    for row in study_of(name).published:
        labels = (value for key, value in row.items() if key not in ("env", "percent"))
        rows[(game_of(row["env"]), *labels)] = row["percent"]
    return rows


@pytest.mark.parametrize("name", GAMES)
def test_published_numbers_are_the_papers(name):
    assert published_in(name) == PUBLISHED.get(name, {})


def test_shorter_studies_have_the_same_published_numbers():
    table_b1 = {(game, net[:4].lower()): percent for (game, net), percent in PUBLISHED["pd_table_b1"].items()}
    known = {"pd_table1_hour": PUBLISHED["pd_table1"], "pd_table_b1_hour": table_b1}
    for path in (REPOSITORY / "studies").glob("*.yml"):
        if path.stem not in GAMES:
            found = published_in(path.stem)
            assert found.items() <= known.get(path.stem, {}).items()
            assert bool(found) == (path.stem in known)


@pytest.mark.parametrize(
    "name", ["pd_table1", "pd_temperature", "pd_table_b1", "am_table1", "am_ablation", "qpd_figure1"]
)
def test_teachers_are_of_the_papers_kind(name):
    """DQN agents of the game itself; an actor-critic for quantization-aware distillation."""
    for cell in study_of(name).cells:
        if cell.labels.get("learning") != "alone":
            assert cell.hyperparams["teacher"] == f"zoo:{'ppo' if cell.algo == 'qpd' else 'dqn'}/{cell.env}"


def test_teachers_and_students_of_several_games():
    three, ten = study_of("pd_multitask"), study_of("pd_table2")
    for study, games in ((three, ["Freeway", "Pong", "Qbert"]), (ten, list(B1))):
        teachers = {game: f"zoo:dqn/{game}NoFrameskip-v4" for game in games}
        for cell in study.cells:
            assert cell.env_kwargs["games"] == games and cell.evaluation["teachers"] == teachers
            if cell.algo == "mtpd":
                assert {**POLICY_DISTILLATION, "n_timesteps": cell.n_timesteps}.items() <= settings_of(cell).items()
                assert cell.hyperparams["teachers"] == teachers
    assert [cell.hyperparams.get("loss") for cell in three.cells] == [None, "nll", "kl"]
    joint = three.cells[0]
    # Games as DQN learns them
    assert joint.algo == "mtdqn" and NATURE.items() <= settings_of(joint).items()
    assert joint.env_kwargs["clip_reward"] and joint.env_kwargs["terminal_on_life_loss"]


def test_students_that_learn_beside_a_teacher():
    nets = {
        name: {f"net{n}" for n in numbers} for name, numbers in (("rtpd_table1", (1, 2, 3)), ("rtpd_table2", (4, 5)))
    }
    for name, expected in nets.items():
        for cell in study_of(name).cells:
            students = settings_of(cell)["students"]
            assert {student: entry["policy"] for student, entry in students.items()} == {
                net: f"{net.capitalize()}Policy" for net in expected
            }
    online = settings_of(study_of("pd_figure5").cells[0])["students"]
    assert [entry["policy"] for entry in online.values()] == ["CnnPolicy"]
    together, first, then = study_of("rtpd_time").cells
    # 2.5 million updates together or of the teacher alone, and 5 million of the same students afterwards
    assert together.n_timesteps == first.n_timesteps == 10_000_000 and then.n_timesteps == 500 * HOUR
    assert first.hyperparams["students"] is None
    beside, after = settings_of(together), settings_of(then)
    assert [entry["policy"] for entry in beside["students"].values()] == list(NETS)
    assert [after["policy"], *(entry["policy"] for entry in after["students"].values())] == list(NETS)
    assert NATURE.items() <= beside.items() and POLICY_DISTILLATION.items() <= after.items()
    # The times are those of learning: the two phases evaluate nothing, and the other run once, near its end.
    assert 0.9 < beside["eval_freq"] / (10_000_000 / 4) < 1
    # The second phase distils what the first one has trained.
    assert then.teacher_cell == first.key


def test_networks_of_the_ablation():
    for cell in study_of("am_ablation").cells:
        settings = settings_of(cell)
        extractor = settings["policy_kwargs"]["features_extractor_kwargs"]
        assert extractor["pool"] == (None if cell.labels["pool"] == "none" else "max")
        assert extractor["channels"] == ([32, 64, 64] if cell.labels["maps"] == "same" else [16, 32, 32])
        if cell.labels["learning"] == "distilled":
            assert ACTOR_MIMIC_RUN.items() <= settings.items()
            assert settings["temperature"] == settings["student_temperature"]
        else:
            # A DQN with the network of a student, from scratch
            assert settings["policy"] == "StudentCnnPolicy" and settings.get("teacher") is None
            assert settings["students"] is None and NATURE.items() <= settings.items()
            # Networks that learn alone have per cent of the teacher of the distilled ones, too.
            assert cell.evaluation["teacher"] == f"zoo:dqn/{cell.env}"


def test_bits_of_the_sizes():
    for cell in study_of("qpd_figure1").cells:
        bits = None if cell.labels["bits"] == "32" else int(cell.labels["bits"])
        assert cell.hyperparams["weight_bits"] == cell.hyperparams["activation_bits"] == bits


def test_a_dry_run_names_teachers_that_are_not_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RL_TRAINED_AGENTS", raising=False)
    # The hub's cache
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main([str(REPOSITORY / "studies" / "am_table1.yml"), "--dry-run", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    agent = "--algo dqn --env BoxingNoFrameskip-v4"
    assert said.count("Missing: ") == 7
    assert "Missing: zoo:dqn/BoxingNoFrameskip-v4 is not on this machine (cells that need it: 1)" in said
    assert f"rl_zoo3.load_from_hub {agent} -orga sb3" in said and f"rl_zoo3.train {agent} -f" in said


def test_a_missing_teacher_stops_its_own_cells_alone(tmp_path, cartpole_teacher, capsys):
    teachers = {"here": str(cartpole_teacher), "nowhere": str(tmp_path / "nowhere")}
    path = write(
        tmp_path / "s.yml",
        grid={"from": {name: {"teacher": teacher} for name, teacher in teachers.items()}, "seed": [0]},
        record=False,
        published=None,
    )
    assert main([str(path), "--dry-run", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert f"Missing: {tmp_path / 'nowhere'} is not on this machine (cells that need it: 1)" in said
    assert str(cartpole_teacher) not in said

    def backend(jobs, folder):
        for job in jobs:
            try:
                yield from run_here([job], folder)
            except ValueError as error:
                yield job[0], str(error)

    failures = run_study(read_study(path), tmp_path / "out", backend)
    assert [key.split("-")[0] for key in failures] == ["nowhere"]
    assert [folder.name.split("-")[0] for folder in (tmp_path / "out" / "cells").glob("[!.]*")] == ["here"]
