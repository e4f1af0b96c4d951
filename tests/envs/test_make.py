"""Environments for evaluation."""

from functools import partial

import numpy as np
import pytest

from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import is_atari
from sb3_distill.evaluation.play import evaluate_paired

PONG = "PongNoFrameskip-v4"


def test_atari_is_wrapped_as_the_zoo_does():
    """A lost life ends an episode, after which FIRE is pressed, and not the game."""
    env = make_eval_env("BreakoutNoFrameskip-v4", 1)
    assert env.observation_space.shape == (4, 84, 84)
    env.reset()
    rng = np.random.default_rng(0)
    dones = games = 0
    for _ in range(300):
        _, _, done, infos = env.step(rng.integers(4, size=1))
        dones += done[0]
        games += "episode" in infos[0]
    assert dones >= 5 * games > 0
    assert is_atari("PongNoFrameskip-v4") and not is_atari("CartPole-v1")


@pytest.mark.parametrize("game, action, score", [(PONG, 2, -21.0), ("SpaceInvadersNoFrameskip-v4", 1, 285.0)])
def test_native_games_score_as_the_wrappers_do(game, action, score):
    class Always:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.full(len(observation), action), state

    for native in (False, True):
        assert evaluate_paired(Always(), partial(make_eval_env, game, native=native), 1).returns == [score]


def test_what_cannot_be_stepped_natively():
    with pytest.raises(ValueError, match="CartPole-v1 cannot be stepped natively"):
        make_eval_env("CartPole-v1", native=True)
