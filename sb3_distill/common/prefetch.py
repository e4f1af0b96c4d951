"""Environment steps ahead of the learner, in a thread, for data that does not depend on the student."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Full, Queue

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

Act = Callable[[VecEnvObs], tuple[np.ndarray, np.ndarray]]


@dataclass
class _Step:
    actions: np.ndarray
    teacher_logits: np.ndarray
    outcome: VecEnvStepReturn


class PrefetchVecEnv(VecEnvWrapper):
    """
    Lets a teacher play on in a thread while the student is being updated.

    What the teacher does depends on the environment and its own random numbers alone, so the steps come out the same
    however the two threads are scheduled. Every step is handed over in order: ``next_actions`` gives the actions that
    were taken, ``step`` their outcome.

    :param venv: the environment; nobody else may step it between ``start`` and ``stop``
    :param act: from observations to ``(actions, teacher_logits)``
    :param max_ahead: how many steps the thread may be ahead
    """

    def __init__(self, venv: VecEnv, act: Act, max_ahead: int) -> None:
        super().__init__(venv)
        self.act = act
        self.max_ahead = max_ahead
        self._current: _Step | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether steps are being taken, or wait to be handed over."""
        return self._thread is not None

    def start(self, obs: VecEnvObs, n_steps: int) -> None:
        """
        Begin to play.

        :param obs: the environment's current observations
        :param n_steps: how many steps to take at most
        """
        assert not self.running
        self._last_obs = obs
        self._steps: Queue[_Step | BaseException] = Queue(maxsize=self.max_ahead)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._play, args=(n_steps,), name="teacher", daemon=True)
        self._thread.start()

    def _play(self, n_steps: int) -> None:
        try:
            for _ in range(n_steps):
                if self._stopping.is_set():
                    return
                actions, teacher_logits = self.act(self._last_obs)
                outcome = self.venv.step(actions)
                self._last_obs = outcome[0]
                self._hand_over(_Step(actions, teacher_logits, outcome))
        except BaseException as error:
            self._hand_over(error)

    def _hand_over(self, item: _Step | BaseException) -> None:
        while not self._stopping.is_set():
            try:
                return self._steps.put(item, timeout=0.1)
            except Full:
                continue

    def stop(self) -> VecEnvObs:
        """
        End the play; steps that were not handed over are dropped.

        :return: the environment's current observations
        """
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None
        return self._last_obs

    def next_actions(self) -> tuple[np.ndarray, np.ndarray]:
        """
        :return: the actions of the step that ``step`` will hand over, and the teacher's logits
        """
        assert self._thread is not None
        while True:
            try:
                item = self._steps.get(timeout=1.0)
                break
            except Empty:
                if not self._thread.is_alive() and self._steps.empty():
                    raise RuntimeError("The teacher was asked for more steps than it was started for.") from None
        if isinstance(item, BaseException):
            self.stop()
            raise item
        self._current = item
        return item.actions, item.teacher_logits

    def step_async(self, actions: np.ndarray) -> None:
        # The step was taken already, with these actions.
        assert self._current is not None and actions is self._current.actions

    def step_wait(self) -> VecEnvStepReturn:
        assert self._current is not None
        outcome, self._current = self._current.outcome, None
        return outcome

    def reset(self) -> VecEnvObs:
        self.stop()
        return self.venv.reset()

    def close(self) -> None:
        self.stop()
        self.venv.close()
