"""Who plays which game with ``sb3-distill evaluate``, and with which teacher each agent is compared."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import BEST_MODEL, AgentError
from sb3_distill.agents.load import check_teacher_kwargs, is_onnx_file, load_teacher
from sb3_distill.evaluation.disturbance import Disturbance
from sb3_distill.evaluation.environments import play_where_it_taught, recipe_of, shared_env_kwargs
from sb3_distill.evaluation.loading import load_teacher_of, load_where_it_plays, student_of


@dataclass
class Game:
    """
    What is scored in one environment.

    :param env_id: the environment
    :param agents: the agents that play, each teacher before its students
    :param teachers: by agent, the one that counts as 100% for it
    :param env_kwargs: arguments of the environment
    :param native: whether the games were stepped in C++
    :param disturbance: noise, bits and delays under which all play
    """

    env_id: str
    agents: list[Teacher] = field(default_factory=list)
    teachers: dict[Teacher, Teacher] = field(default_factory=dict)
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    native: bool = False
    disturbance: Disturbance = field(default_factory=Disturbance)


def tell_of_wrappers(game: Game) -> None:
    """
    Say where the agents of a game play in different wrappers.

    :param game: the game and its players
    """
    wrappers = {}
    for agent in game.agents:
        recipe = recipe_of(agent, game.env_id, game.env_kwargs)
        names = [wrapper.to_config() for wrapper in (*(recipe.wrappers or ()), *recipe.vec_wrappers)]
        frames = [f"{recipe.frame_stack} stacked frames"] if (recipe.frame_stack or 1) > 1 else []
        wrappers[agent.source] = ", ".join([*map(str, names), *frames]) or "none"
    if len(set(wrappers.values())) > 1:
        each = "; ".join(f"{source}: {names}" for source, names in wrappers.items())
        print(f"Note: every agent plays in the wrappers of its own run, and they differ here. {each}", file=sys.stderr)


def is_same(first: Teacher, second: Teacher) -> bool:
    """
    :param first: an agent
    :param second: another one
    :return: whether they are the same agent in the same environment, wherever they were found
    """
    return first.sha256 == second.sha256 and first.facts.recipe == second.facts.recipe


def find_teacher(agent: Teacher, known: Sequence[Teacher], device: str) -> Teacher | None:
    """
    :param agent: an agent
    :param known: agents that are loaded already
    :param device: where it is loaded if it is not among them
    :return: for a student, the agent that taught it: the one whose hash its file names. None if that was a model in
        memory, or if another agent is in its place now, of which a warning tells.
    :raises AgentError: the file that was its teacher cannot be loaded
    """
    source, sha256 = agent.facts.taught_by, agent.facts.teacher_sha256
    if sha256 is not None:
        for other in known:
            if other.is_agent(sha256):
                return other
    if source is None:
        return None
    try:
        # What a student's file names is no reason to ask the hub.
        found = load_teacher_of(agent, source, device=device, local_only=True)
    except AgentError as error:
        raise AgentError(
            f"{agent.source} names the teacher {source}, which cannot be loaded from this machine: {error} Name the "
            "teacher with --teacher, where the hub is asked too."
        ) from error
    if found.is_agent(sha256):
        return next((other for other in known if is_same(other, found)), found)
    print(
        f"Warning: {agent.source} learned from {source} (sha256 {str(sha256)[:12]}). Another agent is there now "
        f"(sha256 {found.sha256[:12]}), so no percentage is given. Put the teacher back, or say with --teacher who is "
        "100%.",
        file=sys.stderr,
    )
    return None


def _tell_of_another(agent: Teacher, teacher: Teacher | None, named: str | None) -> None:
    """Say where an agent is not compared with the one from which it learned, as far as its file tells."""
    source, sha256 = agent.facts.taught_by, agent.facts.teacher_sha256
    if sha256 is None or (teacher is not None and teacher.is_agent(sha256)):
        return
    note = None
    if source is None and named is None:
        without = "no percentage is given" if teacher is None else f"it is compared with {teacher.source}"
        note = (
            f"{agent.source} learned from an agent that its file does not name, such as a function or a model in "
            f"memory, so {without}. Say with --teacher who is 100%."
        )
    elif source is not None and named is not None and teacher is not None:
        note = (
            f"{agent.source} learned from another agent (sha256 {sha256[:12]}) than --teacher {named} (sha256 "
            f"{teacher.sha256[:12]})."
        )
    if note is not None:
        print(f"Note: {note}", file=sys.stderr)


def add_teachers(game: Game, named: str | None, device: str, teacher_kwargs: Mapping[str, Any] | None = None) -> None:
    """
    Let every agent be compared with its own teacher, or, if it names none, with the only teacher of the game.

    :param game: the game, whose teachers are put before their students
    :param named: the agent with which all are compared instead
    :param device: where teachers are loaded
    :param teacher_kwargs: what is said of ONNX files beside them; None: what the game's students say of their teacher
    :raises AgentError: a teacher cannot be loaded, or sees different things in the runs of the others
    """
    teachers: list[Teacher] = []
    if named is not None:
        others = [agent for agent in game.agents if agent.facts.teacher_sha256 is not None] or game.agents
        student = student_of(named, game.agents) or others[0]
        teachers.append(load_teacher_of(student, named, game.env_id, teacher_kwargs, device))
    own: dict[Teacher, Teacher | None] = {}
    taught: dict[Teacher, list[Teacher]] = {}
    for agent in game.agents:
        if named is None:
            own[agent] = teacher = find_teacher(agent, [*teachers, *game.agents], device)
            if teacher is not None and teacher not in teachers:
                teachers.append(teacher)
    only = teachers[0] if len(teachers) == 1 else None
    game.teachers = {teacher: teacher for teacher in teachers}
    players: list[Teacher] = []
    for agent in game.agents:
        teacher = own.get(agent)
        if teacher is None and (named is not None or agent.facts.taught_by is None):
            teacher = next((other for other in teachers if is_same(other, agent)), only)
        _tell_of_another(agent, teacher, named)
        if teacher is not None and teacher not in players:
            players.append(teacher)
        player = next((other for other in players if other in teachers and is_same(other, agent)), agent)
        if player not in players:
            players.append(player)
        if teacher is not None:
            game.teachers[player] = teacher
            taught.setdefault(teacher, []).append(agent)
    for teacher, students in taught.items():
        play_where_it_taught(teacher, students)
    game.agents = players


def _best_of(source: str) -> Path:
    """The model of a run that its evaluations found best."""
    path = Path(source) / f"{BEST_MODEL}.zip"
    if not Path(source).is_dir():
        raise AgentError(f"--best is for run folders, and {source} is none: leave it out, or name the folder.")
    if not path.is_file():
        raise AgentError(
            f"--best: {source} has no {path.name}: it is a run that made no evaluations, or none. Leave out --best."
        )
    return path


def group_by_game(args: argparse.Namespace) -> list[Game]:
    """
    :param args: the options
    :return: the games, each with its players
    :raises AgentError: an agent cannot be loaded, or names no environment; runs of one game differ in its arguments
    """
    sources: list[Any] = [_best_of(source) if args.best else source for source in args.agents]
    teacher_kwargs = dict(args.teacher_kwargs) or None
    check_teacher_kwargs(teacher_kwargs, [*sources, args.teacher])
    games: dict[str, Game] = {}
    known = {source: load_teacher(source, device=args.device) for source in sources if not is_onnx_file(source)}
    for source in sources:
        found = known.get(source, source)
        agent, env_id = load_where_it_plays(found, args.env, teacher_kwargs, args.device, list(known.values()))
        games.setdefault(env_id, Game(env_id)).agents.append(agent)
    if args.teacher and len(games) > 1:
        raise AgentError(f"--teacher is one agent, but the runs are of {len(games)} games: {', '.join(games)}.")
    for game in games.values():
        add_teachers(game, args.teacher, args.device, teacher_kwargs)
        game.disturbance = Disturbance(args.obs_noise, args.action_delay, args.obs_bits)
        game.env_kwargs = (
            shared_env_kwargs(game.agents, game.env_id) if args.env_kwargs is None else dict(args.env_kwargs)
        )
    return list(games.values())
