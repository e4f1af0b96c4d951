"""A pretrained Zoo agent as teacher: CartPole's DQN (67,586 parameters) is distilled into a student of 114 parameters.

python examples/zoo_teacher.py [TEACHER]   (a run folder, a zip, "zoo:..." or "hub:..."; about half a minute)
"""

import sys

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.play import evaluate_paired

teacher = load_teacher(sys.argv[1] if len(sys.argv) > 1 else "zoo:dqn/CartPole-v1")

model = PolicyDistillation(
    "MlpPolicy",
    "CartPole-v1",
    teacher=teacher,
    learning_rate=2e-3,
    batch_size=64,
    gradient_steps=4,
    loss="kl",
    temperature=0.1,
    rollout_policy="linear",
    policy_kwargs={"net_arch": [16]},
    seed=0,
    verbose=1,
)
model.learn(20_000, log_interval=None)
model.save("cartpole_student")

# The zip contains only the student, so the teacher is not needed to load it.
student = PolicyDistillation.load("cartpole_student")

scores = {
    name: evaluate_paired(player, lambda n_envs: make_eval_env("CartPole-v1", n_envs), n_eval_episodes=20)
    for name, player in {"teacher": teacher, "student": student}.items()
}
for name, score in scores.items():
    print(f"{name}: {score.mean:.1f} +/- {score.std:.1f}, {score.percent_of(scores['teacher']):.1f}% of the teacher")
print(f"{teacher.n_parameters:,} parameters became {student.policy.n_parameters:,}")
