"""Observations of an agent's episodes: some to choose its step sizes on, others to check the result on."""

import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.common.log import progress_bar
from sb3_distill.common.utils import counted
from sb3_distill.envs.episodes import EpisodeSchedule
from sb3_distill.envs.make import play_schedule
from sb3_distill.envs.views import Keys, ObservationView, part_of
from sb3_distill.evaluation.environments import make_env_of
from sb3_distill.evaluation.players import masks_for
from sb3_distill.state.memory import map_state

# Episodes to fit to and to check on begin with seeds from here on, which evaluations do not reach.
FITTING_SEED, CHECKING_SEED = 10_000_000, 20_000_000
N_EPISODES = 10
# Episodes that are played side by side
N_ENVS = 5
# Shares of random actions, in turn. With many an episode may end early; without any some agents repeat themselves
# (Pong's rallies have no end then), and games that begin alike are the same game.
EPSILONS = (0.01, 0.1)
# Of one episode: the 108,000 frames that the papers give an Atari game
MAX_STEPS = 27_000


@dataclass(frozen=True)
class Observations:
    """
    Observations of whole episodes, each with the same chance to be among them.

    :param values: raw observations ``(n, ...)``; those that are a Dict by key
    :param n_episodes: number of episodes that they are from
    """

    values: Any
    n_episodes: int


def record_observations(
    agent: Teacher, env_id: str, n_observations: int, seed: int = FITTING_SEED, keys: Keys = None
) -> Observations:
    """
    Let an agent play ``N_EPISODES`` whole episodes (more where they are short), with the shares ``EPSILONS`` of random
    actions in turn, and draw from all of their observations. No more than these are kept in memory.

    :param agent: a loaded agent
    :param env_id: id of the environment
    :param n_observations: number of observations
    :param seed: seed of the first episode, of the random actions and of the drawing
    :param keys: what is recorded of the environment's Dict observations; None: what the agent sees
    :return: the observations
    :raises AgentError: its observations are no arrays
    :raises ValueError: the environment cannot be made or has other spaces than the agent, or ``n_observations`` is
        below 1
    """
    if n_observations < 1:
        raise ValueError(f"n_observations must be at least 1, not {n_observations}: nothing would be recorded.")
    if keys is None and not isinstance(agent.observation_space, (spaces.Box, spaces.Dict)):
        raise AgentError(f"{agent.source} observes {agent.observation_space}, which cannot be recorded as arrays.")
    rng = np.random.default_rng(seed)
    kept: list[tuple[int, Any]] = []
    n_seen = n_episodes = 0
    n_envs = min(N_ENVS, n_observations)
    # How many there will be is known when the episodes have ended.
    with progress_bar(f"observations of {env_id}", None) as tell:
        while n_seen < n_observations or n_episodes < min(N_EPISODES, n_observations):
            for episode, obs in _play(agent, env_id, n_envs, seed + n_episodes, keys):
                # Reservoir sampling
                n_seen += 1
                place = len(kept) if len(kept) < n_observations else int(rng.integers(n_seen))
                if place < n_observations:
                    # A copy, which does not keep the batch
                    kept[place : place + 1] = [(episode, map_state(np.copy, obs))]
                tell(n_seen)
            n_episodes += n_envs
    episodes, observed = zip(*kept, strict=True)
    values: Any = (
        {key: np.stack([obs[key] for obs in observed]) for key in observed[0]}
        if isinstance(observed[0], dict)
        else np.stack(observed)
    )
    return Observations(values, len(set(episodes)))


def _play(agent: Teacher, env_id: str, n_episodes: int, seed: int, keys: Keys) -> Iterator[tuple[int, Any]]:
    """All observations of episodes that are played side by side, each with its episode's seed."""
    schedule = EpisodeSchedule(n_episodes, n_episodes, seed)
    rng = np.random.default_rng(seed)
    with closing(make_env_of(agent, env_id, n_episodes)) as venv:
        play_schedule(venv, schedule)
        venv.action_space.seed(seed)
        obs: Any = venv.reset()
        state, starts = None, np.ones(n_episodes, dtype=bool)
        for _ in range(MAX_STEPS):
            masks = masks_for(agent, venv)
            actions, state = agent.predict(obs, state, starts, **masks)
            # With all keys, where the agent sees some of them
            whole = venv.latest if isinstance(venv, ObservationView) else obs
            recorded = obs if keys is None else part_of(whole, keys)
            for env, number in enumerate(schedule.playing):
                if number is None or number in schedule.returns:
                    continue
                yield seed + number, map_state(itemgetter(env), recorded)
                if rng.random() < EPSILONS[(seed + number) % 2]:
                    allowed = masks["action_masks"][env].astype(np.int8) if masks else None
                    actions[env] = venv.action_space.sample(allowed)
            obs, _, starts, _ = venv.step(actions)
            if schedule.is_over:
                return
    warnings.warn(
        f"{n_episodes - len(schedule.returns)} of {counted(n_episodes, 'episode')} of {env_id} had not ended after "
        f"{MAX_STEPS} steps: what comes later is not among the observations."
    )
