"""A student that sees less than its teacher: Pendulum from the last positions, without velocities (about a minute)."""

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_distill import QPD, StackedEntries

# The whole state under "state", cosine and sine of the last four angles under "positions"
env = make_vec_env("Pendulum-v1", 8, seed=0, wrapper_class=StackedEntries, wrapper_kwargs={"entries": [0, 1]})

student = QPD(
    "MlpPolicy",
    env,
    # The Zoo's agent: in rl-trained-agents/, $RL_TRAINED_AGENTS, or on the hub
    teacher=None,
    teacher_keys="state",
    student_keys="positions",
    learning_rate=2e-3,
    batch_size=256,
    gradient_steps=4,
    value_coef=0.0001,
    weight_bits=None,  # full precision
    policy_kwargs={"net_arch": {"pi": [32, 32], "vf": [32]}},
    verbose=1,
    seed=0,
    device="cpu",
)
student.learn(40_000)

mean_reward, std_reward = evaluate_policy(student, env, n_eval_episodes=20, warn=False)
print(f"student of {student.observation_space.shape} numbers: {mean_reward:.1f} +/- {std_reward:.1f}")
student.save("pendulum_positions")  # knows its own observations alone
