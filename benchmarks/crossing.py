"""When a student plays like its teacher, and how many games are played to see it: the rules of ``time_to_teacher``."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class Look:
    """
    One evaluation of a student.

    :param cpu_seconds: CPU seconds of training before it
    :param n_timesteps: steps of the teacher that the student could learn from
    :param n_updates: updates of the student
    :param n_games: games that were played
    :param mean: their mean return
    :param play_seconds: CPU seconds of the run's own play with the teacher's answers, which are not in ``cpu_seconds``
    """

    cpu_seconds: float
    n_timesteps: int
    n_updates: int
    n_games: int
    mean: float
    play_seconds: float = 0.0


def within_reach(returns: Sequence[float], bar: float) -> bool:
    """
    :param returns: returns of the first games
    :param bar: the lowest mean that counts as the teacher's level
    :return: whether their mean plus two standard errors is at least the bar
    """
    error = float(np.std(returns, ddof=1)) / math.sqrt(len(returns)) if len(returns) > 1 else math.inf
    return float(np.mean(returns)) + 2 * error >= bar


def budgeted_returns(play: Callable[[int, int], list[float]], n_first: int, n_games: int, bar: float) -> list[float]:
    """
    :param play: plays games, given the number of the first one and how many
    :param n_first: games that are always played; three times as many follow whenever those so far are within reach of
        the bar
    :param n_games: the largest number of games
    :param bar: the lowest mean that counts as the teacher's level
    :return: the returns of the games that were played
    """
    returns = play(0, min(n_first, n_games))
    while len(returns) < n_games and within_reach(returns, bar):
        n_played = len(returns)
        returns = returns + play(n_played, min(3 * n_played, n_games) - n_played)
    return returns


def crossing(looks: Sequence[Look], n_games: int, bar: float) -> Look | None:
    """
    :param looks: the evaluations of a run, in their order
    :param n_games: games of a full evaluation
    :param bar: the lowest mean that counts as the teacher's level
    :return: the first of two full evaluations in a row that reach the bar; None if there are none
    """
    good = [look.n_games >= n_games and look.mean >= bar for look in looks]
    return next((looks[i] for i in range(len(looks) - 1) if good[i] and good[i + 1]), None)


class CpuClock:
    """
    CPU seconds of this process and its finished children (compilers): those of training, those of play, and those of
    neither while it is stopped.
    """

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now or self._process_seconds
        self._counted = {"training": 0.0, "play": 0.0}
        self._what: str | None = None
        self._since = 0.0

    @staticmethod
    def _process_seconds() -> float:
        times = os.times()
        return time.process_time() + times.children_user + times.children_system

    def _turn_to(self, what: str | None) -> None:
        now = self._now()
        if self._what is not None:
            self._counted[self._what] += now - self._since
        self._what, self._since = what, now

    def go(self) -> None:
        """Count training from now on."""
        self._turn_to("training")

    def play(self) -> None:
        """Count play from now on."""
        self._turn_to("play")

    def stop(self) -> None:
        """Count no longer."""
        self._turn_to(None)

    @property
    def seconds(self) -> float:
        """CPU seconds of training so far."""
        self._turn_to(self._what)
        return self._counted["training"]

    @property
    def play_seconds(self) -> float:
        """CPU seconds of play so far."""
        self._turn_to(self._what)
        return self._counted["play"]
