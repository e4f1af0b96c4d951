"""``sb3-distill visualize``: localization maps, and the papers' figures."""

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import check_teacher_kwargs, load_teacher
from sb3_distill.agents.sources import env_name_of_run
from sb3_distill.common.arguments import add_import_options, add_teacher_kwargs, positive, share, whole_number
from sb3_distill.common.files import check_writable, file_name
from sb3_distill.common.utils import counted, unknown_choice
from sb3_distill.common.verbs import Parser
from sb3_distill.envs.imports import trust_packages
from sb3_distill.evaluation.environments import play_where_it_taught
from sb3_distill.evaluation.loading import load_where_it_plays
from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import MAX_DATA_BYTES
from sb3_distill.results.figures import check_format, distinct_names, save_figure
from sb3_distill.results.row import Row, parse_rows
from sb3_distill.results.tables import format_table
from sb3_distill.visualize.activations import is_pooled
from sb3_distill.visualize.episodes import play_episodes, see_again


class VisualizeError(ValueError):
    """The figure that the user asked for cannot be drawn."""


def load(
    source: str, env: str | None, teacher_kwargs: Sequence[tuple[str, Any]] = (), students: Sequence[Teacher] = ()
) -> tuple[Teacher, str]:
    """
    :param source: source of an agent (see ``load_teacher``)
    :param env: id of the environment; None: the environment on which the agent was trained
    :param teacher_kwargs: what an ONNX file does not say of itself
    :param students: its students, which say what it leaves open
    :return: the agent and the id of its environment
    :raises AgentError: the environment is neither given nor known
    """
    check_teacher_kwargs(dict(teacher_kwargs), [source])
    agent, env_id = load_where_it_plays(source, env, dict(teacher_kwargs) or None, "cpu", students)
    play_where_it_taught(agent, students)
    return agent, env_id


def draw_maps(args: argparse.Namespace) -> None:
    """Draw localization maps for episodes that an agent plays."""
    from sb3_distill.visualize.maps import Pictures, check_format, draw_maps, write_pictures

    for path in args.output:
        check_format(path)
        check_writable(path)
    agent, env_id = load(args.agent, args.env)
    if not is_pooled(agent):
        print(
            f"Warning: {args.agent} has no global max-pool. "
            "In the paper, only the maps of students with a global max-pool localize.",
            file=sys.stderr,
        )
    episodes = play_episodes(agent, env_id, args.episodes, args.epsilon, args.seed, args.max_steps)
    n_steps = sum(len(episode.frames) for episode in episodes)
    shown = range(n_steps)[args.first : args.last]
    if not shown:
        raise VisualizeError(
            f"Nothing is left to show of the {counted(n_steps, 'step')} that were played: --first is "
            f"{args.first}, --last {args.last}."
        )
    places: list[tuple[Pictures, int]] = []
    for episode in episodes:
        drawn, chosen = draw_maps(agent, episode, args.maps)
        places += [(drawn, step) for step in range(len(drawn))]
        print(f"maps {', '.join(map(str, chosen))}: those that contribute most to the outputs of the chosen actions")
    pictures = Pictures(lambda index: places[shown[index]][0][places[shown[index]][1]], len(shown))
    for path in args.output:
        write_pictures(pictures, path)
        print(path)


def localize(args: argparse.Namespace) -> None:
    """Measure how often the largest activation of an agent's best map is on an object of the game."""
    from sb3_distill.visualize.localization import game_of, measure_localization

    player, env_id = load(args.agents[0], args.env)
    game_of(env_id)
    # The first agent plays; all agents are measured on its frames.
    episodes = play_episodes(player, env_id, args.episodes, args.epsilon, args.seed, args.max_steps)
    rows = [["agent", "pooled", "object", "map", "on it", "chance", "near it", "chance", "frames"]]
    for source in args.agents:
        agent, _ = load(source, env_id)
        for found in measure_localization(agent, env_id, episodes, args.seed):
            shares = [f"{100 * x:.1f}%" for x in (found.hits, found.chance, found.near_hits, found.near_chance)]
            pooled = "max" if is_pooled(agent) else "none"
            rows.append([source, pooled, found.thing, str(found.best_map), *shares, f"{found.n_frames:,}"])
    print(format_table(rows, n_left=3))


def draw_q_values(args: argparse.Namespace) -> None:
    """Draw frames with the teacher's Q-values, its targets, and the students' probabilities."""
    from sb3_distill.visualize.figures import plot_q_values, targets_temperature

    students = [load_teacher(source, device="cpu") for source in args.students]
    teacher, env_id = load(args.teacher, args.env, args.teacher_kwargs, students)
    for student in students:
        if student.n_actions != teacher.n_actions:
            raise VisualizeError(
                f"{student.source} has other actions ({student.action_space}) than the teacher "
                f"({teacher.action_space}): one figure shows one game."
            )
    temperature = targets_temperature(students) if args.temperature is None else args.temperature
    (episode,) = play_episodes(teacher, env_id, 1, args.epsilon, args.seed, args.max_steps)
    # A student can see other things than its teacher.
    seen = [see_again(student, teacher, env_id, episode, args.seed) for student in students]
    write(plot_q_values(teacher, students, [episode, *seen], temperature), args.output)


def read_rows(paths: list[Path], env: str | None) -> list[Row]:
    """
    :param paths: files that ``sb3-distill evaluate -o FILE.json`` or a study wrote
    :param env: id of an environment, whose rows are kept; None: keep all
    :return: the rows of all files
    :raises VisualizeError: a file has no results, or the environment has no rows
    """
    rows: list[Row] = []
    for path in paths:
        try:
            rows += parse_rows(read_file(path, MAX_DATA_BYTES).decode("utf-8"))
        except OSError as error:
            raise VisualizeError(
                f"{path} cannot be read ({error.strerror or error}): name a file of results."
            ) from error
        except ValueError as error:
            raise VisualizeError(
                f"{path} holds no results ({error}): write them with `sb3-distill evaluate … -o {path.stem}.json`."
            ) from error
    # The same run in several files is one run.
    rows = [row for index, row in enumerate(rows) if row not in rows[:index]]
    games = sorted({row.env for row in rows})
    if env is not None and env not in games:
        raise VisualizeError(unknown_choice("environment", env, games))
    return [row for row in rows if env in (None, row.env)]


def draw_sizes(args: argparse.Namespace) -> None:
    """Draw scores in % of the teacher over the sizes of agents."""
    from sb3_distill.visualize.figures import plot_sizes

    write(plot_sizes(read_rows(args.files, args.env), args.size), args.output)


def draw_bars(args: argparse.Namespace) -> None:
    """Draw scores in % of the teacher as bars, by loss or by any other field."""
    from sb3_distill.visualize.figures import plot_bars

    write(plot_bars(read_rows(args.files, args.env), args.by), args.output)


def draw_curves(args: argparse.Namespace) -> None:
    """Draw the learning curves of runs."""
    from sb3_distill.visualize.curves import plot_runs

    teacher = []
    if args.scores is not None:
        games = {env_name_of_run(folder) for folder in args.folders}
        rows = [row for row in read_rows([args.scores], None) if row.taught_by == row.agent]
        teacher = [row for row in rows if file_name(row.env) in games]
        if len(teacher) != 1:
            raise VisualizeError(
                f"{args.scores} must have the row of one teacher that plays {' or '.join(sorted(map(str, games)))}, "
                f"not of {len(teacher)} (its teachers play {', '.join(row.env for row in rows) or 'nothing'})."
            )
    line = [value for row in teacher if row.mean is not None for value in (row.mean, *row.mean_interval)]
    write(plot_runs(args.folders, line), args.output)


def draw_tsne(args: argparse.Namespace) -> None:
    """Draw a t-SNE of activations: by default of the first layer and of the last one that all agents share."""
    if importlib.util.find_spec("sklearn") is None:
        raise VisualizeError("scikit-learn is not installed: pip install 'sb3-distill[visualize]'.")
    from sb3_distill.visualize.tsne import activations_of, choose_layer, name_layer, plot_tsne

    rng = np.random.default_rng(args.seed)
    if args.env is not None and len(args.env) != len(args.agents):
        raise VisualizeError(
            f"--env names {counted(len(args.env), 'environment')} for "
            f"{counted(len(args.agents), 'agent')}: name one for each."
        )
    agents, games = zip(*map(load, args.agents, args.env or [None] * len(args.agents)), strict=True)
    played = []
    for agent, env_id in zip(agents, games, strict=True):
        (episode,) = play_episodes(agent, env_id, 1, args.epsilon, args.seed, args.max_steps)
        n_points = min(args.points, len(episode.observations))
        chosen = rng.choice(len(episode.observations), n_points, replace=False)
        played.append(np.stack(episode.observations)[chosen])
    indices = [choose_layer(agents, layer) for layer in args.layers]
    activations = [activations_of(agent, obs, indices) for agent, obs in zip(agents, played, strict=True)]
    # Several agents of one game are told apart by their names.
    names = distinct_names(args.agents)
    labels = [game if games.count(game) == 1 else f"{game} {name}" for game, name in zip(games, names, strict=True)]
    titles = [name_layer(agents[0], layer) for layer in args.layers]
    write(plot_tsne(labels, activations, titles, seed=args.seed), args.output)


def write(figure: Any, paths: list[Path]) -> None:
    """Save a figure to all of these files."""
    for path in paths:
        save_figure(figure, path)
        print(path)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the verb's arguments."""
    parser = Parser(
        "sb3-distill visualize",
        "Draw what agents look at, how they learned, and what they cost. Each has its own options: "
        "`sb3-distill visualize maps --help`.",
        "curves logs/pd/CartPole-v1_1 -o curve.png",
    )
    verbs = parser.add_subparsers(required=True, metavar="WHAT")

    def add(
        name: str, function: Callable[[argparse.Namespace], None], example: str, plays: bool, output: bool = True
    ) -> Any:
        text = str(function.__doc__)
        verb = verbs.add_parser(name, help=text.replace("%", "%%"), description=text, example=example)
        verb.set_defaults(function=function)
        if output:
            verb.add_argument("-o", "--output", type=Path, nargs="+", required=True, help="files to write")
        if plays:
            play = verb.add_argument_group("episodes")
            play.add_argument("--epsilon", type=share, default=0.05, help="share of random actions")
            play.add_argument("--seed", type=whole_number(0), default=0, help="seed of the first episode")
            play.add_argument("--max-steps", type=whole_number(1), default=10_000, help="most steps of an episode")
            add_import_options(verb)
            return verb, play
        return verb

    run, student = "logs/pd/PongNoFrameskip-v4_1", "a run folder, a zip, a zoo: or hub: name"
    maps, play = add("maps", draw_maps, f"{run} -o maps.gif maps.png", plays=True)
    maps.add_argument("agent", help=f"an agent with convolutions: {student}")
    play.add_argument("--env", help="environment (default: the agent's own)")
    play.add_argument("--episodes", type=whole_number(1), default=1, help="episodes to play")
    shown = maps.add_argument_group("what is shown")
    shown.add_argument("--maps", type=whole_number(1), default=4, help="number of maps to show")
    shown.add_argument("--first", type=whole_number(0), default=0, help="first step to show")
    shown.add_argument("--last", type=whole_number(1), help="step after the last one to show (default: show all)")
    localization, play = add("localization", localize, run, plays=True, output=False)
    localization.add_argument("agents", nargs="+", help="agents; the first one plays, all are measured on its frames")
    play.add_argument("--env", help="Pong or Breakout (default: the first agent's own)")
    play.add_argument("--episodes", type=whole_number(1), default=4, help="episodes to play")
    q_values, play = add("q-values", draw_q_values, f"zoo:dqn/PongNoFrameskip-v4 {run} -o q_values.png", plays=True)
    q_values.add_argument("teacher", help=f"the agent that plays: {student}")
    add_teacher_kwargs(q_values)
    q_values.add_argument("students", nargs="*", help="agents with the same actions")
    q_values.add_argument(
        "--temperature", type=positive, help="temperature of the targets (default: that of the students' training)"
    )
    play.add_argument("--env", help="environment (default: the teacher's own)")
    for name, function in (("sizes", draw_sizes), ("bars", draw_bars)):
        rows = add(name, function, f"scores.json -o {name}.png", plays=False)
        rows.add_argument("files", type=Path, nargs="+", help=".json of `sb3-distill evaluate -o` or of a study")
        rows.add_argument("--env", help="show only this environment (default: all)")
        if name == "sizes":
            text = "what is on the x axis (default: bytes if students differ in their bits, else parameters)"
            rows.add_argument("--size", choices=["n_parameters", "n_bytes"], help=text)
        else:
            rows.add_argument("--by", default="loss", help="field to compare by")
    curves = add("curves", draw_curves, "logs/pd/CartPole-v1_1 -o curve.png", plays=False)
    curves.add_argument("folders", type=Path, nargs="+", help="run folders of one game; several seeds become a band")
    curves.add_argument(
        "--scores", type=Path, help=".json of `sb3-distill evaluate -o`: shows the teacher's score as a line"
    )
    tsne, play = add("tsne", draw_tsne, "pong.zip breakout.zip -o tsne.png", plays=True)
    tsne.add_argument("agents", nargs="+", help="tasks cut out of one student (`model.task(name).save(…)`)")
    tsne.add_argument(
        "--layers",
        nargs="+",
        choices=("first", "shared", "last"),
        default=["first", "shared"],
        help="the first layer, the last that all agents share, the last hidden one (default: first shared)",
    )
    play.add_argument("--env", nargs="+", help="environment of each agent, in their order (default: the agents' own)")
    play.add_argument("--points", type=whole_number(1), default=500, help="observations of each game")
    return parser


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments after the verb
    :return: exit status
    """
    args = make_parser().parse_args(argv)
    try:
        if args.function is not draw_maps:
            for path in getattr(args, "output", ()):
                check_format(path)
                check_writable(path)
        trust_packages(getattr(args, "gym_packages", ()), getattr(args, "allow_import", False))
        args.function(args)
    except (AgentError, ValueError, OSError, gym.error.Error) as error:
        print(f"sb3-distill visualize: {error}", file=sys.stderr)
        return 1
    return 0
