"""Held-out start states of Atari games: positions that neither teacher nor student has brought about."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import gymnasium as gym
import numpy as np
from ale_py import ALEState

from sb3_distill.agents.load import load_teacher
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, default_recipe, is_atari
from sb3_distill.evaluation.environments import recipe_of
from sb3_distill.evaluation.players import Player, RandomPlayer

_NOOP = 0


@dataclass(frozen=True)
class HeldOutStarts:
    """
    Emulator states from which episodes start.

    :param env_id: the game
    :param states: serialized emulator states
    :param recorded_by: source of the agent that played, or "random"
    :param recorder_sha256: the hash of this agent; empty where it has none
    """

    env_id: str
    states: tuple[bytes, ...]
    recorded_by: str
    recorder_sha256: str = ""

    @property
    def sha256(self) -> str:
        """Hash of game and states, in their order."""
        digest = hashlib.sha256(self.env_id.encode())
        for state in self.states:
            digest.update(state)
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """
        :param path: the ``.npz`` to write
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                env_id=np.array(self.env_id),
                recorded_by=np.array(self.recorded_by),
                recorder_sha256=np.array(self.recorder_sha256),
                sha256=np.array(self.sha256),
                sizes=np.array([len(state) for state in self.states]),
                states=np.frombuffer(b"".join(self.states), dtype=np.uint8),
            )
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "HeldOutStarts":
        """
        :param path: a file written by ``save``; nothing in it is unpickled
        :return: the starts
        :raises ValueError: the file is damaged, or no file of starts
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                ends = np.cumsum(data["sizes"])
                content = data["states"].tobytes()
                states = tuple(content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True))
                recorder = str(data["recorder_sha256"]) if "recorder_sha256" in data else ""
                starts = cls(str(data["env_id"]), states, str(data["recorded_by"]), recorder)
                expected = str(data["sha256"])
        except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path} holds no start states: {error}. Record new ones with --starts-from.") from error
        if starts.sha256 != expected or not states:
            raise ValueError(f"{path} is damaged: its states have the hash {starts.sha256}, not {expected}.")
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
    epsilon: float = 0.05,
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
    :param epsilon: share of random actions, without which the episodes would be much alike
    :param seed: seed of the episodes, of the random actions and of the drawing
    :return: the starts
    :raises ValueError: the environment is no Atari game
    """
    check_atari(env_id)
    rng = np.random.default_rng(seed)
    venv = make_eval_env(env_id, 1, recipe)
    game: Any = venv.get_attr("unwrapped")[0]
    states: list[bytes] = []
    for episode in range(n_episodes):
        venv.seed(seed + episode)
        obs, done, visited = venv.reset(), False, []
        while not done:
            visited.append(game.ale.cloneState().serialize())
            actions, _ = player.predict(obs, deterministic=True)
            if rng.random() < epsilon:
                actions = rng.integers(venv.action_space.n, size=1)  # type: ignore[attr-defined]
            obs, _, dones, infos = venv.step(actions)
            # A lost life is no end: states come from whole games.
            done = bool(dones[0]) and "episode" in infos[0]
        share = (episode + 1) * n_states // n_episodes - episode * n_states // n_episodes
        early = max(len(visited) // 5, 1)
        states += [visited[step] for step in rng.choice(early, share, replace=early < share)]
    venv.close()
    return HeldOutStarts(env_id, tuple(states), recorded_by, getattr(player, "sha256", ""))


def load_or_record(
    path: Path, env_id: str, source: str | None, seed: int = 0, env_kwargs: dict[str, Any] | None = None
) -> HeldOutStarts:
    """
    :param path: a file of start states that exists, or is to be
    :param env_id: the game
    :param source: the agent that plays if the file does not exist, or "random"
    :param seed: seed of the play
    :param env_kwargs: passed to the environment's constructor
    :return: the starts
    :raises ValueError: the file belongs to another game, or nobody is there to record it
    """
    check_atari(env_id)
    if path.is_file():
        starts = HeldOutStarts.load(path)
        if starts.env_id != env_id:
            raise ValueError(f"{path} holds starts of {starts.env_id}, not of {env_id}.")
        return starts
    if source is None:
        raise ValueError(f"{path} does not exist: --starts-from AGENT (or 'random') records it.")
    player: Player
    if source == "random":
        recipe = replace(default_recipe(env_id), env_kwargs=env_kwargs or {})
        venv = make_eval_env(env_id, recipe=recipe)
        player = RandomPlayer(int(venv.action_space.n), seed)  # type: ignore[attr-defined]
        venv.close()
    else:
        player = load_teacher(source, device="cpu")
        recipe = recipe_of(player, env_id, env_kwargs or {})
    starts = record_starts(player, source, env_id, recipe, seed=seed)
    starts.save(path)
    return starts


class StartFrom(gym.Wrapper):
    """
    Begins every episode at a held-out state; points up to there do not count. The seed of a reset chooses the state,
    without one they follow each other.

    :param env: an Atari game
    :param starts: the states
    """

    def __init__(self, env: gym.Env, starts: HeldOutStarts) -> None:
        super().__init__(env)
        self.starts = starts
        self._next = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        _, info = self.env.reset(seed=seed, options=options)
        index = (self._next if seed is None else seed) % len(self.starts.states)
        self._next = index + 1
        game: Any = self.env.unwrapped
        game.ale.restoreState(ALEState(self.starts.states[index]))
        # The emulator draws its screen anew with the next frame.
        obs, _, _, _, _ = self.env.step(_NOOP)
        return obs, info
