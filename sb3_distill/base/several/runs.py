"""Writes the students of a run as separate runs, which the Zoo's ``enjoy`` and ``load_teacher`` can read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_distill.agents.config import read_yaml
from sb3_distill.agents.files import BEST_MODEL
from sb3_distill.algorithms import key_of
from sb3_distill.base.callbacks import save_best_statistics, save_statistics
from sb3_distill.common.files import file_name, model_zip, run_folder, write_whole
from sb3_distill.envs.inspection import env_id_of

# Hyperparameters of the Zoo that make the environment, which students share with their teacher
_ENVIRONMENT = ("env_kwargs", "env_wrapper", "frame_stack", "n_envs", "normalize", "vec_env_wrapper")


class StudentsRun(Protocol):
    """The attributes and methods of a run that are needed to write its students."""

    students: Any

    def get_env(self) -> VecEnv | None: ...

    def get_vec_normalize_env(self) -> VecNormalize | None: ...

    def student_model(self, name: str) -> BaseAlgorithm: ...


def student_config(config: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param config: the run's ``config.yml``
    :param entries: the entries of the student, with its policy
    :return: the student's configuration: the run's environment, and the student's own policy
    """
    policy = entries["policy"]
    kwargs = ", ".join(f"{name}={_as_written(value)}" for name, value in entries.get("policy_kwargs", {}).items())
    return {
        **{name: config[name] for name in _ENVIRONMENT if name in config},
        "policy": policy if isinstance(policy, str) else policy.__name__,
        "policy_kwargs": f"dict({kwargs})",
    }


def _as_written(value: Any) -> str:
    """A value as in the Zoo's hyperparameters, where classes are dotted names."""
    if isinstance(value, Mapping):
        return f"dict({', '.join(f'{name}={_as_written(entry)}' for name, entry in value.items())})"
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)


def write_student_run(run: StudentsRun, name: str, folder: Path, is_best: bool = False) -> Path:
    """
    Write a student as ``<folder>/students/<name>/<algo>/<env>_1/<env>.zip``. Its configuration (if the Zoo has written
    that of the run) and the statistics of ``VecNormalize`` (if it is used) are written beside it.

    :param run: the run
    :param name: name of the student
    :param folder: the run's folder
    :param is_best: whether it is also kept as the student's best model
    :return: path of the zip
    """
    env = run.get_env()
    config = next(folder.glob("*/config.yml"), None)
    env_id = (None if env is None else env_id_of(env)) or "student"
    env_name = config.parent.name if config is not None else file_name(env_id)
    student = run.student_model(name)
    own = run_folder(folder / "students" / name, key_of(type(student)), env_name)
    settings = own / env_name
    if config is not None:
        write_whole(settings / "config.yml", yaml.safe_dump(student_config(read_yaml(config), run.students[name])))
        if (config.parent / "args.yml").is_file():
            write_whole(settings / "args.yml", (config.parent / "args.yml").read_bytes())
    vec_normalize = run.get_vec_normalize_env()
    if vec_normalize is not None:
        save_statistics(vec_normalize, settings / "vecnormalize.pkl")
    path = model_zip(own, env_name)
    student.save(path)
    if is_best:
        student.save(path.with_name(BEST_MODEL))
        save_best_statistics(vec_normalize, own)
    return path
