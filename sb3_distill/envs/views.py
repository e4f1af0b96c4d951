"""How observations are seen by teacher and student."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecTransposeImage, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class ObservationView(VecEnvWrapper):
    """
    Returns the student's observations, and gives the teacher's observations on request: those before VecNormalize,
    because a teacher either normalizes with its own statistics or not at all.

    :param venv: the student's environment
    :raises ValueError: a wrapper around VecNormalize changes the observations further, e.g. stacks them
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
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
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()

    def teacher_obs(self, obs: Any) -> Any:
        """
        :param obs: the latest observations of the student
        :return: the teacher's observations of the same states
        """
        if self._vec_normalize is None:
            return obs
        raw: Any = self._vec_normalize.get_original_obs()
        for wrapper in self._transposes:
            raw = wrapper.transpose_observations(raw)
        return raw
