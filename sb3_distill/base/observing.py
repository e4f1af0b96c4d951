"""What a student and its teacher see of the observations, in every environment that a model gets."""

import json
import zipfile
from typing import Any, TypeVar

import numpy as np
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.envs.native import native_or_same
from sb3_distill.envs.views import Keys, ObservationView, part_of, plain_keys

SelfObserving = TypeVar("SelfObserving", bound="ObservingMixin")
# Attributes that a zip holds
_KEYS = ("student_keys", "teacher_keys")


class ObservingMixin(OffPolicyAlgorithm):
    """
    Mixin of off-policy algorithms whose environment is an ``ObservationView``. The model's own spaces are those that
    the student sees.

    :param policy: The student's policy
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param args: as SB3's
    :param teacher_keys: the keys of a Dict observation that the teacher sees; None: all of them
    :param student_keys: those that the student sees
    :param verbose: Verbosity level
    :param kwargs: as SB3's
    :raises ValueError: the environment's observations have no such keys
    """

    teacher_keys: Any = None
    student_keys: Any = None

    def __init__(
        self,
        policy: Any,
        env: Any,
        *args: Any,
        teacher_keys: Any = None,
        student_keys: Any = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        if env is not None:
            env = self._show(maybe_make_env(env, verbose), verbose, student_keys, teacher_keys)
        super().__init__(policy, env, *args, **kwargs, verbose=verbose)  # type: ignore[misc]
        self.teacher_keys = plain_keys(teacher_keys, "teacher_keys")
        self.student_keys = plain_keys(student_keys, "student_keys")

    @classmethod
    def _wrap_env(cls, env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, ObservationView):
            return env
        return ObservationView(native_or_same(super()._wrap_env(env, verbose, monitor_wrapper), verbose))

    @classmethod
    def _show(cls, env: GymEnv, verbose: int, student_keys: Any, teacher_keys: Any) -> VecEnv:
        """The environment, of which student and teacher see these keys."""
        view = cls._wrap_env(env, verbose)
        if student_keys is None and teacher_keys is None:
            return view
        assert isinstance(view, ObservationView)
        space = view.venv.observation_space
        return ObservationView(
            view.venv,
            cls._seen_keys(plain_keys(student_keys, "student_keys"), space, "student_keys"),
            cls._seen_keys(plain_keys(teacher_keys, "teacher_keys"), space, "teacher_keys"),
        )

    @classmethod
    def _seen_keys(cls, keys: Any, space: Any, argument: str) -> Keys:
        """What is seen of the environment's observations with these keys."""
        return keys

    def get_env(self) -> VecEnv | None:
        """
        Returns the current environment (can be None if not defined).

        :return: The current environment as the user built it, or its native counterpart
        """
        # Without our own wrapper, because SB3's EvalCallback compares the wrappers of this environment with those of
        # the evaluation environment.
        return self.env.venv if isinstance(self.env, ObservationView) else self.env

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """
        As SB3's; the environment must have the observations that the student sees.

        :param env: The environment for learning a policy
        :param force_reset: Force call to ``reset()`` before training
        :raises ValueError: it has not
        """
        view: Any = self._show(env, self.verbose, self.student_keys, self.teacher_keys)
        if not force_reset and isinstance(self.env, ObservationView):
            view.latest = self.env.latest
        super().set_env(view, force_reset)

    @classmethod
    def load(
        cls: type[SelfObserving], path: Any, env: GymEnv | None = None, *args: Any, **kwargs: Any
    ) -> SelfObserving:
        """
        As SB3's, with the student's own view of the environment.

        :param path: path to the file (or a file-like)
        :param env: the new environment to run the loaded model on
        :param args: as SB3's
        :param kwargs: as SB3's
        :return: the model
        """
        keys = {name: kwargs[name] for name in _KEYS if name in kwargs}
        kwargs |= {name: plain_keys(value, name) for name, value in keys.items()}
        if env is not None:
            saved = _saved_attributes(path)
            keys = {**{name: saved.get(name) for name in _KEYS}, **keys}
            env = cls._show(env, saved.get("verbose", 0), **keys)
        return super().load(path, env, *args, **kwargs)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        As SB3's.

        :param observation: the student's observation, or the environment's with all keys
        :param state: unused (recurrent policies only)
        :param episode_start: unused (recurrent policies only)
        :param deterministic: Whether or not to return deterministic actions
        :return: the model's action and the next state
        """
        return super().predict(self._own_part(observation), state, episode_start, deterministic)

    def _own_part(self, observation: Any) -> Any:
        """What the student sees of an observation."""
        return part_of(observation, self.student_keys)


def _saved_attributes(path: Any) -> dict[str, Any]:
    """The attributes in a zip that are plain JSON; none of a file from which SB3 cannot load."""
    file = open_path(path, "r", suffix="zip")
    try:
        with zipfile.ZipFile(file) as archive:
            data = json.loads(archive.read("data"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        return {}
    finally:
        if file is not path:
            file.close()
    return data if isinstance(data, dict) else {}
