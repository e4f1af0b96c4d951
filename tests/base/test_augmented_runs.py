"""A run with augmentation that is stopped and goes on ends with the same bits as one that was never stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from tests.base.test_resuming import Pictures, cartpole, cartpole_qpd, check_run, cnn_teacher, pd
from tests.qpd.students import SMALL_STUDENTS
from tests.qpd.students import make as make_qpd


def pictures() -> Any:
    return make_vec_env(Pictures, 2, seed=0)


def shifting_qpd() -> Any:
    teacher = PPO("CnnPolicy", pictures(), n_steps=8, batch_size=8, seed=1, device="cpu")
    kwargs = {"policy": "Net5Policy", "policy_kwargs": {}, "value_coef": 0.0}
    return make_qpd(teacher, pictures(), augmentation="shift", **kwargs)


RUNS: dict[str, Callable[[], Any]] = {
    "pd, shift": pd(pictures, "Net5Policy", cnn_teacher, augmentation="shift"),
    "pd, adversarial": pd(cartpole(), augmentation="adversarial", augmentation_steps=2),
    "qpd, shift": shifting_qpd,
    "qpd, adversarial": cartpole_qpd(augmentation="adversarial"),
}


@SMALL_STUDENTS
@pytest.mark.ci
@pytest.mark.parametrize("name", RUNS)
def test_augmented_runs_end_with_the_same_bits(name: str, tmp_path: Path) -> None:
    check_run(RUNS[name], tmp_path)
