"""One student for CartPole and MountainCar, distilled from a DQN and a PPO agent of the Zoo (about two minutes)."""

import sys

from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import MultiTaskDistillation
from sb3_distill.agents.files import AgentError

env = make_vec_env(
    "MultiTask-v0", n_envs=4, env_kwargs={"env_ids": ["CartPole-v1", "MountainCar-v0"], "pad": True}, seed=0
)
try:
    model = MultiTaskDistillation(
        "MultiTaskMlpPolicy",
        env,
        # Searched in rl-trained-agents/ and $RL_TRAINED_AGENTS, then on the hub
        teachers={"CartPole-v1": "zoo:dqn/CartPole-v1", "MountainCar-v0": "zoo:ppo/MountainCar-v0"},
        temperature={"CartPole-v1": 0.1, "MountainCar-v0": 1.0},
        learning_starts=2_000,
        batch_size=64,
        gradient_steps=8,
        n_eval_episodes=20,
        seed=0,
        device="cpu",
        verbose=1,
    )
except AgentError as error:
    sys.exit(str(error))
model.learn(60_000, log_interval=100)

single = model.task("CartPole-v1")
single.save("logs/multi_task_cartpole")
print(f"{model.policy.n_parameters} parameters for both tasks, {single.policy.n_parameters} for CartPole alone")
