"""Back to RL and back again: a student goes on as a stock PPO, and what that has learned is distilled (two minutes)."""

import sys

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import QPD, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.play import evaluate_paired

NET_ARCH = {"pi": [8], "vf": [16]}


def distill(teacher, n_timesteps, **kwargs) -> QPD:
    policy_kwargs = {"net_arch": NET_ARCH}
    settings = {"learning_starts": 500, "value_coef": 0.001, "n_teacher_episodes": 0, "seed": 0, "device": "cpu"}
    return QPD("MlpPolicy", "CartPole-v1", teacher, policy_kwargs=policy_kwargs, **settings, **kwargs).learn(
        n_timesteps
    )


def show(name, agent) -> None:
    result = evaluate_paired(agent, lambda n_envs: make_eval_env("CartPole-v1", n_envs), 50)
    print(f"{name}: {result.mean:.2f} ± {result.std:.2f}, {load_teacher(agent, device='cpu').n_bytes} bytes")


try:
    # Searched in rl-trained-agents/ and $RL_TRAINED_AGENTS, then on the hub
    teacher = load_teacher("zoo:ppo/CartPole-v1", device="cpu")
except AgentError as error:
    sys.exit(str(error))

show("teacher", teacher)
# In full precision, which a stock model has, and stopped early, so that there is something left to learn
student = distill(teacher, 2_000, weight_bits=None)
show("student", student)

student.to_sb3().save("stock_student")
# From here on, this is SB3 alone: the zip loads where sb3_distill is not installed.
ppo = PPO.load(
    "stock_student",
    env=make_vec_env("CartPole-v1", 8, seed=0),
    device="cpu",
    # SB3's load takes any of PPO's hyperparameters. Careful ones: the critic has learned little so far, and with the
    # Zoo's for CartPole (n_steps=32, n_epochs=20, gamma=0.98) the student gets worse.
    **{"n_steps": 128, "batch_size": 256},
)
ppo.set_random_seed(0)
ppo.learn(30_000)
show("after PPO", ppo)

few_bits = {"weight_bits": 4, "activation_bits": 4, "first_layer_bits": 4, "last_layer_bits": 4}
show("distilled again, 4 bits", distill(ppo, 15_000, learning_rate=2e-3, gradient_steps=4, **few_bits))
