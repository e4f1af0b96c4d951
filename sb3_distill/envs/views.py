"""How observations are seen by teacher and student."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecTransposeImage, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_distill.common.utils import unknown_choice

# What somebody sees of a Dict observation: the part under one key, a Dict of the parts under several, a Dict that has
# parts under other names (by the new name, the key), or everything (None)
Keys = str | Sequence[str] | Mapping[str, str] | None


def plain_keys(keys: Any) -> Any:
    """
    :param keys: keys as a user writes them
    :return: the same as text, as a list of several, or None
    """
    if isinstance(keys, str) or not isinstance(keys, Sequence):
        return keys
    return keys[0] if len(keys) == 1 else list(keys)


def part_of(observation: Any, keys: Keys) -> Any:
    """
    :param observation: an observation, or a batch of them
    :param keys: what is seen of it
    :return: this part; an observation that is this part already stays as it is
    """
    if keys is None or not isinstance(observation, dict):
        return observation
    if isinstance(keys, str):
        return observation[keys]
    if isinstance(keys, Mapping) and observation.keys() == keys.keys():
        return observation
    named = keys if isinstance(keys, Mapping) else dict(zip(keys, keys, strict=True))
    return {name: observation[key] for name, key in named.items()}


def part_of_space(space: spaces.Space, keys: Keys, argument: str) -> spaces.Space:
    """
    :param space: the observations of an environment
    :param keys: what is seen of them
    :param argument: name of the argument with these keys, for the message
    :return: the space of this part
    :raises ValueError: there is no such part
    """
    if keys is None:
        return space
    if not isinstance(space, spaces.Dict):
        raise ValueError(
            f"{argument} names keys of Dict observations, but the environment's observations are {space}: leave it "
            "out, or wrap the environment so that it gives a Dict."
        )
    named = {keys: keys} if isinstance(keys, str) else keys
    if not isinstance(named, (Sequence, Mapping)) or not named:
        raise ValueError(
            f"{argument} must be a key or a list of keys, not {keys!r}. The keys are {', '.join(space.spaces)}."
        )
    for key in named.values() if isinstance(named, Mapping) else named:
        if not isinstance(key, str) or key not in space.spaces:
            raise ValueError(f"{argument}: " + unknown_choice("key", key, space.spaces))
    parts = part_of(space.spaces, keys)
    return spaces.Dict(parts) if isinstance(parts, dict) else parts


class ObservationView(VecEnvWrapper):
    """
    Returns the student's observations, and gives the teacher's observations on request. The teacher's are those before
    VecNormalize, because a teacher either normalizes with its own statistics or not at all. Of a Dict, each can see
    keys of its own.

    :param venv: the environment
    :param student_keys: what the student sees of Dict observations; None: everything
    :param teacher_keys: what the teacher sees of them; None: everything
    :raises ValueError: there are no such keys, or a wrapper around VecNormalize changes the observations further, e.g.
        stacks them
    """

    def __init__(self, venv: VecEnv, student_keys: Keys = None, teacher_keys: Keys = None) -> None:
        super().__init__(venv, part_of_space(venv.observation_space, student_keys, "student_keys"))
        self.student_keys, self.teacher_keys = student_keys, teacher_keys
        # The teacher's observations
        self.teacher_space = part_of_space(venv.observation_space, teacher_keys, "teacher_keys")
        # The latest observations with all keys, if the student sees some of them
        self.latest: Any = None
        vec_normalize = unwrap_vec_normalize(venv)
        # If only rewards are normalized, both see the same.
        self._vec_normalize = vec_normalize if vec_normalize is not None and vec_normalize.norm_obs else None
        # SB3 puts one around VecNormalize where an image in a Dict is channels-last.
        self._transposes: list[VecTransposeImage] = []
        while self._vec_normalize is not None and venv is not self._vec_normalize:
            assert isinstance(venv, VecEnvWrapper)
            if isinstance(venv, VecTransposeImage):
                self._transposes.insert(0, venv)
            elif venv.observation_space != venv.venv.observation_space:
                raise ValueError(
                    f"{type(venv).__name__} stands around VecNormalize, so the teacher cannot be given what was before "
                    f"the normalisation: build the environment the other way round, VecNormalize({type(venv).__name__}"
                    "(...))."
                )
            venv = venv.venv

    def reset(self) -> VecEnvObs:
        return self._seen(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        for env in np.flatnonzero(dones):
            infos[env]["terminal_observation"] = part_of(infos[env]["terminal_observation"], self.student_keys)
        return self._seen(obs), rewards, dones, infos

    def _seen(self, obs: Any) -> Any:
        if self.student_keys is not None:
            self.latest = obs
        return part_of(obs, self.student_keys)

    def _raw(self, obs: Any) -> Any:
        """Observations with all keys, from before the normalisation."""
        if self._vec_normalize is None:
            return obs if self.student_keys is None else self.latest
        raw: Any = self._vec_normalize.get_original_obs()
        for wrapper in self._transposes:
            raw = wrapper.transpose_observations(raw)
        return raw

    def teacher_obs(self, obs: Any) -> Any:
        """
        :param obs: the latest observations of the student
        :return: the teacher's observations of the same states
        """
        return part_of(self._raw(obs), self.teacher_keys)

    def raw_obs(self, obs: Any) -> Any:
        """
        :param obs: the latest observations of the student
        :return: the same before the normalisation
        """
        return part_of(self._raw(obs), self.student_keys)

    def normalize_obs(self, obs: Any) -> Any:
        """
        :param obs: a batch of the student's observations, from before the normalisation
        :return: what the student sees of them with the statistics of this moment
        """
        statistics, keys = self._vec_normalize, self.student_keys
        if statistics is None or keys is None:
            return obs if statistics is None else statistics.normalize_obs(obs)

        def normalize(part: np.ndarray, key: str) -> np.ndarray:
            if key not in (statistics.norm_obs_keys or ()):
                return part
            return statistics._normalize_obs(part, statistics.obs_rms[key]).astype(np.float32)

        return normalize(obs, keys) if isinstance(keys, str) else {key: normalize(obs[key], key) for key in obs}

    def of_teacher(self) -> "ObservationView":
        """
        :return: the environment as the teacher sees it
        """
        return ObservationView(self.venv, self.teacher_keys)
