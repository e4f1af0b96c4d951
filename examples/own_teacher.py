"""A network that Stable-Baselines3 has never seen as the teacher of a student in 4 bits (a few minutes)."""

import gymnasium as gym
import numpy as np
import torch as th
from torch import nn

from sb3_distill import QPD, Answers, load_teacher
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.play import evaluate_paired


def train() -> nn.Module:
    """Any network, trained in any way: here by REINFORCE, in plain torch."""
    th.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
    optimizer = th.optim.Adam(net.parameters(), lr=1e-2)
    mode = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
    envs = gym.make_vec("CartPole-v1", 8, vectorization_mode="sync", vector_kwargs=mode)
    obs, _ = envs.reset(seed=0)
    for _ in range(100):
        chosen, dones = [], []
        for _ in range(250):
            actions = th.distributions.Categorical(logits=net(th.as_tensor(obs)))
            action = actions.sample()
            obs, _, terminated, truncated, _ = envs.step(action.numpy())
            chosen.append(actions.log_prob(action))
            dones.append(terminated | truncated)
        returns, left = [], np.zeros(8)
        for done in reversed(dones):
            left = 1.0 + 0.99 * left * ~done
            returns.append(left)
        advantages = th.as_tensor(np.stack(returns[::-1]))
        loss = -(th.stack(chosen) * (advantages - advantages.mean()) / advantages.std()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


class MyTeacher:
    """What sb3_distill needs to know of it."""

    observation_space = gym.spec("CartPole-v1").make().observation_space
    action_space = gym.spaces.Discrete(2)

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def answer(self, obs, state, episode_start):
        return Answers(log_probs=self.net(obs)), None


teacher = load_teacher(MyTeacher(train()), device="cpu")
student = QPD(
    "MlpPolicy",
    "CartPole-v1",
    teacher,
    learning_rate=2e-3,
    gradient_steps=4,
    # Its answers hold no values, from which a critic could learn.
    value_coef=0.0,
    policy_kwargs={"net_arch": {"pi": [8], "vf": []}},
    weight_bits=4,
    activation_bits=4,
    first_layer_bits=4,
    last_layer_bits=4,
    seed=0,
    device="cpu",
)
student.learn(30_000)
for name, player, n_bytes in (("teacher", teacher, teacher.n_bytes), ("student", student, student.stored_bytes())):
    score = evaluate_paired(player, lambda n_envs: make_eval_env("CartPole-v1", n_envs), 50)
    print(f"{name}: {score.mean:.1f} +/- {score.std:.1f} in {n_bytes:,} bytes")
