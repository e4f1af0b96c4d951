"""Held-out start states of Atari games: positions that neither teacher nor student has brought about."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import gymnasium as gym
import numpy as np
from ale_py import ALEState

from sb3_distill.common.files import whole_file
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, default_recipe, is_atari
from sb3_distill.evaluation.environments import recipe_of
from sb3_distill.evaluation.loading import load_player
from sb3_distill.evaluation.players import Player, RandomPlayer
from sb3_distill.reading.arrays import read_npz

_NOOP = 0
# Share of random actions while starts are recorded, without which the episodes would be much alike
_EPSILON = 0.05


@dataclass(frozen=True)
class HeldOutStarts:
    """
    Emulator states from which episodes start.

    :param env_id: the game
    :param states: serialized emulator states
    :param games: for each state, the number of the recorded game that it is from
    :param recorded_by: source of the agent that played, or "random"
    :param recorder_sha256: the hash of this agent; empty where it has none
    :param env_kwargs: arguments of the environment, as JSON; empty in files of earlier versions, which do not say them
    """

    env_id: str
    states: tuple[bytes, ...]
    games: tuple[int, ...]
    recorded_by: str
    recorder_sha256: str = ""
    env_kwargs: str = ""

    @property
    def sha256(self) -> str:
        """Hash of the environment and of the states with their games, in their order."""
        digest = hashlib.sha256(self.env_id.encode())
        for state, game in zip(self.states, self.games, strict=True):
            digest.update(state + game.to_bytes(4, "little"))
        return digest.hexdigest()

    def order(self, seed: int) -> np.ndarray:
        """
        :param seed: seed of the order
        :return: the indices of all states in random order, in rounds that take one state of every recorded game that
            has any left: so the first few are from as many games as possible
        """
        rng = np.random.default_rng(seed)
        places = np.empty(len(self.states))
        for game in set(self.games):
            (members,) = np.nonzero(np.equal(self.games, game))
            # The round in which each state comes, and its place within the round
            places[members] = rng.permutation(len(members)) + rng.random(len(members))
        return np.argsort(places)

    def save(self, path: str | Path) -> None:
        """
        :param path: the ``.npz`` to write
        :raises OSError: it cannot be written
        """
        with whole_file(Path(path)) as file:
            np.savez_compressed(
                file,
                env_id=np.array(self.env_id),
                recorded_by=np.array(self.recorded_by),
                recorder_sha256=np.array(self.recorder_sha256),
                env_kwargs=np.array(self.env_kwargs),
                sha256=np.array(self.sha256),
                sizes=np.array([len(state) for state in self.states]),
                games=np.array(self.games),
                states=np.frombuffer(b"".join(self.states), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: str | Path) -> "HeldOutStarts":
        """
        :param path: a file written by ``save``; nothing in it is unpickled
        :return: the starts
        :raises ValueError: the file is damaged, of an earlier version, or no file of starts
        """
        try:
            data = read_npz(Path(path))
            if "sizes" in data and "games" not in data:
                raise ValueError("an earlier version wrote it, which did not keep the game of each state")
            sizes = data["sizes"].astype(np.int64)
            content = data["states"].tobytes()
            if (sizes < 0).any() or sum(sizes.tolist()) != len(content):
                raise ValueError("its states have other sizes than it states")
            ends = np.cumsum(sizes)
            states = tuple(content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True))
            later = [str(data[name]) if name in data else "" for name in ("recorder_sha256", "env_kwargs")]
            games = tuple(map(int, data["games"]))
            starts = cls(str(data["env_id"]), states, games, str(data["recorded_by"]), *later)
            expected, found = str(data["sha256"]), starts.sha256
        except (KeyError, ValueError, TypeError, OverflowError, OSError, EOFError, BadZipFile, zlib.error) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(
                f"{path} cannot be used as start states: {error}. Delete it, and record new ones with --starts-from."
            ) from error
        if found != expected or not states:
            raise ValueError(f"{path} is damaged: its states have the hash {found}, not {expected}.")
        return starts


def check_atari(env_id: str) -> None:
    """
    :param env_id: an environment
    :raises ValueError: it is no Atari game
    """
    if not is_atari(env_id):
        raise ValueError(f"Held-out start states are states of Atari's emulator; {env_id} is no Atari game.")


def record_starts(
    player: Player,
    recorded_by: str,
    env_id: str,
    recipe: EnvRecipe | None = None,
    n_states: int = 100,
    n_episodes: int = 20,
    seed: int = 0,
) -> HeldOutStarts:
    """
    Rusu et al. 2015, section 4: states from the first 20% of episodes played by an agent that is neither teacher nor
    student.

    :param player: this agent
    :param recorded_by: name of the agent that plays
    :param env_id: an Atari game
    :param recipe: how the agent's environment is made; None: as the Zoo does
    :param n_states: how many states
    :param n_episodes: how many episodes they are drawn from
    :param seed: seed of the episodes, of the random actions and of the drawing
    :return: the starts, none of them twice
    :raises ValueError: the environment is no Atari game, or the episodes are too short for so many states
    """
    check_atari(env_id)
    rng = np.random.default_rng(seed)
    states: list[bytes] = []
    games: list[int] = []
    with closing(make_eval_env(env_id, 1, recipe)) as venv:
        game: Any = venv.get_attr("unwrapped")[0]
        for episode in range(n_episodes):
            venv.seed(seed + episode)
            obs, done, visited = venv.reset(), False, []
            state, begins = None, np.ones(1, dtype=bool)
            while not done:
                visited.append(game.ale.cloneState().serialize())
                actions, state = player.predict(obs, state, begins, deterministic=True)
                if rng.random() < _EPSILON:
                    actions = rng.integers(venv.action_space.n, size=1)  # type: ignore[attr-defined]
                obs, _, begins, infos = venv.step(actions)
                # A lost life is no end: states come from whole games.
                done = bool(begins[0]) and "episode" in infos[0]
            share = (episode + 1) * n_states // n_episodes - episode * n_states // n_episodes
            # Games may begin alike.
            early = list(dict.fromkeys(state for state in visited[: len(visited) // 5] if state not in states))
            if len(early) < share:
                raise ValueError(
                    f"{share} start states are needed from the first 20% of each game, but game {episode + 1} of "
                    f"{env_id}, {len(visited)} steps long, has only {len(early)} that no other game has given: "
                    "record fewer states, more games, or another player."
                )
            states += [early[step] for step in rng.choice(len(early), share, replace=False)]
            games += [episode] * share
    arguments = _as_json({} if recipe is None else recipe.env_kwargs)
    return HeldOutStarts(env_id, tuple(states), tuple(games), recorded_by, getattr(player, "sha256", ""), arguments)


def _as_json(env_kwargs: Mapping[str, Any]) -> str:
    return json.dumps(dict(env_kwargs), sort_keys=True, default=repr)


def load_or_record(
    path: Path, env_id: str, source: str | None, seed: int = 0, env_kwargs: dict[str, Any] | None = None
) -> HeldOutStarts:
    """
    :param path: a file of start states that exists, or is to be
    :param env_id: the game
    :param source: the agent that plays if the file does not exist, or "random"; None: whoever has recorded the file
    :param seed: seed of the play
    :param env_kwargs: passed to the environment's constructor
    :return: the starts
    :raises ValueError: the file belongs to another game or to one with other arguments, another agent has recorded it,
        or nobody is there to record it
    """
    check_atari(env_id)
    agent = None if source in (None, "random") else load_player(str(source), env_id, device="cpu")
    if path.is_file():
        starts = HeldOutStarts.load(path)
        if starts.env_id != env_id:
            raise ValueError(f"{path} holds starts of {starts.env_id}, not of {env_id}.")
        asked = _as_json(env_kwargs or {})
        if starts.env_kwargs not in ("", asked):
            raise ValueError(
                f"{path} holds starts of {env_id} with the arguments {starts.env_kwargs}, not {asked}: name another "
                "file with --starts."
            )
        is_recorder = starts.recorded_by == source if agent is None else agent.is_agent(starts.recorder_sha256)
        if source is not None and not is_recorder:
            hashes = starts.recorder_sha256, "" if agent is None else agent.sha256
            theirs, own = (f" (sha256 {sha256[:12]})" if sha256 else "" for sha256 in hashes)
            raise ValueError(
                f"{path} holds starts that {starts.recorded_by}{theirs} has recorded, not {source}{own}: name another "
                "file with --starts to record new ones, or leave --starts-from out to use these."
            )
        return starts
    if source is None:
        raise ValueError(f"{path} does not exist: --starts-from AGENT (or 'random') records it.")
    player: Player
    if agent is None:
        recipe = replace(default_recipe(env_id), env_kwargs=env_kwargs or {})
        with closing(make_eval_env(env_id, recipe=recipe)) as venv:
            player = RandomPlayer(int(venv.action_space.n), seed)  # type: ignore[attr-defined]
    else:
        player, recipe = agent, recipe_of(agent, env_id, env_kwargs or {})
    starts = record_starts(player, source, env_id, recipe, seed=seed)
    starts.save(path)
    return starts


class StartFrom(gym.Wrapper):
    """
    Begins every episode at a held-out state; points up to there do not count. ``first_seed`` chooses the order of the
    states. A reset with the seed ``first_seed + i`` begins at state ``i`` of this order, which begins anew when all
    states have been used; resets without a seed go on from there.

    :param env: an Atari game
    :param starts: the states
    :param first_seed: seed of the first episode
    """

    def __init__(self, env: gym.Env, starts: HeldOutStarts, first_seed: int = 0) -> None:
        super().__init__(env)
        self.starts = starts
        self.first_seed = first_seed
        self._order = starts.order(first_seed)
        self._next = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        _, info = self.env.reset(seed=seed, options=options)
        episode = self._next if seed is None else seed - self.first_seed
        self._next = episode + 1
        game: Any = self.env.unwrapped
        game.ale.restoreState(ALEState(self.starts.states[self._order[episode % len(self._order)]]))
        # The emulator draws its screen anew with the next frame.
        obs, _, _, _, _ = self.env.step(_NOOP)
        return obs, info
