"""Temperatures that students were trained with, as figures read them."""

from stable_baselines3 import PPO

from sb3_distill import ProximalPolicyDistillation, load_teacher
from sb3_distill.visualize.figures import targets_temperature, temperature_of


def test_a_temperature_that_was_left_out_is_1(tmp_path):
    teacher = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    path = tmp_path / "student.zip"
    ProximalPolicyDistillation("MlpPolicy", "CartPole-v1", teacher, n_steps=8, batch_size=8, device="cpu").save(path)
    student = load_teacher(path, device="cpu")
    assert targets_temperature([student]) == temperature_of(student, 0.01) == 1.0
