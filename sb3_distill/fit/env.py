"""A log in the place of an environment."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from sb3_distill.fit.log import Episode


class LogEnv(gym.Env):
    """
    Shows the recorded observations, episode by episode and in their order, whatever the actions are. After the last
    episode comes the first one again. There are no rewards, so only ``pd`` and ``qpd`` can learn from it, with
    ``n_teacher_episodes=0``.

    :param episodes: observations of each episode (see ``read_log``)
    :param observation_space: the teacher's observations
    :param action_space: its actions
    """

    def __init__(
        self, episodes: Sequence[Episode], observation_space: spaces.Space, action_space: spaces.Space
    ) -> None:
        self.episodes = episodes
        self.observation_space, self.action_space = observation_space, action_space
        self._episode, self._step = -1, 0

    @property
    def n_steps(self) -> int:
        """Number of observations in all episodes."""
        return sum(map(len, self.episodes))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's: the next episode."""
        super().reset(seed=seed)
        self._episode, self._step = (self._episode + 1) % len(self.episodes), 0
        return self.episodes[self._episode][0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As Gymnasium's: the next observation; behind the last one of an episode, this one again."""
        episode = self.episodes[self._episode]
        self._step += 1
        is_over = self._step == len(episode)
        return episode[self._step - is_over], 0.0, is_over, False, {}
