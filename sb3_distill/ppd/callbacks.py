"""The teacher, asked about every observation of a rollout."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.agent import Teacher
from sb3_distill.base.refusals import check_last_observations
from sb3_distill.common.answers import Answers
from sb3_distill.common.finite import check_finite
from sb3_distill.envs.views import ObservationView
from sb3_distill.evaluation.players import masks_for


class TeacherAnswersCallback(BaseCallback):
    """
    Asks the teacher about the observations of a rollout, in the order of play: SB3's ``collect_rollouts`` has no other
    place where observations are known as they were before ``VecNormalize``. Refuses numbers that are not finite.

    :param teacher: the teacher
    :param env: the environment that the student learns in
    """

    # A ``ProximalPolicyDistillation``
    model: Any

    def __init__(self, teacher: Teacher, env: VecEnv) -> None:
        super().__init__()
        self.teacher = teacher
        self.view = ObservationView(env)
        self.view.show_teacher(teacher.observation_space)
        # Those of the latest rollout, one for each step
        self.answers: list[Answers] = []

    def _see(self, obs: Any) -> None:
        self.obs = self.view.teacher_obs(obs)
        self.masks = masks_for(self.teacher, self.view)
        check_finite("observation", self.obs, self.model.num_timesteps)

    def _on_rollout_start(self) -> None:
        self.answers = []
        self._see(self.model._last_obs)

    def _on_step(self) -> bool:
        check_finite("reward", self.locals["rewards"], self.model.num_timesteps)
        check_last_observations(self.locals["dones"], self.locals["infos"], self.model.num_timesteps)
        obs, starts = obs_as_tensor(self.obs, self.model.device), self.model._last_episode_starts
        answers, self.model._teacher_state = self.teacher.answer(obs, self.model._teacher_state, starts)
        self.answers.append(answers.masked(**self.masks) if self.masks else answers)
        self._see(self.locals["new_obs"])
        return True
