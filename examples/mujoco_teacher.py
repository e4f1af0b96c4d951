"""A SAC agent of the Zoo becomes a student of 4 bits: HalfCheetah (a few minutes; extra `mujoco`)."""

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_distill import QPD, load_teacher
from sb3_distill.evaluation.scoring import score_agent

ENV_ID = "HalfCheetah-v5"
# In rl-trained-agents/, $RL_TRAINED_AGENTS, or on the hub; an agent of version 3, which version 5 follows
teacher = load_teacher("zoo:sac/HalfCheetah-v3", device="cpu")
# For few bits, the student's observations are normalized. The teacher sees them as they are.
env = VecNormalize(make_vec_env(ENV_ID, 8, seed=0), norm_reward=False)

student = QPD(
    "MlpPolicy",
    env,
    teacher,
    learning_rate=LinearSchedule(2e-3, 0.0, 1.0),
    batch_size=256,
    gradient_steps=16,
    value_coef=0.0,
    weight_bits=4,
    activation_bits=4,
    first_layer_bits={"weight": 4, "input": 8},
    last_layer_bits=4,
    policy_kwargs={"net_arch": {"pi": [96, 96], "vf": [8]}, "activation_fn": nn.ReLU},
    n_teacher_episodes=0,
    verbose=1,
    seed=0,
    device="cpu",
)
student.learn(60_000)
student.save("half_cheetah")
env.save("vecnormalize.pkl")

for name, agent in (("teacher", teacher), ("student", load_teacher(student, device="cpu"))):
    score = score_agent(agent, ENV_ID, n_episodes=5)
    print(f"{name}: {agent.n_bytes:,} bytes, {score.mean:.0f}")
