"""A SAC agent of the Zoo becomes a student of 4 bits: HalfCheetah (a few minutes; extra `mujoco`)."""

from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import QPD, load_teacher
from sb3_distill.evaluation.scoring import score_agent

ENV_ID = "HalfCheetah-v5"
# In rl-trained-agents/, $RL_TRAINED_AGENTS, or on the hub; an agent of version 3, which version 5 follows
teacher = load_teacher("zoo:sac/HalfCheetah-v3", device="cpu")

student = QPD(
    "MlpPolicy",
    make_vec_env(ENV_ID, 1, seed=0),
    teacher,
    learning_rate=1e-3,
    gradient_steps=4,
    value_coef=0.0001,
    weight_bits=4,
    activation_bits=4,
    first_layer_bits={"weight": 4, "input": 8},
    last_layer_bits=4,
    policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64]}},
    n_teacher_episodes=0,
    verbose=1,
    seed=0,
    device="cpu",
)
student.learn(100_000)
student.save("half_cheetah")

for name, agent in (("teacher", teacher), ("student", load_teacher("half_cheetah.zip", device="cpu"))):
    score = score_agent(agent, ENV_ID, n_episodes=5)
    print(f"{name}: {agent.n_bytes:,} bytes, {score.mean:.0f}")
