"""Maps lie where they should, objects are where the RAM says, figures show what they are given."""

import json
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from matplotlib.text import Text
from PIL import Image
from torch import nn

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.base.students import student_model
from sb3_distill.envs.make import make_eval_env
from sb3_distill.results.figures import distinct_names, line_style, short_name
from sb3_distill.results.row import Row
from sb3_distill.visualize.activations import (
    Geometry,
    feature_maps,
    geometry_of,
    is_pooled,
    normalize_maps,
    place_on_frame,
    rank_maps,
)
from sb3_distill.visualize.cli import main
from sb3_distill.visualize.curves import curves_of_run, plot_runs
from sb3_distill.visualize.episodes import play_episodes
from sb3_distill.visualize.figures import (
    plot_bars,
    plot_q_values,
    plot_sizes,
    targets_temperature,
    temperature_of,
)
from sb3_distill.visualize.localization import measure_localization, object_positions
from sb3_distill.visualize.maps import draw_maps, write_pictures
from tests.helpers import preferences

PONG, BREAKOUT = "PongNoFrameskip-v4", "BreakoutNoFrameskip-v4"


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """An untrained student of Pong with a global max-pool."""
    venv = make_eval_env(PONG)
    model = student_model("MaxPoolCnnPolicy", {}, venv.observation_space, venv.action_space, "cpu")
    path = tmp_path_factory.mktemp("student") / "pd" / f"{PONG}_1" / f"{PONG}.zip"
    path.parent.mkdir(parents=True)
    model.save(path)
    venv.close()
    return path


def test_maps_come_from_before_the_pool_and_contributions_are_gradients(student):
    agent = load_teacher(student, device="cpu")
    observations = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84)).astype(np.uint8)
    maps, contributions = feature_maps(agent, observations, batch_size=2)
    assert maps.shape == (5, 32, 7, 7) and contributions.shape == (5, 32) and is_pooled(agent)
    tensors = th.as_tensor(observations)
    pooled = agent.network.features_extractor.cnn(agent.network.features_extractor.scaler(tensors)).detach().numpy()
    assert np.allclose(maps.max(axis=(2, 3)), pooled, atol=1e-5)
    # The network is piecewise linear: with all biases behind the maps zero, contributions add up to the output.
    behind = [layer for layer in chain_of(agent) if isinstance(layer, nn.Linear)]
    with th.no_grad():
        for layer in behind:
            layer.bias.zero_()
    _, contributions = feature_maps(agent, observations)
    assert np.allclose(contributions.sum(axis=1), preferences(agent, tensors).max(dim=1).values, atol=1e-4)
    order = rank_maps(contributions)
    sizes = np.abs(contributions).mean(axis=0)[order]
    assert (np.diff(sizes) <= 0).all() and sorted(order) == list(range(32))


def test_geometry_is_that_of_the_receptive_fields(student):
    agent = load_teacher(student, device="cpu")
    vertical, horizontal = geometry_of(agent)
    assert vertical == horizontal == Geometry(17.5, 8, 7, 84)
    cnn = agent.network.features_extractor.cnn[:-1]
    # The pixels that a cell depends on lie around its centre.
    image = th.zeros(1, 4, 84, 84, requires_grad=True)
    for layer in cnn:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1.0)
            nn.init.constant_(layer.bias, 1.0)
    cnn(image)[0, 0, 2, 5].backward()
    rows = image.grad[0, 0].sum(dim=1).nonzero().flatten()
    columns = image.grad[0, 0].sum(dim=0).nonzero().flatten()
    assert (rows.min() + rows.max()) / 2 == vertical.first + 2 * vertical.stride
    assert (columns.min() + columns.max()) / 2 == horizontal.first + 5 * horizontal.stride
    assert list(vertical.cell_of(np.array([0.0, 17.5, 21.0, 22.0, 83.0]))) == [0, 0, 0, 1, 6]


def test_maps_land_on_the_frame_where_their_cells_look():
    geometry = (Geometry(17.5, 8, 7, 84), Geometry(17.5, 8, 7, 84))
    maps = np.zeros((1, 7, 7))
    maps[0, 2, 5] = 1.0
    placed = place_on_frame(maps, geometry, 210, 160)[0]
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    assert abs(row - (33.5 + 0.5) * 210 / 84) <= 1.5 and abs(column - (57.5 + 0.5) * 160 / 84) <= 1.5
    assert placed.max() > 0.9 and placed.min() == 0.0
    assert place_on_frame(np.ones((2, 7, 7)), geometry, 50, 30) == pytest.approx(1.0)


def test_normalized_maps():
    maps = np.random.default_rng(0).random((300, 3, 4, 4)) * np.array([1.0, 50.0, 0.0])[None, :, None, None]
    normalized = normalize_maps(maps)
    assert normalized.min() == 0.0 and normalized.max() == 1.0
    assert normalized[:, 0].mean() == pytest.approx(normalized[:, 1].mean(), rel=0.05)


@pytest.mark.parametrize("env_id", [PONG, BREAKOUT])
def test_objects_are_where_the_ram_says(env_id):
    colours = {
        "ball": (236, 236, 236) if env_id == PONG else (200, 72, 72),
        "player": (92, 186, 92),
        "opponent": (213, 130, 74),
        "paddle": (200, 72, 72),
    }
    env = gym.make(env_id)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    seen = dict.fromkeys(colours, 0)
    hits = dict.fromkeys(colours, 0)
    for step in range(1_500):
        frame, _, terminated, _, _ = env.step(1 if step % 9 == 0 else rng.integers(env.action_space.n))
        if terminated:
            env.reset()
            continue
        positions = object_positions(env_id, env.unwrapped.ale.getRAM()[None])
        for name, centres in positions.items():
            row, column = centres[0]
            # Below the bricks, above the bottom wall, beside the side walls
            low, high = (40, 185) if env_id == PONG else (100, 193)
            if np.isnan(row) or not low <= row < high or not 10 <= column < 150:
                continue
            seen[name] += 1
            patch = frame[int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2]
            hits[name] += bool((patch == np.array(colours[name])).all(axis=2).any())
    assert all(count > 50 for name, count in seen.items() if name in positions)
    assert all(hits[name] >= 0.9 * seen[name] for name in positions), (hits, seen)


def test_localization_of_a_map_that_follows_the_ball(student):
    agent = load_teacher(student, device="cpu")
    extractor = agent.network.features_extractor
    with th.no_grad():
        for layer, channel in zip((0, 2, 4), (3, 0, 0), strict=True):
            extractor.cnn[layer].weight.zero_()
            extractor.cnn[layer].bias.zero_()
            # Brightness of the newest frame, peaked at the centre of the field
            kernel = extractor.cnn[layer].weight[0, channel]
            centre = (kernel.shape[0] - 1) / 2
            offsets = (th.arange(kernel.shape[0]) - centre).square()
            kernel.copy_(th.exp(-(offsets[:, None] + offsets[None]) / 2))
    episodes = play_episodes(agent, PONG, 1, epsilon=1.0, max_steps=400)
    for episode in episodes:
        for observation, ram in zip(episode.observations, episode.rams, strict=True):
            # A world in which the ball alone is bright
            (row, column) = object_positions(PONG, ram[None])["ball"][0]
            observation[:] = 0
            if not np.isnan(row):
                y, x = int(row * 84 / 210), int(column * 84 / 160)
                observation[3, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 255
    ball = measure_localization(agent, PONG, episodes)[0]
    assert ball.thing == "ball" and ball.best_map == 0
    assert ball.near_hits > 0.9 and ball.hits > 0.5 and ball.near_chance < 0.5
    with pytest.raises(ValueError, match="known for pong and breakout, not for SeaquestNoFrameskip-v4"):
        measure_localization(agent, "SeaquestNoFrameskip-v4", episodes)


def test_pictures(student, tmp_path):
    agent = load_teacher(student, device="cpu")
    (episode,) = play_episodes(agent, PONG, 1, max_steps=12)
    assert len(episode.frames) == len(episode.rams) == len(episode.actions) == 12
    pictures, chosen = draw_maps(agent, episode, n_maps=2)
    assert len(pictures) == 12 and len(chosen) == 2
    for name in ("maps.png", "maps.gif", "maps.mp4"):
        write_pictures(pictures, tmp_path / "out" / name)
        assert (tmp_path / "out" / name).stat().st_size > 500
    # Drawn when they are asked for
    assert np.array_equal(pictures[3], list(pictures)[3]) and not isinstance(pictures, list)
    with Image.open(tmp_path / "out" / "maps.gif") as image:
        assert image.n_frames > 1 and image.size[0] == pictures[0].shape[1]
    with pytest.raises(ValueError, match="between 1 and the 32 maps"):
        draw_maps(agent, episode, n_maps=33)


def row_of(**changes):
    row = Row(
        env="CartPole-v1",
        agent="student",
        algo="pd",
        n_parameters=100,
        n_bytes=400,
        mean=450.0,
        mean_interval=(440.0, 460.0),
        teacher_mean=500.0,
        percent_of_teacher=90.0,
        labels={"loss": "kl"},
    )
    return replace(row, **changes)


def test_sizes_and_bars_show_the_rows():
    rows = [row_of(), row_of(algo="dqn", n_parameters=1000, percent_of_teacher=100.0, labels={"loss": "nll"})]
    axes = plot_sizes(rows).axes[0]
    first = axes.containers[0]
    assert first.lines[0].get_xydata().tolist() == [[100, 90]]
    # 10 points of 500 are two per cent
    assert np.allclose(first.lines[2][0].get_segments()[0][:, 1], [88, 92])
    heights = [bar.get_height() for bar in plot_bars(rows, "loss").axes[0].patches]
    assert heights == [90, 100]
    # A choice that the first game lacks is in the legend all the same.
    figure = plot_bars([*rows, row_of(env="Acrobot-v1", labels={"loss": "mse"})], "loss")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kl", "nll", "mse"]
    # Tasks are counted from a random player on: here 20 points are 25%, so 4 are 5%. Geometric means have no return.
    task = row_of(mean=80.0, mean_interval=(76.0, 84.0), teacher_mean=100.0, percent_of_teacher=75.0)
    mean = Row(task.env, "student", "pd", 9, 36, percent_of_teacher=50.0, percent_interval=(40.0, 70.0))
    segments = plot_sizes([task, mean]).axes[0].containers[0].lines[2][0].get_segments()
    assert np.allclose([segment[:, 1] for segment in segments], [[40, 70], [70, 80]])
    # One network plays all tasks: their mean alone stands against its size.
    tasks = [replace(task, task="CartPole-v1"), replace(mean, task="geometric mean")]
    assert plot_sizes(tasks).axes[0].containers[0].lines[0].get_xydata().tolist() == [[9, 50]]
    games = plot_sizes([rows[0], row_of(env="Acrobot-v1", percent_of_teacher=40.0)])
    assert np.allclose(games.axes[0].containers[0].lines[0].get_xydata(), [[100, 60]])
    with pytest.raises(ValueError, match="evaluate with the teacher"):
        plot_sizes([row_of(percent_of_teacher=None)])
    with pytest.raises(ValueError, match=r"Unknown field to compare by 'colour': choose one of agent, algo"):
        plot_bars(rows, "colour")


def test_curves(tmp_path):
    run = tmp_path / "pd" / "CartPole-v1_1"
    run.mkdir(parents=True)
    (run / "0.monitor.csv").write_text("#{}\nr,l,t\n" + "".join(f"{i},10,{i}\n" for i in range(30)))
    curve = curves_of_run(run)["training episodes"]
    assert len(curve.steps) == 11 and curve.steps[0] == 200 and curve.returns[0] == pytest.approx(9.5)
    # A run that goes on has written half a line; one of Atari counts frames.
    pong = tmp_path / "pd" / f"{PONG}_1"
    pong.mkdir()
    for end in ("", "30,1"):
        (pong / "0.monitor.csv").write_text("#{}\nr,l,t\n" + "".join(f"{i},10,{i}\n" for i in range(30)) + end)
        assert curves_of_run(pong)["training episodes"].steps[0] == 50
    (pong / "evaluations.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"evaluations\.npz holds no evaluations"):
        curves_of_run(pong)
    np.savez(run / "evaluations.npz", timesteps=[10, 20], results=[[1.0, 3.0], [5.0, 5.0]])
    assert curves_of_run(run)[""].returns.tolist() == [2, 5]
    np.savez(run / "evaluations.npz", timesteps=[10], results=[[1.0, 3.0]])
    (line,) = plot_runs([run]).axes[0].lines
    assert line.get_marker() == "o" and line.get_label() == "pd/CartPole-v1_1"
    other = tmp_path / "pd" / "Acrobot-v1_1"
    other.mkdir()
    with pytest.raises(ValueError, match="of Acrobot-v1, CartPole-v1"):
        plot_runs([run, other])
    with pytest.raises(ValueError, match="Acrobot-v1_1 has no curve"):
        plot_runs([other])


@pytest.mark.parametrize("rollout_policy", ["teacher", "student"])
def test_the_teachers_episodes_are_no_curve_of_the_student(cartpole_teacher, tmp_path, rollout_policy):
    run = tmp_path / "pd" / "CartPole-v1_1"
    kwargs = {"rollout_policy": rollout_policy, "learning_starts": 10, "n_teacher_episodes": 0, "device": "cpu"}
    PolicyDistillation("MlpPolicy", "CartPole-v1", cartpole_teacher, **kwargs).learn(30).save(run / "CartPole-v1")
    (run / "0.monitor.csv").write_text("#{}\nr,l,t\n9,9,1\n")
    if rollout_policy == "student":
        assert list(curves_of_run(run)) == ["training episodes"]
        return
    with pytest.raises(ValueError, match=r"the teacher played .*'teacher'.*--eval-freq"):
        curves_of_run(run)


def test_styles_and_names():
    assert len({str(line_style(index)) for index in range(20)}) == 20
    assert distinct_names(["a/b/x_1/x.zip", "a/c/x_1/x.zip"]) == ["b/x_1/x.zip", "c/x_1/x.zip"]
    assert distinct_names(["a/b"]) == ["b"] and distinct_names(["zoo:dqn/A", "x/A"]) == ["zoo:dqn/A", "x/A"]
    assert short_name("PongNoFrameskip-v4 kl") == "Pong kl"


def test_q_values_show_every_student_at_its_own_temperature(cartpole_teacher, tmp_path):
    sources = []
    for name, changes in {"a": {}, "b": {"student_temperature": 0.1}, "c": {"loss": "mse"}}.items():
        kwargs = {
            "temperature": 0.01,
            "learning_starts": 10,
            "n_teacher_episodes": 0,
            "device": "cpu",
            "seed": 0,
            **changes,
        }
        sources.append(tmp_path / name / "student.zip")
        PolicyDistillation("MlpPolicy", "CartPole-v1", cartpole_teacher, **kwargs).learn(30).save(sources[-1])
    students = [load_teacher(source, device="cpu") for source in sources]
    assert [temperature_of(student, 0.01) for student in students] == [1.0, 0.1, 0.01]
    assert targets_temperature(students) == 0.01
    hot = tmp_path / "hot" / "student.zip"
    kwargs = {"temperature": 0.1, "learning_starts": 10, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}
    PolicyDistillation("MlpPolicy", "CartPole-v1", cartpole_teacher, **kwargs).learn(30).save(hot)
    assert targets_temperature([load_teacher(hot, device="cpu"), students[2]]) == 0.1
    with pytest.raises(ValueError, match=r"different temperatures.*choose one with --temperature"):
        targets_temperature([load_teacher(hot, device="cpu"), *students])
    teacher = load_teacher(cartpole_teacher, device="cpu")
    (episode,) = play_episodes(teacher, "CartPole-v1", max_steps=20)
    figure = plot_q_values(teacher, students, [episode] * 4, 0.01)
    n_parameters = students[0].n_parameters
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["targets", *(f"{name}/student.zip ({n_parameters:,})" for name in "abc")]
    # One size in points everywhere, and 6 of them where a column of 3.4 inches takes the figure
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text())
    assert min(text.get_fontsize() for text in texts) * 3.4 / figure.get_figwidth() >= 6


def test_tsne_of_a_shared_trunk(cartpole_teacher, tmp_path):
    pytest.importorskip("sklearn")
    from sb3_distill.visualize.tsne import activations_of, choose_layer, plot_tsne

    names = ["CartPole-v1", "Acrobot-v1"]
    teacher = load_teacher(cartpole_teacher, device="cpu")
    observations = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    early, late = activations_of(teacher, observations, [choose_layer([teacher], layer) for layer in ("first", "last")])
    layer = teacher.network.q_net[0]
    assert np.allclose(early, th.relu(layer(th.as_tensor(observations))).detach(), atol=1e-6)
    assert np.array_equal(early, late)
    figure = plot_tsne(names, [(early[:30], late[:30]), (early[30:] + 9, late[30:] + 9)], ["a", "b"])
    assert len(figure.axes) == 2 and len(figure.axes[0].collections) == 2
    with pytest.raises(ValueError, match="one trunk in common"):
        plot_tsne(names, [(early, late), (early[:, :5], late)], ["a", "b"])


def test_command_line(student, cartpole_teacher, tmp_path, capsys):
    assert main(["maps", str(student.parent), "--max-steps", "6", "-o", str(tmp_path / "m.png")]) == 0
    assert (tmp_path / "m.png").is_file()
    assert main(["localization", str(student), "--max-steps", "80", "--episodes", "2"]) == 0
    assert "opponent" in capsys.readouterr().out
    assert main(["q-values", str(cartpole_teacher), "-o", str(tmp_path / "q.png"), str(tmp_path / "q.pdf")]) == 0
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"agents": [row_of().to_dict(), row_of(labels={"loss": "nll"}).to_dict()]}))
    assert main(["sizes", str(results), "--size", "n_bytes", "-o", str(tmp_path / "s.png")]) == 0
    assert main(["bars", str(results), "-o", str(tmp_path / "b.png")]) == 0
    arguments = ["maps", str(student), "--max-steps", "8", "--episodes", "2", "--first", "7", "--last", "10"]
    assert main([*arguments, "-o", str(tmp_path / "m.gif")]) == 0
    with Image.open(tmp_path / "m.gif") as image:
        assert image.n_frames <= 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["maps", "{cartpole}", "-o", "m.png"], "has no feature maps"),
        (["maps", "{student}", "-o", "m.txt"], "written as one of .png, .gif, .mp4"),
        (["localization", "{cartpole}"], "known for pong and breakout, not for CartPole-v1"),
        (["bars", "{broken}", "-o", "b.png"], "holds no results"),
        (["bars", "{rows}", "--env", "CartPole-v2", "-o", "b.png"], "Did you mean 'CartPole-v1'?"),
        (["curves", "nothing_1", "-o", "c.png"], "nothing_1 does not exist: name run folders"),
        (["curves", "{student}", "-o", "c.png"], ".zip is no folder: name run folders"),
        (["curves", "{tmp}", "-o", "c.png"], "has no curve"),
        (["sizes", "nothing.json", "-o", "c.png"], "nothing.json cannot be read (No such file or directory)"),
        (["sizes", "{student}", "-o", "c.png"], "-o PongNoFrameskip-v4.json`"),
        (["maps", "nowhere.zip", "-o", "m.png"], "nowhere.zip"),
        (["maps", "{student}", "--env", "BreakoutNoFrameskip-v4", "-o", "{tmp}/m.png"], "cannot play Breakout"),
        (["maps", "{student}", "--first", "5", "--max-steps", "3", "-o", "{tmp}/m.png"], "of the 3 steps"),
        (["localization", "{student}", "--max-steps", "3"], "too few for a measurement"),
        (["q-values", "{cartpole}", "{student}", "-o", "{tmp}/q.png"], "has other actions (Discrete(6)) than"),
        (["q-values", "{cartpole}", "--env", "Pendulum-v1", "-o", "{tmp}/q.png"], "cannot play Pendulum-v1"),
        (["q-values", "nowhere.zip", "-o", "{student}/q.png"], ".zip is a file, not a folder"),
        (["q-values", "nowhere.zip", "-o", "{tmp}/q.xyz"], "figures are written as one of"),
        (["sizes", "{empty}", "-o", "{tmp}/s.png"], "holds no results"),
    ],
)
def test_command_line_refuses(student, cartpole_teacher, tmp_path, capsys, arguments, message):
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "rows.json").write_text(json.dumps({"agents": [row_of().to_dict()]}))
    (tmp_path / "empty.json").write_text('{"agents": [{}]}')
    names = {"cartpole": cartpole_teacher, "student": student, "tmp": tmp_path, "empty": tmp_path / "empty.json"}
    names |= {"broken": tmp_path / "broken.json", "rows": tmp_path / "rows.json"}
    assert main([argument.format(**names) for argument in arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["maps", "a", "-o", "m.png", "--episodes", "0"], "must be a whole number of at least 1, not 0"),
        (["maps", "a", "-o", "m.png", "--max-steps", "0"], "at least 1, not 0"),
        (["maps", "a", "-o", "m.png", "--first", "-1"], "at least 0, not -1"),
        (["q-values", "a", "-o", "q.png", "--epsilon", "3"], "must be a share, between 0 and 1, not 3"),
        (["q-values", "a", "-o", "q.png", "--temperature", "0"], "must be a number above 0, not 0"),
    ],
)
def test_options_out_of_range(capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
