"""Figures answer their question: bands over seeds, what lies far away, names at points, what a factor does."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from sb3_distill.cli import main
from sb3_distill.results.bars import Bar, draw_bars
from sb3_distill.results.comparison import t_interval
from sb3_distill.results.curves import Curve, average, plot_learning_curves, read_curves, read_episodes
from sb3_distill.results.factors import draw_factors
from sb3_distill.results.figures import clip_outliers, distinct_names, make_axes, scale_by_size
from sb3_distill.results.row import Row
from sb3_distill.results.tables import to_json
from sb3_distill.study.tables import Group, plot_group_sizes
from sb3_distill.visualize.curves import name_runs, plot_runs
from sb3_distill.visualize.figures import plot_sizes
from sb3_distill.visualize.maps import mark_peak


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_seeds_of_one_kind_are_pale_with_their_mean_and_interval():
    steps = np.array([10.0, 20.0, 30.0])
    curves = [("pd", Curve(steps, np.array(own))) for own in ([0.0, 3.0, 10.0], [2.0, 3.0, 9.0], [1.0, 3.0, 8.0])]
    axes = plot_learning_curves([*curves, ("alone", curves[0][1])], teacher=(9.0, 8.5, 9.5)).axes[0]
    shown = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(shown) == ["teacher (band: 95%)", "pd: mean of 3 seeds", "alone", "a single seed"]
    assert shown["pd: mean of 3 seeds"].get_ydata().tolist() == [1.0, 3.0, 9.0]
    assert [texts.get_text() for texts in axes.figure.legends[0].get_texts()][-1] == "95% interval of the mean"
    assert len([line for line in axes.lines if line.get_alpha() == 0.3]) == 3
    low, high = t_interval([10.0, 9.0, 8.0])
    band = axes.collections[0].get_datalim(axes.transData)
    assert (band.y0, band.y1) == pytest.approx((t_interval([0.0, 2.0, 1.0])[0], high)) and low > band.y0
    # The teacher's interval
    assert [patch.get_extents().height > 0 for patch in axes.patches] == [True]


def test_no_interval_is_beyond_what_was_seen(tmp_path):
    """Of any game, also of those that nobody knows: single episodes tell where its returns end."""
    runs = [tmp_path / "one", tmp_path / "two"]
    for run, results in zip(runs, ([[480, 500], [500, 500]], [[100, 500], [500, 500]]), strict=True):
        run.mkdir()
        np.savez(run / "evaluations.npz", timesteps=[5, 9], results=np.array(results, float))
    curves = [read_curves(run)[""] for run in runs]
    assert t_interval([490.0, 300.0])[0] < 100 and t_interval([490.0, 300.0])[1] > 500
    assert average(curves)[1].tolist() == [[100.0, 500.0], [500.0, 500.0]]
    (runs[0] / "0.monitor.csv").write_text('#{"t_start": 0}\nr,l,t\n' + "".join(f"{r},5,{r}\n" for r in (3, 7, 2)))
    assert read_episodes(runs[0]).seen == (2.0, 7.0)
    # Evaluations of which the mean alone is known do not tell.
    bare = [replace(curve, seen=(-np.inf, np.inf)) for curve in curves]
    assert average(bare)[1][:, 0] == pytest.approx(t_interval([490.0, 300.0]))


def test_curves_of_other_steps_meet_where_both_are_known():
    mean, band = average(
        [Curve(np.array([0.0, 10.0]), np.array([0.0, 10.0])), Curve(np.array([5.0, 20.0]), np.ones(2))]
    )
    assert mean.steps.tolist() == [5.0, 10.0] and mean.returns.tolist() == [3.0, 5.5] and band.shape == (2, 2)


def make_run(folder, seed, **hyperparams):
    (folder / "CartPole-v1").mkdir(parents=True)
    (folder / "CartPole-v1" / "args.yml").write_text(yaml.safe_dump({"algo": "pd", "env": "CartPole-v1", "seed": seed}))
    (folder / "CartPole-v1" / "config.yml").write_text(yaml.safe_dump({"policy": "MlpPolicy", **hyperparams}))
    np.savez(folder / "evaluations.npz", timesteps=[10, 20], results=[[400.0 + seed], [500.0 - seed]])
    return folder


def test_runs_that_differ_in_their_seed_alone_are_one_series(tmp_path):
    pd = tmp_path / "pd"
    runs = [make_run(pd / f"CartPole-v1_{seed}", seed) for seed in (1, 2, 9)]
    other = make_run(pd / "CartPole-v1_4", 4, loss="mse")
    names = name_runs([*runs, other])
    assert names == ["pd/CartPole-v1_1, 2, 9"] * 3 + ["pd/CartPole-v1_4"]
    # The same seed twice says nothing of others.
    again = make_run(tmp_path / "again" / "pd" / "CartPole-v1_1", 1)
    assert len(set(name_runs([runs[0], again]))) == 2
    elsewhere = make_run(tmp_path / "elsewhere" / "pd" / "CartPole-v1_1", 2)
    assert name_runs([again, elsewhere]) == ["again/pd/CartPole-v1_1 and 1 more"] * 2
    axes = plot_runs([*runs, other]).axes[0]
    band = axes.collections[0].get_datalim(axes.transData)
    # Not beyond the highest return that was seen
    assert band.y1 == 499.0 and t_interval([499.0, 498.0, 491.0])[1] > 500.0


def test_one_point_far_away_does_not_flatten_the_rest():
    points = [(float(x), y) for x, y in enumerate((97.0, 99.0, 95.0, 100.0, -310.0), start=1)]
    figure, axes = make_axes("", "")
    axes.plot(*zip(*points, strict=True), "o")
    clip_outliers(axes, points)
    low, high = axes.get_ylim()
    assert 90 < low < 95 and 100 < high < 105 and texts_of(figure) == ["-310"]
    # Those that are far from each other, too
    figure, axes = make_axes("", "")
    heights = [-500.0, -150.0, 8.0, 22.0, 54.0, 71.0, 89.0, 97.0, 100.0]
    clip_outliers(axes, [(float(x), y) for x, y in enumerate(heights)])
    assert -50 < axes.get_ylim()[0] < 8 and texts_of(figure) == ["-500", "-150"]
    # Half of the points are no outliers, and nor is what lies near.
    alike, near = [1.0, 2.0, 3.0, 4.0, 101.0, 102.0, 103.0, 104.0], [95.0, 97.0, 99.0, 100.0, 92.0]
    for heights in (alike, near, [100.0, 100.0, 100.0, 100.0, 98.0], [100.0] * 8 + [2.0], [], [5.0]):
        figure, axes = make_axes("", "")
        clip_outliers(axes, [(0.0, y) for y in heights])
        assert texts_of(figure) == []


@pytest.mark.parametrize(("low", "high"), [(74, 148), (100, 2_000), (100, 200_000)])
def test_sizes_have_several_labels_that_do_not_lie_on_each_other(low, high):
    figure, axes = make_axes("bytes", "")
    axes.plot([low, high], [0.0, 1.0])
    scale_by_size(axes)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    inside = [box for box in boxes if axes.bbox.x0 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1]
    assert len(inside) >= 3 and all(one.x1 < other.x0 for one, other in itertools.pairwise(inside))


def test_bars_name_what_their_places_differ_in():
    bars = [Bar((units,), "2", [99.0]) for units in ("4", "8")]
    assert draw_bars(bars, "bits", "units").axes[0].get_xlabel() == "units"


def test_bars_far_below_are_cut_and_their_runs_named():
    figure = draw_bars(
        [Bar(("A",), "2", [-900.0, -880.0]), *(Bar(("A",), f"{n}", [90.0, 99.0]) for n in (4, 8, 16))], "bits"
    )
    assert texts_of(figure) == ["-900, -880"] and figure.axes[0].get_ylim()[0] > -60


def test_bars_begin_at_zero_where_no_run_lies_far_away():
    figure = draw_bars([Bar((name,), "8", [95.0 + own, 97.0 + own]) for own, name in enumerate("ABCD")], "bits")
    assert texts_of(figure) == [] and figure.axes[0].get_ylim()[0] <= 0


def test_points_of_sizes_say_width_and_bits():
    groups = [
        Group({"units": units, "bits": bits}, (percent,), (), (), (), 100, n_bytes, None, 1)
        for units, bits, percent, n_bytes in (("4", "8", 99.0, 36), ("4", "2", 80.0, 15), ("8", "8", 100.0, 70))
    ]
    figure = plot_group_sizes(groups)
    assert sorted(texts_of(figure)) == ["bits 2", "bits 8", "bits 8"]
    assert figure.legends[0].get_title().get_text() == "units"
    assert figure.axes[0].get_xscale() == "log"


def test_sizes_show_the_teachers_interval_and_who_is_who():
    teacher = Row("A", "runs/dqn", "dqn", 900, 3600, mean=50.0, mean_interval=(45.0, 52.0), percent_of_teacher=100.0)
    teacher = replace(teacher, taught_by="runs/dqn", percent_definition="signed quotient")
    student = Row("A", "runs/pd", "pd", 9, 36, percent_of_teacher=90.0, percent_interval=(80.0, 95.0))
    figure = plot_sizes([teacher, student])
    assert sorted(texts_of(figure)) == ["dqn", "pd"]
    (band,) = figure.axes[0].patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((90.0, 104.0))


def test_agents_that_lie_far_from_each_other_have_short_names():
    assert distinct_names(["/home/me/agents/ppo/A_1", "logs/qpd/A_1"]) == ["ppo/A_1", "qpd/A_1"]
    assert distinct_names(["/far/a/b/x", "c/b/x", "c/b/x"]) == ["a/b/x", "c/b/x", "c/b/x"]


def test_names_of_points_lie_apart_beside_a_wide_legend():
    sizes = {"/far/ppo/CartPole-v1_1": 4_610, "logs/qpd/CartPole-v1_1": 58, "logs/pd/CartPole-v1_1": 114}
    sizes["/far/qrdqn/CartPole-v1_1"] = 72_212
    rows = [
        Row("CartPole-v1", agent, f"algorithm of {agent[:10]}", size, 4 * size, percent_of_teacher=100.0)
        for agent, size in sizes.items()
    ]
    # One of a study, beside others
    rows[2] = replace(rows[2], labels={"width": "wide"})
    figure = plot_sizes(rows)
    figure.draw_without_rendering()
    assert set(texts_of(figure)) == {"ppo/CartPole-v1_1", "qpd/CartPole-v1_1", "wide", "qrdqn/CartPole-v1_1"}
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))


def test_seeds_of_one_kind_have_one_text_at_their_mean():
    kinds = {"4": (92, [100.0, 90.0]), "8": (148, [99.0, 95.0, 97.0])}
    rows = [
        Row("A", f"{units}-{seed}", "qpd", 9, n_bytes, percent_of_teacher=percent, seed=seed, labels={"units": units})
        for units, (n_bytes, percents) in kinds.items()
        for seed, percent in enumerate(percents)
    ]
    axes = plot_sizes(rows, "n_bytes").axes[0]
    assert [(text.get_text(), *text.xy) for text in axes.texts] == [("4", 92.0, 95.0), ("8", 148.0, 97.0)]
    # The same agents, played in two ways, are two series.
    noisy = [replace(row, conditions={"epsilon": 0.05}) for row in rows]
    assert len(plot_sizes([*rows, *noisy], "n_bytes").axes[0].texts) == 4


def test_a_long_name_below_the_axes_widens_the_figure():
    curve = Curve(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    figure = plot_learning_curves([("a long name of a run " * 6, curve)])
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 > -1 and box.x1 < figure.bbox.width + 1 and figure.get_figwidth() > 5.5


def test_an_ablation_shows_what_each_factor_does():
    labels = [{"learning": one, "pool": two} for one in ("distilled", "alone") for two in ("max", "none")]
    figure = draw_factors(labels, [90.0, 100.0, 50.0, 70.0], "%")
    assert [(axes.get_xlabel(), axes.get_title()) for axes in figure.axes] == [
        ("learning", "on average -35"),
        ("pool", "on average +15"),
    ]
    # Each pale line says which runs it joins.
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [
        ["max", "none"],
        ["distilled", "alone"],
    ]
    ends = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ends == ["distilled", "alone"] and figure.axes[0].get_ylabel() == "%"
    # One factor, or one of three values, is no ablation.
    assert draw_factors([{"loss": "kl"}, {"loss": "mse"}], [1.0, 2.0], "%") is None
    assert draw_factors([], [], "%") is None


def test_the_score_of_the_teacher_is_a_line_with_its_interval(tmp_path, capsys):
    run = make_run(tmp_path / "pd" / "CartPole-v1_1", 1)
    teacher = Row("CartPole-v1", "dqn", "dqn", 9, 36, mean=490.0, mean_interval=(480.0, 500.0), taught_by="dqn")
    scores = tmp_path / "scores.json"
    other = replace(teacher, env="PongNoFrameskip-v4")
    for rows, status in (([other, teacher], 0), ([other], 1)):
        scores.write_text(to_json({"agents": [row.to_dict() for row in rows]}))
        command = ["visualize", "curves", str(run), "--scores", str(scores), "-o", str(tmp_path / "curve.png")]
        assert main(command) == status
    message = "one teacher that plays CartPole-v1, not of 0 (its teachers play PongNoFrameskip-v4)"
    assert message in capsys.readouterr().err


def test_maps_have_a_ring_around_their_peak():
    picture, heat = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60))
    assert np.array_equal(mark_peak(picture, heat), picture)
    heat[20, 30] = 1.0
    rows, columns = mark_peak(picture, heat).any(axis=2).nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 25, 25, 35) and (20, 30) not in zip(
        rows, columns, strict=True
    )
