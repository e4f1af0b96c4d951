"""What every algorithm refuses, and why."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.algorithms import arguments_of
from sb3_distill.common.finite import check_finite
from sb3_distill.common.utils import setting, unknown_choice
from sb3_distill.envs.imports import why_not_made
from sb3_distill.envs.inspection import check_counts_from_zero, check_kind
from sb3_distill.envs.views import part_of_space, plain_keys


class RefusalsMixin:
    """Mixin of SB3 algorithms: errors for unknown policies, for a missing environment, and for environments from which
    nothing can be learned."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]]
    # Actions for which there are students
    action_spaces: ClassVar[tuple[type[spaces.Space], ...]] = (spaces.Discrete,)
    # Arguments of SB3's constructor that are refused, so that no list of choices names them
    refused_arguments: ClassVar[frozenset[str]] = frozenset()
    env: VecEnv | None
    policy_class: type[BasePolicy]
    observation_space: spaces.Space
    action_space: spaces.Space
    num_timesteps: int
    _last_obs: Any

    def __init__(self, policy: Any, env: Any, *args: Any, **kwargs: Any) -> None:
        problem = why_not_made(env) if isinstance(env, str) else None
        if problem is not None:
            raise ValueError(problem)
        unknown = kwargs.keys() - arguments_of(type(self), RefusalsMixin)
        if unknown:
            choices = sorted(arguments_of(type(self)) - {"_init_setup_model"} - self.refused_arguments)
            raise TypeError(unknown_choice(f"argument of {type(self).__name__}", min(unknown), choices))
        env = maybe_make_env(env, kwargs.get("verbose", 0))
        if isinstance(env, (gym.Env, VecEnv)):
            # SB3's own words for some spaces name none, or no way out.
            check_kind(env.observation_space)
            self._check_action_space(env.action_space)
            self._check_named_policy(policy, env.observation_space, kwargs.get("student_keys"))
        super().__init__(policy, env, *args, **kwargs)  # type: ignore[call-arg]
        if self.env is not None:
            check_counts_from_zero(self.env.observation_space, "the environment's observation_space")
            check_counts_from_zero(self.env.action_space, "the environment's action_space")

    def _check_action_space(self, space: spaces.Space) -> None:
        """
        :param space: the environment's actions
        :raises ValueError: there are no students for them
        """
        if isinstance(space, self.action_spaces):
            return
        advice = "QPD (--algo qpd) has students for Box actions." if isinstance(space, spaces.Box) else ""
        raise ValueError(
            f"{type(self).__name__} needs {' or '.join(kind.__name__ for kind in self.action_spaces)} actions, and "
            f"those of the environment are {space}: choose another environment or algorithm. {advice}".rstrip()
        )

    def _check_named_policy(self, policy: Any, space: spaces.Space, student_keys: Any) -> None:
        """SB3's own words for a policy that sees no Dict do not say how it would see a part of it."""
        if policy not in ("MlpPolicy", "CnnPolicy") or not isinstance(space, spaces.Dict):
            return
        shown = part_of_space(space, plain_keys(student_keys, "student_keys"), "student_keys")
        if isinstance(shown, spaces.Dict):
            has_keys = "student_keys" in arguments_of(type(self))
            one = f", or name one of these keys with {setting('student_keys', repr(next(iter(shown))))}"
            raise ValueError(
                f"{policy} sees one array, and the observations are a Dict of {', '.join(shown)}: use "
                f"{setting('policy', repr('MultiInputPolicy'))}{one if has_keys else ''}."
            )

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(unknown_choice("policy", policy_name, self.policy_aliases))
        policy_class: Any = super()._get_policy_from_name(policy_name)  # type: ignore[misc]
        return policy_class

    def _setup_model(self) -> None:
        self._check_spaces()
        super()._setup_model()  # type: ignore[misc]

    def _check_spaces(self) -> None:
        if not hasattr(self, "observation_space"):
            raise ValueError(
                f"{type(self).__name__} needs an environment, which says what is observed and done: pass env=."
            )
        check_kind(self.observation_space)
        is_for_dict = self.policy_class is self.policy_aliases.get("MultiInputPolicy")
        if is_for_dict and not isinstance(self.observation_space, spaces.Dict):
            raise ValueError(
                f"'MultiInputPolicy' is for Dict observations, and the student's are {self.observation_space}: use "
                "'MlpPolicy' for vectors, 'CnnPolicy' for images."
            )

    def _known_env(self) -> VecEnv:
        """The environment, for whatever cannot be done without one."""
        if self.env is None:
            raise ValueError(
                f"This {type(self).__name__} has no environment to learn in: pass env= to load(), or call set_env(env)."
            )
        return self.env

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._known_env()
        prepared: tuple[int, BaseCallback] = super()._setup_learn(*args, **kwargs)  # type: ignore[misc]
        return prepared

    # The two methods below are called by SB3's own collect_rollouts alone.

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        check_finite("observation", self._last_obs, self.num_timesteps)
        sampled: tuple[np.ndarray, np.ndarray] = super()._sample_action(*args, **kwargs)  # type: ignore[misc]
        return sampled

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        check_finite("reward", reward, self.num_timesteps)
        # They are multiplied by zero, which leaves NaN as it is.
        check_last_observations(dones, infos, self.num_timesteps)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)  # type: ignore[misc]


def check_last_observations(dones: np.ndarray, infos: list[dict[str, Any]], n_timesteps: int) -> None:
    """
    :param dones: where an episode ended
    :param infos: what each sub-environment said at this step
    :param n_timesteps: timesteps of the run so far
    :raises ValueError: the last observation of an episode holds NaN or infinite numbers
    """
    for env in np.flatnonzero(dones).tolist():
        last = infos[env]["terminal_observation"]
        parts = last.items() if isinstance(last, dict) else [("", last)]
        batch = {key: np.asarray(part)[None] for key, part in parts}
        check_finite("terminal_observation", batch, n_timesteps, env)
