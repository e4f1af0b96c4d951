"""A student that also earns rewards: PPD beside plain PPO of the same size, on CartPole (half a minute)."""

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_distill import ProximalPolicyDistillation

SMALL = {"net_arch": {"pi": [8], "vf": [16]}}

for distill_coef in ("lin_1.0", 0.0):  # drawn to the teacher, less and less; and not at all, which is PPO
    env = make_vec_env("CartPole-v1", 8, seed=0)
    student = ProximalPolicyDistillation(
        "MlpPolicy",
        env,
        # The Zoo's agent: in rl-trained-agents/, $RL_TRAINED_AGENTS, or on the hub
        teacher="zoo:ppo/CartPole-v1",
        distill_coef=distill_coef,
        n_steps=128,
        batch_size=256,
        learning_rate=2e-3,
        n_teacher_episodes=0,
        policy_kwargs=SMALL,
        seed=0,
        device="cpu",
    )
    student.learn(20_000)
    mean_reward, std_reward = evaluate_policy(student, env, n_eval_episodes=50, warn=False)
    print(f"distill_coef={distill_coef}: {mean_reward:.1f} +/- {std_reward:.1f}")
