"""Two runs that save their models in one folder: the second one is refused, and the first one is not disturbed."""

from pathlib import Path

import pytest
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import PolicyDistillation
from sb3_distill.common.locks import InUseError
from tests.helpers import content_of


def make(teacher: Path) -> PolicyDistillation:
    kwargs = {"learning_starts": 10, "n_teacher_episodes": 0, "seed": 0, "device": "cpu"}
    return PolicyDistillation("MlpPolicy", "CartPole-v1", str(teacher), **kwargs)


CALLBACKS = {
    "checkpoints": lambda folder: CheckpointCallback(50, folder),
    "best models": lambda folder: EvalCallback(
        make_vec_env("CartPole-v1"), eval_freq=50, best_model_save_path=str(folder), verbose=0
    ),
}


@pytest.mark.parametrize("kind", CALLBACKS)
def test_the_second_run_is_refused(kind, cartpole_teacher: Path, tmp_path: Path):
    folder = tmp_path / "run"

    def learn_there(local: dict, global_: dict) -> bool:
        # With a folder of its own, it may.
        make(cartpole_teacher).learn(20, CALLBACKS[kind](tmp_path / "other"))
        before = content_of(folder)
        with pytest.raises(InUseError, match=f"{folder} is in use: another process saves its models there"):
            make(cartpole_teacher).learn(100, CALLBACKS[kind](folder))
        assert content_of(folder) == before
        return local["self"].num_timesteps < 60

    make(cartpole_teacher).learn(100, [CALLBACKS[kind](folder), learn_there])
    assert content_of(folder) and not list(tmp_path.rglob(".*"))
    # The next one may.
    make(cartpole_teacher).learn(100, CALLBACKS[kind](folder))
    assert not list(tmp_path.rglob(".*"))
