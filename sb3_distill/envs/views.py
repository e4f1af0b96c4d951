"""How observations are seen by teacher and student."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecTransposeImage, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_distill.common.utils import unknown_choice
from sb3_distill.envs.inspection import vec_frame_stack_of

# What somebody sees of a Dict observation: the part under one key, a Dict of the parts under several, a Dict that has
# parts under other names (by the new name, the key), or everything (None)
Keys = str | Sequence[str] | Mapping[str, str] | None


def plain_keys(keys: Any, argument: str) -> Any:
    """
    :param keys: keys as a user writes them
    :param argument: name of the argument with these keys, for the message
    :return: the same as text, as a list of several, or None
    :raises ValueError: they are a mapping, or a key is named twice
    """
    if isinstance(keys, Mapping):
        raise ValueError(f"{argument} must be a key or a list of keys, not {keys!r}: keys cannot be renamed.")
    if isinstance(keys, str) or not isinstance(keys, Sequence):
        return keys
    if len(set(map(str, keys))) < len(keys):
        raise ValueError(f"{argument} names a key twice: {keys!r}.")
    return keys[0] if len(keys) == 1 else list(keys)


def part_of(observation: Any, keys: Keys) -> Any:
    """
    :param observation: an observation, or a batch of them
    :param keys: what is seen of it
    :return: this part; an observation that is this part already stays as it is
    """
    if keys is None or not isinstance(observation, dict):
        return observation
    if isinstance(keys, Mapping) and observation.keys() == keys.keys():
        return observation
    named = keys if isinstance(keys, Mapping) else {key: key for key in ([keys] if isinstance(keys, str) else keys)}
    try:
        parts = {name: observation[key] for name, key in named.items()}
    except KeyError as error:
        choice = unknown_choice("key", error.args[0], observation)
        raise ValueError(f"An observation lacks what is seen of it: {choice}") from error
    return parts[keys] if isinstance(keys, str) else parts


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
            f"{argument} names keys of Dict observations, but the environment's observations are {space}: wrap the "
            "environment so that it gives a Dict, for example with sb3_distill.StackedEntries."
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


def space_in_a_row(space: spaces.Dict, keys: Sequence[str]) -> spaces.Box:
    """
    :param space: Dict observations whose parts are arrays
    :param keys: the parts
    :return: the space of one vector with these parts in a row
    """
    parts: list[Any] = [space[key] for key in keys]
    low, high = (np.concatenate([getattr(part, bound).ravel() for part in parts]) for bound in ("low", "high"))
    return spaces.Box(low, high, dtype=np.result_type(*(part.dtype for part in parts)).type)


class FlatView(VecEnvWrapper):
    """
    Gives the parts of Dict observations as one vector, for a policy on a device.

    :param venv: the environment
    :param keys: the parts, in the order in which they stand in a row
    :raises ValueError: there are no such parts
    """

    def __init__(self, venv: VecEnv, keys: Sequence[str]) -> None:
        # Of one key it would be this part alone.
        space = part_of_space(venv.observation_space, {key: key for key in keys}, "keys")
        assert isinstance(space, spaces.Dict)
        super().__init__(venv, space_in_a_row(space, keys))
        self.keys = list(keys)

    def reset(self) -> VecEnvObs:
        return self._in_a_row(self.venv.reset(), self.num_envs)

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        for env in np.flatnonzero(dones):
            infos[env]["terminal_observation"] = self._in_a_row(infos[env]["terminal_observation"], 1)[0]
        return self._in_a_row(obs, self.num_envs), rewards, dones, infos

    def _in_a_row(self, obs: Any, n: int) -> np.ndarray:
        return np.concatenate([np.asarray(obs[key]).reshape(n, -1) for key in self.keys], axis=1)


# As configurations name it
FLAT_VIEW = f"{FlatView.__module__}.{FlatView.__name__}"


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
        self.teacher_space = self._whole = part_of_space(venv.observation_space, teacher_keys, "teacher_keys")
        # Of which axis of stacked observations it sees the newest part alone
        self._stack_axis: int | None = None
        self._n_stacked = vec_frame_stack_of(venv) or 1
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
                    "(...)). In the Zoo, leave out normalize or frame_stack."
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

    def show_teacher(self, space: spaces.Space) -> int:
        """
        Show a teacher the newest of stacked observations alone, if its space is that of one of them.

        :param space: the teacher's own observations
        :return: the number of stacked observations of which it sees the newest; 1 if it sees what the environment shows
        """
        whole, n = self._whole, self._n_stacked
        self.teacher_space, self._stack_axis = whole, None
        if n == 1 or not isinstance(whole, spaces.Box) or not isinstance(space, spaces.Box):
            return 1
        if len(whole.shape) != len(space.shape) or whole.dtype != space.dtype:
            return 1
        axes = [axis for axis, sizes in enumerate(zip(whole.shape, space.shape, strict=True)) if sizes[0] != sizes[1]]
        if len(axes) != 1 or whole.shape[axes[0]] != n * space.shape[axes[0]]:
            return 1
        # Its own, because the bounds of SB3's stacks are not in the order of their entries
        self._stack_axis, self.teacher_space = axes[0], space
        return n

    def _newest(self, obs: np.ndarray) -> np.ndarray:
        """The last part of a batch of stacked observations: SB3 appends the newest."""
        assert self._stack_axis is not None
        axis = self._stack_axis + 1
        size = obs.shape[axis]
        return obs.take(range(size - size // self._n_stacked, size), axis)

    def teacher_obs(self, obs: Any) -> Any:
        """
        :param obs: the latest observations of the student
        :return: the teacher's observations of the same states
        """
        seen = part_of(self._raw(obs), self.teacher_keys)
        return seen if self._stack_axis is None else self._newest(seen)

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
