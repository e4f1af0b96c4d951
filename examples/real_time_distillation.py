"""A teacher and three students learn CartPole at the same time (about two minutes)."""

from pathlib import Path

from sb3_distill import PolicyDistillation, RealTimeDistillDQN
from sb3_distill.results.curves import format_summary

results = Path("logs/real_time_distillation")
model = RealTimeDistillDQN(
    "MlpPolicy",
    "CartPole-v1",
    students={
        "large": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [64]}},
        "small": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [16]}},
        # Further entries replace the algorithm's arguments for this student.
        "steady": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [16]}, "teacher_source": "best"},
    },
    temperature=1.0,
    # The teacher is an ordinary DQN; these are its hyperparameters in the Zoo.
    learning_rate=2.3e-3,
    batch_size=64,
    learning_starts=1_000,
    target_update_interval=10,
    train_freq=256,
    gradient_steps=128,
    exploration_fraction=0.16,
    exploration_final_eps=0.04,
    policy_kwargs={"net_arch": [256, 256]},
    eval_freq=1_250,
    n_eval_episodes=10,
    results_dir=str(results),
    seed=0,
    device="cpu",
)
model.learn(30_000)
print(format_summary(model.evaluations))
print(f"Learning curves: {results}/learning_curves.png")

# Save a student as a model of its own, and load it
model.student_model("small").save(results / "small")
student = PolicyDistillation.load(results / "small")
print(f"{student.policy.n_parameters} parameters")
