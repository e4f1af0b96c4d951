"""Students that learn from observations that are a little other than their teacher's."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import QPD, PolicyDistillation
from sb3_distill.base.augmentation import adversarial, shifted
from sb3_distill.buffers.distillation import DistillationSamples
from tests.helpers import same

QUICK: dict[str, Any] = {"learning_starts": 32, "n_teacher_episodes": 0, "buffer_size": 200, "device": "cpu", "seed": 0}
BOX = spaces.Box(np.float32([-1, -np.inf, 0]), np.float32([1, np.inf, 1]))


class Frames(gym.Env):
    """Pictures of noise."""

    observation_space, action_space = spaces.Box(0, 255, (1, 36, 36), np.uint8), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.picture(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.picture(), 0.0, bool(self.np_random.random() < 0.1), False, {}

    def picture(self) -> np.ndarray:
        return self.np_random.integers(256, size=(1, 36, 36), dtype=np.uint8)


def student(augmentation: str = "none", env: Any = "CartPole-v1", teacher: Any = None, **kwargs: Any) -> Any:
    policy = "Net5Policy" if isinstance(env, Frames) else "MlpPolicy"
    teacher = teacher or DQN("MlpPolicy", env, buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu", seed=1)
    kwargs = {"policy_kwargs": {} if policy == "Net5Policy" else {"net_arch": [8]}, **QUICK, **kwargs}
    return PolicyDistillation(policy, env, teacher, augmentation=augmentation, **kwargs)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_shifted_images_keep_their_shape_and_content(height: int, width: int, n_pixels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(3, 2, height, width), dtype=np.uint8)
    offsets = rng.integers(-n_pixels, n_pixels + 1, size=(2, 3))
    moved = shifted(th.as_tensor(images), offsets)
    assert moved.shape == images.shape and moved.dtype == th.uint8
    for image, found, (down, right) in zip(images, moved.numpy(), offsets.T, strict=True):
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="edge")
        assert np.array_equal(found, padded[:, 4 - down : 4 - down + height, 4 - right : 4 - right + width])


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_steps_stay_within_their_strength_and_the_bounds(strength: float, n_steps: int, seed: int) -> None:
    th.manual_seed(seed)
    obs = th.rand(8, 3) * th.tensor([2.0, 9.0, 1.0]) - th.tensor([1.0, 4.0, 0.0])
    weights = th.randn(3, 2)
    moved = adversarial(lambda part: (part @ weights).square().sum(dim=1), obs, {"": BOX}, strength, n_steps)
    spans = th.tensor([2.0, 2 * float(obs[:, 1].max() - obs[:, 1].min()), 1.0])
    assert ((moved - obs).abs() <= strength * spans + 1e-5).all()
    assert all(BOX.contains(each) for each in moved.numpy())
    assert strength > 0 or th.equal(moved, obs)


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("env", ["CartPole-v1", Frames()], ids=["vectors", "images"])
def test_the_loss_does_not_fall(env: Any, n_steps: int) -> None:
    model = student("adversarial", env, augmentation_strength=0.002, augmentation_steps=n_steps).learn(40)
    batch = model.replay_buffer.sample(32)

    def loss(obs: Any) -> th.Tensor:
        return model.student_loss(model.student, DistillationSamples(obs, batch.answers))[0]

    moved = adversarial(loss, batch.observations, model._boxes(), 0.002, n_steps)
    assert moved.dtype == th.float32 and not th.equal(moved, batch.observations.float())
    assert loss(moved).mean() > loss(batch.observations).mean()


@pytest.mark.parametrize("augmentation", ["shift", "adversarial"])
def test_no_strength_is_no_augmentation_and_a_seed_repeats(augmentation: str) -> None:
    plain, zero, first, second = (
        student(name, Frames(), augmentation_strength=strength).learn(48)
        for name, strength in [("none", None), (augmentation, 0), (augmentation, None), (augmentation, None)]
    )
    assert same(plain.policy, zero.policy) and same(first.policy, second.policy)
    assert not same(plain.policy, first.policy)


@pytest.mark.parametrize("augmentation", ["shift", "adversarial"])
def test_the_first_of_several_students_learns_as_it_would_alone(augmentation: str) -> None:
    alone, several = (student(augmentation, Frames(), students=names).learn(40) for names in (None, ["Net4Policy"]))
    assert same(alone.policy, several.policy)


@pytest.mark.parametrize("weight_bits", [None, 4])
def test_it_goes_through_qpd_siblings_and_files(weight_bits: int | None, tmp_path: Path) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
    teacher = PPO("MlpPolicy", env, n_steps=8, batch_size=8, policy_kwargs={"net_arch": [8]}, device="cpu", seed=1)
    options: dict[str, Any] = {**QUICK, "students": {"small": {"policy_kwargs": {"net_arch": [4, 4]}}}}
    model = QPD("MlpPolicy", env, teacher, augmentation="adversarial", weight_bits=weight_bits, **options)
    assert model.learn(80)._n_updates > 0 and model._is_normalized("")
    model.save(tmp_path / "student")
    loaded = QPD.load(tmp_path / "student", env=env, augmentation_strength=0.5, teacher=model.teacher)
    assert loaded.augmentation == "adversarial" and loaded.learn(80)._n_updates > 0


@pytest.mark.parametrize(
    ("augmentation", "env", "kwargs", "message"),
    [
        ("shifts", "CartPole-v1", {}, "augmentation"),
        (
            "shift",
            "CartPole-v1",
            {},
            r"augmentation='shift' needs observations with images .* pass augmentation='none'",
        ),
        ("adversarial", "FrozenLake-v1", {}, r"needs observations with numbers on a scale .* Discrete\(16\)"),
        (["shift"], Frames(), {}, "Unknown augmentation"),
        ("shift", Frames(), {"augmentation_strength": 1.5}, "1.5 must be a whole number of pixels below .* \\(36\\)"),
        ("shift", Frames(), {"augmentation_strength": 36}, "36 must be a whole number of pixels below"),
        ("adversarial", "CartPole-v1", {"augmentation_strength": 2}, "is a share of an observation's range"),
        ("adversarial", "CartPole-v1", {"augmentation_strength": "0.1"}, "a number of at least 0, or None, not '0.1'"),
        ("adversarial", "CartPole-v1", {"augmentation_strength": float("nan")}, "a number of at least 0"),
        ("adversarial", "CartPole-v1", {"augmentation_steps": 0}, "augmentation_steps must be a whole number"),
        ("adversarial", "CartPole-v1", {"augmentation_strength": np.True_}, "a number of at least 0, or None"),
        ("adversarial", "CartPole-v1", {"augmentation_steps": True}, "whole number of at least 1, not True"),
    ],
)
def test_what_cannot_be_augmented_is_named(augmentation: str, env: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        student(augmentation, env, **kwargs)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    kwargs = {"augmentation_strength": np.float32(0.5), "augmentation_steps": np.int64(2)}
    model = student("adversarial", **kwargs).learn(40)
    model.save(tmp_path / "student")
    assert same(model.policy, PolicyDistillation.load(tmp_path / "student", device="cpu").policy)
    assert model._n_updates > 0
    assert student("shift", Frames(), augmentation_strength=np.int32(3)).augmentation_strength == 3


@pytest.mark.parametrize(
    ("augmentation", "kwargs", "message"),
    [
        ("none", {"augmentation_strength": 0.1}, r"augmentation_strength=0.1 has no effect .*'shift' .*'adversarial'"),
        ("none", {"augmentation_steps": 5}, r"augmentation_steps=5 has no effect with augmentation='none': .*'adver"),
        ("shift", {"augmentation_steps": 5}, r"augmentation_steps=5 has no effect with augmentation='shift': .*'adver"),
    ],
)
def test_what_has_no_effect_is_said(augmentation: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        student(augmentation, Frames(), **kwargs)
