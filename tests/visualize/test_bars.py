"""Bars and points put together what is alike, and nothing else."""

import json
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from sb3_distill.results.row import Row
from sb3_distill.results.tables import to_json
from sb3_distill.visualize.cli import main, read_rows
from sb3_distill.visualize.figures import plot_bars, plot_sizes

ROW = Row("A", "x", "pd", 100, 400, mean=1.0, teacher_mean=1.0, percent_of_teacher=90.0, seed=0, labels={"loss": "kl"})


def bars_of(figure: Figure) -> dict[str, list[float]]:
    """Heights of the bars by the text below them."""
    axes = figure.axes[0]
    texts = {
        round(tick): label.get_text() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    }
    found: dict[str, list[float]] = {}
    for bar in axes.patches:
        found.setdefault(texts[round(bar.get_x() + bar.get_width() / 2)], []).append(float(bar.get_height()))
    return found


def test_tasks_and_their_geometric_mean_are_apart():
    percents = {"CartPole-v1": 100.0, "MountainCar-v0": 1.0, "geometric mean": 10.0}
    rows = [replace(ROW, task=task, percent_of_teacher=percent) for task, percent in percents.items()]
    assert bars_of(plot_bars(rows, "loss")) == {task: [percent] for task, percent in percents.items()}


def test_runs_that_differ_in_their_seed_are_averaged():
    rows = [replace(ROW, seed=seed, agent=f"cell{seed}", percent_of_teacher=80.0 + seed) for seed in range(3)]
    assert bars_of(plot_bars(rows, "loss")) == {"A": [81.0]}
    # A run without a percentage does not count.
    figure = plot_bars([*rows, replace(ROW, seed=3, percent_of_teacher=None)], "loss")
    assert bars_of(figure) == {"A": [81.0]} and len(figure.axes[0].lines[0].get_xdata()) == 3


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"player": "net2"}, ["net1", "net2"]),
        ({"labels": {"loss": "kl", "student": "large"}}, ["small", "large"]),
        ({"env": "B"}, ["A", "B"]),
        ({"n_bytes": 800}, ["n_bytes=400", "n_bytes=800"]),
        ({"algo": "qpd"}, ["pd", "qpd"]),
        ({"starts_sha256": "f" * 64}, ["", "starts_sha256=ffffffff"]),
        ({"percent_definition": "normalized"}, ["signed quotient", "normalized"]),
        ({"returns": [1.0] * 7}, ["", "n_episodes=7"]),
        ({"conditions": {"epsilon": 0.05}}, ["", "epsilon=0.05"]),
        ({"conditions": {"stochastic": True}}, ["", "stochastic=True"]),
        ({"conditions": {"native": True}}, ["", "native=True"]),
        ({"settings": {"n_timesteps": 100}}, ["", "n_timesteps=100"]),
    ],
)
def test_unlike_runs_are_not_averaged(changes, text):
    ours = {"player": {"player": "net1"}, "labels": {"labels": {"loss": "kl", "student": "small"}}}
    ours["percent_definition"] = {"percent_definition": "signed quotient"}
    first = replace(ROW, **ours.get(next(iter(changes)), {}))
    second = replace(first, **changes, seed=1, percent_of_teacher=50.0)
    assert bars_of(plot_bars([first, second], "loss")) == dict(zip(text, [[90.0], [50.0]], strict=True))


def test_agents_without_a_seed_are_not_taken_for_runs_of_one_kind():
    rows = [replace(ROW, agent=agent, seed=None) for agent in ("logs/kl", "logs/mse")]
    assert bars_of(plot_bars(rows, "algo")) == {"logs/kl": [90.0], "logs/mse": [90.0]}


def evaluated(path, **protocol):
    path.write_text(
        to_json({"env": "A", "n_episodes": 30, "epsilon": 0.0, "seed": 0, **protocol, "agents": [ROW.to_dict()]})
    )
    return path


def test_files_of_evaluate_say_how_their_rows_were_scored(tmp_path):
    one = evaluated(tmp_path / "1.json")
    others = [
        {"epsilon": 0.05},
        {"n_episodes": 100},
        {"stochastic": True},
        {"native": ["A"]},
        {"env_kwargs": {"A": {"mode": 1}}},
        {"seed": 7},
    ]
    for protocol in others:
        other = evaluated(tmp_path / "2.json", **protocol)
        rows = read_rows([one, other], None)
        assert len(bars_of(plot_bars(rows, "loss"))) == len(plot_sizes(rows).axes[0].containers) == 2
    # The same file twice is the same run, and what concerns other games concerns no row.
    assert len(read_rows([one, one], None)) == 1
    other = evaluated(tmp_path / "2.json", native=["B"], env_kwargs={"B": {"mode": 1}})
    assert read_rows([other], None) == read_rows([one], None)


def test_studies_say_how_their_rows_were_made(tmp_path):
    paths = []
    for n_timesteps in (100, 200):
        row = replace(ROW, agent=f"cell{n_timesteps}", seed=n_timesteps).to_dict()
        cell = {"n_timesteps": n_timesteps, "evaluation": {"n_episodes": 8, "seed": 0, "select": "last"}}
        content = {"agents": [row], "manifests": [{"cell": {**cell, "hyperparams": {"batch_size": 32}}, "rows": [row]}]}
        paths.append(tmp_path / f"{n_timesteps}.json")
        paths[-1].write_text(json.dumps(content))
    rows = read_rows(paths, None)
    assert rows[0].conditions == {"n_episodes": 8} and rows[0].settings["batch_size"] == 32
    assert bars_of(plot_bars(rows, "loss")) == {"n_timesteps=100": [90.0], "n_timesteps=200": [90.0]}
    assert main(["bars", *map(str, paths), "--by", "n_timesteps", "-o", str(tmp_path / "b.png")]) == 0
    # Evaluate's rows under the same conditions are of the same kind.
    assert read_rows([evaluated(tmp_path / "e.json", n_episodes=8)], None)[0].conditions == rows[0].conditions


def test_sizes_are_bytes_where_students_differ_in_their_bits():
    rows = [replace(ROW, agent=str(n), n_bytes=n) for n in (400, 50)]
    assert plot_sizes(rows).axes[0].get_xlabel() == "bytes"
    assert plot_sizes(rows, "n_parameters").axes[0].get_xlabel() == "parameters"
    assert plot_sizes([rows[0], replace(ROW, n_parameters=7)]).axes[0].get_xlabel() == "parameters"
