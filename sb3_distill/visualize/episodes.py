"""Plays episodes and keeps all data that pictures of them need."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.common.log import progress_bar
from sb3_distill.envs.recipe import is_atari
from sb3_distill.evaluation.environments import make_env_of, recipe_of
from sb3_distill.evaluation.players import masks_for, mix_random_actions

# Pictures whose sides are shorter are enlarged, such as MinAtar's with one pixel for each cell of the game
_SHORTEST_SIDE = 160


@dataclass
class Episode:
    """
    The data of one episode, one entry per step.

    :param observations: raw observations
    :param frames: RGB frames as bytes, rendered at the same time as the observations
    :param rams: the emulator's RAM (Atari)
    :param actions: actions taken
    :param scores: sum of the rewards before each step, those of Atari games unclipped
    :param action_names: names of the actions; empty: the game has none
    """

    observations: list[np.ndarray] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    rams: list[np.ndarray] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    action_names: Sequence[str] = ()


def play_episodes(
    agent: Teacher, env_id: str, n_episodes: int = 1, epsilon: float = 0.05, seed: int = 0, max_steps: int = 10_000
) -> list[Episode]:
    """
    :param agent: the agent that plays, greedily
    :param env_id: id of the environment, which must be able to render RGB frames
    :param n_episodes: number of episodes
    :param epsilon: share of uniformly random actions
    :param seed: seed of the first episode and of the random actions
    :param max_steps: longest length of an episode
    :return: the episodes
    :raises ValueError: the environment has other spaces than the agent or renders no pictures, its actions are not
        discrete, or its observations are a Dict
    """
    env_kwargs = {**recipe_of(agent, env_id).env_kwargs, "render_mode": "rgb_array"}
    rng = np.random.default_rng(seed)
    episodes = []
    for index in range(n_episodes):
        # A new environment each time: after max_steps, Atari's wrappers would go on with the same game.
        label = f"{env_id}, episode {index + 1} of {n_episodes}"
        with closing(make_env_of(agent, env_id, 1, env_kwargs)) as venv, progress_bar(label, None) as tell:
            venv.seed(seed + index)
            episodes.append(_play(agent, env_id, venv, epsilon, rng, max_steps, tell))
    return episodes


class _Again:
    """
    Takes given actions, one after the other.

    :param actions: the actions
    """

    def __init__(self, actions: Sequence[int]) -> None:
        self._actions = iter(actions)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """As SB3's ``predict``, in one environment."""
        return np.array([next(self._actions)]), None


def see_again(agent: Teacher, player: Teacher, env_id: str, episode: Episode, seed: int = 0) -> Episode:
    """
    What an agent sees of an episode that another one has played. Where its run was made otherwise, the same actions are
    taken again in the environment of its own run.

    :param agent: the agent
    :param player: the one that has played
    :param env_id: id of the environment
    :param episode: the first of ``play_episodes``
    :param seed: its seed
    :return: the same episode with the agent's observations
    :raises ValueError: it is another game there
    """
    has_same_shape = agent.observation_space.shape == player.observation_space.shape
    if has_same_shape and (agent.facts.recipe is None or _view(agent, env_id) == _view(player, env_id)):
        return episode
    env_kwargs = {**recipe_of(agent, env_id).env_kwargs, "render_mode": "rgb_array"}
    actions = episode.actions
    with closing(make_env_of(agent, env_id, 1, env_kwargs)) as venv:
        venv.seed(seed)
        seen = _play(_Again(actions), env_id, venv, 0.0, np.random.default_rng(seed), len(actions), lambda _: None)
    if not np.array_equal(seen.frames, episode.frames):
        raise ValueError(
            f"The game of {agent.source} is another one than that of the first agent: from the same start, the same "
            "actions lead to other pictures. One figure shows one game: name agents of the same environment and "
            "arguments."
        )
    return seen


def _view(agent: Teacher, env_id: str) -> Any:
    """What decides on an agent's observations."""
    recipe = recipe_of(agent, env_id)
    return list(recipe.wrappers or ()), list(recipe.vec_wrappers), recipe.frame_stack, agent.facts.student_keys


def _play(
    agent: Any,
    env_id: str,
    venv: VecEnv,
    epsilon: float,
    rng: np.random.Generator,
    max_steps: int,
    tell: Callable[[float], None],
) -> Episode:
    if not isinstance(venv.action_space, spaces.Discrete):
        raise ValueError(
            f"Only environments with Discrete actions can be drawn; {env_id} has the action space {venv.action_space}."
        )
    if isinstance(venv.observation_space, spaces.Dict):
        raise ValueError(
            f"Only agents that see one vector, grid or image can be drawn; {env_id} has the observation space "
            f"{venv.observation_space}."
        )
    assert isinstance(venv.unwrapped, DummyVecEnv)
    game = venv.unwrapped.envs[0]
    atari, n_actions = is_atari(env_id), int(venv.action_space.n)
    obs: Any = venv.reset()
    done, episode = False, Episode()
    state, starts = None, np.ones(1, dtype=bool)
    score, n_rewards = 0.0, 0
    names = getattr(game.unwrapped, "get_action_meanings", None)
    episode.action_names = () if names is None else tuple(map(str, names()))
    while not done and len(episode.actions) < max_steps:
        episode.observations.append(np.array(obs[0]))
        # The Monitor is below the wrappers that clip rewards.
        rewards = game.get_wrapper_attr("rewards")
        score, n_rewards = float(sum(rewards[n_rewards:], score)), len(rewards)
        episode.scores.append(score)
        frame = game.render()
        if not isinstance(frame, np.ndarray):
            raise ValueError(f"{env_id} cannot be drawn: with render_mode='rgb_array' it renders no picture.")
        episode.frames.append(_picture(frame))
        if atari:
            episode.rams.append(game.unwrapped.ale.getRAM().copy())  # type: ignore[attr-defined]
        masks = masks_for(agent, venv)
        actions, state = agent.predict(obs, state, starts, **masks)
        actions = mix_random_actions(actions, n_actions, epsilon, rng, **masks)
        obs, _, starts, infos = venv.step(actions)
        episode.actions.append(int(actions[0]))
        tell(len(episode.actions))
        # In Atari games, a lost life is no end.
        done = bool(starts[0]) and (not atari or "episode" in infos[0])
    return episode


def _picture(frame: np.ndarray) -> np.ndarray:
    """A rendered frame as RGB bytes. Games may also render grey, or numbers from 0 to 1."""
    if frame.dtype != np.uint8:
        frame = (255 * frame.clip(0, 1) if frame.max() <= 1 else frame).round().astype(np.uint8)
    if frame.ndim == 2:
        frame = frame[..., None].repeat(3, axis=2)
    scale = max(_SHORTEST_SIDE // min(frame.shape[:2]), 1)
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)
