"""Writes the students of a run as separate runs, which the Zoo's ``enjoy --algo pd`` and ``load_teacher`` can read."""

import shutil
from pathlib import Path
from typing import Any, Protocol

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_distill.common.files import file_name, model_zip, run_folder
from sb3_distill.envs.inspection import env_id_of
from sb3_distill.results.curves import Evaluation


class StudentsRun(Protocol):
    """The attributes and methods of a run that are needed to evaluate and write its students."""

    seed: int | None
    num_timesteps: int
    students: Any
    evaluations: list[Evaluation]
    _n_updates: int

    def get_env(self) -> VecEnv | None: ...

    def get_vec_normalize_env(self) -> VecNormalize | None: ...

    def player(self, name: str) -> BasePolicy: ...

    def student_model(self, name: str) -> BaseAlgorithm: ...

    def keep_best_teacher(self) -> None: ...


def write_student_run(run: StudentsRun, name: str, folder: Path) -> Path:
    """
    Write a student as ``<folder>/students/<name>/pd/<env>_1/<env>.zip``. The run's configuration (if the Zoo has
    written one) and the statistics of ``VecNormalize`` (if it is used) are written beside it.

    :param run: the run
    :param name: name of the student
    :param folder: the run's folder
    :return: path of the zip
    """
    env = run.get_env()
    config = next(folder.glob("*/config.yml"), None)
    env_id = (None if env is None else env_id_of(env)) or "student"
    env_name = config.parent.name if config is not None else file_name(env_id)
    own = run_folder(folder / "students" / name, "pd", env_name)
    settings = own / env_name
    settings.mkdir(parents=True, exist_ok=True)
    if config is not None:
        for file in ("config.yml", "args.yml"):
            if (config.parent / file).is_file():
                shutil.copy(config.parent / file, settings / file)
    vec_normalize = run.get_vec_normalize_env()
    if vec_normalize is not None:
        vec_normalize.save(str(settings / "vecnormalize.pkl"))
    path = model_zip(own, env_name)
    run.student_model(name).save(path)
    return path
