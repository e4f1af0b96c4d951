"""Students of a run as runs of their own, which the Zoo's ``enjoy --algo pd`` and ``load_teacher`` read."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sb3_distill.envs.inspection import env_id_of

if TYPE_CHECKING:
    from sb3_distill.rtpd.rtpd import RealTimeDistillDQN


def write_student_run(model: "RealTimeDistillDQN", name: str, folder: Path) -> Path:
    """
    Write a student as ``<folder>/students/<name>/pd/<env>_1/<env>.zip``, with the run's configuration beside it where
    the Zoo has written one, and the statistics of ``VecNormalize`` where they are in use.

    :param model: the run
    :param name: the student
    :param folder: the run's folder
    :return: path of the zip
    """
    env = model.get_env()
    config = next(folder.glob("*/config.yml"), None)
    env_id = (None if env is None else env_id_of(env)) or "student"
    # The Zoo writes ids with a namespace so.
    env_name = config.parent.name if config is not None else env_id.replace("/", "-")
    run = folder / "students" / name / "pd" / f"{env_name}_1"
    settings = run / env_name
    settings.mkdir(parents=True, exist_ok=True)
    if config is not None:
        for file in ("config.yml", "args.yml"):
            if (config.parent / file).is_file():
                shutil.copy(config.parent / file, settings / file)
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is not None:
        vec_normalize.save(str(settings / "vecnormalize.pkl"))
    path = run / f"{env_name}.zip"
    model.student_model(name).save(path)
    return path
