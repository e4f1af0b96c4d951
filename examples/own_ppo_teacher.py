"""Your own agent as teacher: a PPO model that is trained here and passed as an object (about a minute)."""

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_distill import PolicyDistillation

teacher = PPO("MlpPolicy", "CartPole-v1", n_steps=256, learning_rate=1e-3, seed=0, device="cpu")
teacher.learn(40_000)

student = PolicyDistillation(
    "MlpPolicy",
    "CartPole-v1",
    teacher=teacher,
    learning_rate=2e-3,
    batch_size=64,
    gradient_steps=4,
    # The teacher's outputs are log-probabilities, not Q-values, so they need no sharpening by a low temperature.
    temperature=1.0,
    # The student acts and the teacher labels, as in Actor-Mimic.
    rollout_policy="student",
    policy_kwargs={"net_arch": [16]},
    seed=0,
    device="cpu",
)
student.learn(15_000)

for name, model in {"teacher": teacher, "student": student}.items():
    mean_reward, std_reward = evaluate_policy(model, teacher.get_env(), n_eval_episodes=20, warn=False)
    print(f"{name}: {mean_reward:.1f} +/- {std_reward:.1f}")
