"""Where teacher and student see different things."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_distill.envs.inspection import frame_layout_of


class ObservationView(VecEnvWrapper):
    """
    Shows the student its observations, and knows what the teacher sees instead: the observation before VecNormalize,
    since a teacher normalises with its own statistics, if it does at all.

    :param venv: the student's environment
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._vec_normalize = unwrap_vec_normalize(venv)
        # Whether the environment stacks the frames of its images itself
        self.chained_frames = frame_layout_of(venv).chained

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()

    def teacher_obs(self, obs: Any) -> Any:
        """
        :param obs: the latest observations of the student
        :return: the same moments as the teacher sees them
        """
        return obs if self._vec_normalize is None else self._vec_normalize.get_original_obs()
