"""Hands out the episodes that are to be played, and collects their returns."""

from typing import Any

import gymnasium as gym


class EpisodeSchedule:
    """
    The episodes that the sub-environments of a vector environment play: each begins the next one as soon as it has
    ended one, so none waits for another. Episode ``i`` begins with seed ``seed + i``, whoever plays it.

    :param n_episodes: number of episodes
    :param n_envs: number of sub-environments
    :param seed: seed of the first episode
    """

    def __init__(self, n_episodes: int, n_envs: int, seed: int) -> None:
        self.n_episodes = n_episodes
        self.seed = seed
        # Number of the episode that each sub-environment plays; None: it plays on unobserved, as no episode is left
        self.playing: list[int | None] = [None] * n_envs
        self.returns: dict[int, float] = {}
        self.lengths: dict[int, int] = {}
        self._n_begun = 0

    @property
    def is_over(self) -> bool:
        """Whether all episodes have been played."""
        return len(self.returns) == self.n_episodes

    def begin(self, env: int) -> int | None:
        """
        :param env: index of a sub-environment that resets
        :return: the seed of its episode; None if no episode is left
        """
        number = self.playing[env]
        if number is None or number in self.returns:
            number = self._n_begun if self._n_begun < self.n_episodes else None
            self._n_begun += number is not None
            self.playing[env] = number
        return None if number is None else self.seed + number

    def end(self, env: int, episode_return: float, length: int) -> None:
        """
        :param env: index of a sub-environment whose episode has ended
        :param episode_return: sum of its rewards
        :param length: number of its steps
        """
        number = self.playing[env]
        if number is not None and number not in self.returns:
            self.returns[number], self.lengths[number] = episode_return, length


class ScheduledEnv(gym.Wrapper):
    """
    Resets to the episodes of a schedule, and tells it what they score.

    :param env: the environment
    :param schedule: the schedule
    :param index: index of the environment in it
    """

    def __init__(self, env: gym.Env, schedule: EpisodeSchedule, index: int) -> None:
        super().__init__(env)
        self.schedule = schedule
        self.index = index
        self._return, self._length = 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._return, self._length = 0.0, 0
        return self.env.reset(seed=self.schedule.begin(self.index), options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._length += 1
        if terminated or truncated:
            self.schedule.end(self.index, round(self._return, 6), self._length)
        return obs, reward, terminated, truncated, info
