"""How observations are seen by teacher and student."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class ObservationView(VecEnvWrapper):
    """
    Returns the student's observations, and gives the teacher's observations on request: those before VecNormalize,
    because a teacher either normalizes with its own statistics or not at all.

    :param venv: the student's environment
    :raises ValueError: a wrapper around VecNormalize changes the observations
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        vec_normalize = unwrap_vec_normalize(venv)
        # If only rewards are normalized, both see the same.
        self._vec_normalize = vec_normalize if vec_normalize is not None and vec_normalize.norm_obs else None
        if self._vec_normalize is not None and self._vec_normalize.observation_space != venv.observation_space:
            raise ValueError(
                f"A wrapper around VecNormalize changes {self._vec_normalize.observation_space} to "
                f"{venv.observation_space}, but the teacher needs observations that are not normalized. Let "
                "VecNormalize be the outermost wrapper, such as VecNormalize(VecFrameStack(env, 4))."
            )

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()

    def teacher_obs(self, obs: Any) -> Any:
        """
        :param obs: the latest observations of the student
        :return: the teacher's observations of the same states
        """
        return obs if self._vec_normalize is None else self._vec_normalize.get_original_obs()
