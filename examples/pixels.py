"""A student that sees pictures, while its teacher sees the state: CartPole (about two minutes)."""

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule

from sb3_distill import PolicyDistillation, RenderedFrames

# The whole state under "state", the last four grey pictures of 84 x 84 under "pixels"
env = make_vec_env("CartPole-v1", 8, seed=0, env_kwargs={"render_mode": "rgb_array"}, wrapper_class=RenderedFrames)

student = PolicyDistillation(
    "Net3Policy",
    env,
    # The Zoo's agent: in rl-trained-agents/, $RL_TRAINED_AGENTS, or on the hub
    teacher=None,
    teacher_keys="state",
    student_keys="pixels",
    temperature="auto",
    rollout_policy="linear",
    learning_rate=LinearSchedule(2e-3, 0.0, 1.0),
    batch_size=64,
    buffer_size=20_000,
    gradient_steps=4,
    n_teacher_episodes=0,
    verbose=1,
    seed=0,
    device="cpu",
)
student.learn(20_000)

mean_reward, std_reward = evaluate_policy(student, env, n_eval_episodes=20, warn=False)
print(f"student of {student.observation_space.shape} pixels: {mean_reward:.1f} +/- {std_reward:.1f}")
student.save("cartpole_pixels")  # knows its own observations alone
