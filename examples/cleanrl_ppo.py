"""PPO for CartPole in one file, as CleanRL writes it: an agent that Stable-Baselines3 has never seen (20 seconds)."""

import argparse

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

N_ENVS, N_STEPS, N_MINIBATCHES, N_EPOCHS = 8, 128, 4, 4
LEARNING_RATE, GAMMA, GAE_LAMBDA, CLIP, ENTROPY_COEF, VALUE_COEF = 1e-3, 0.99, 0.95, 0.2, 0.01, 0.5


def layer(n_inputs: int, n_outputs: int, gain: float = np.sqrt(2)) -> nn.Linear:
    linear = nn.Linear(n_inputs, n_outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    """An actor and a critic that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.actor = nn.Sequential(layer(4, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 2, 0.01))


def train(total_timesteps: int) -> Agent:
    torch.manual_seed(1)
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE, eps=1e-5)
    mode = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
    envs = gym.make_vec("CartPole-v1", N_ENVS, vectorization_mode="sync", vector_kwargs=mode)
    seen, _ = envs.reset(seed=1)
    n_iterations = max(total_timesteps // (N_ENVS * N_STEPS), 1)
    for iteration in range(n_iterations):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - iteration / n_iterations)
        observations = torch.zeros(N_STEPS + 1, N_ENVS, 4)
        actions, log_probs = torch.zeros(N_STEPS, N_ENVS, dtype=torch.long), torch.zeros(N_STEPS, N_ENVS)
        rewards, dones = torch.zeros(N_STEPS, N_ENVS), torch.zeros(N_STEPS, N_ENVS)
        for step in range(N_STEPS):
            observations[step] = torch.as_tensor(seen)
            with torch.no_grad():
                policy = Categorical(logits=agent.actor(observations[step]))
            actions[step] = policy.sample()
            log_probs[step] = policy.log_prob(actions[step])
            seen, reward, terminated, truncated, _ = envs.step(actions[step].numpy())
            rewards[step], dones[step] = torch.as_tensor(reward), torch.as_tensor(terminated | truncated)
        observations[N_STEPS] = torch.as_tensor(seen)

        with torch.no_grad():
            values = agent.critic(observations).squeeze(-1)
        advantages, advantage = torch.zeros(N_STEPS, N_ENVS), torch.zeros(N_ENVS)
        for step in reversed(range(N_STEPS)):
            goes_on = 1 - dones[step]
            delta = rewards[step] + GAMMA * values[step + 1] * goes_on - values[step]
            advantages[step] = advantage = delta + GAMMA * GAE_LAMBDA * goes_on * advantage
        returns = advantages + values[:-1]

        flat = [part.flatten(0, 1) for part in (observations[:-1], actions, log_probs, advantages, returns)]
        for _ in range(N_EPOCHS):
            for rows in torch.randperm(N_STEPS * N_ENVS).chunk(N_MINIBATCHES):
                obs, action, old_log_prob, adv, target = (part[rows] for part in flat)
                policy = Categorical(logits=agent.actor(obs))
                ratio = (policy.log_prob(action) - old_log_prob).exp()
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                policy_loss = -torch.min(adv * ratio, adv * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
                value_loss = 0.5 * (agent.critic(obs).squeeze(-1) - target).square().mean()
                loss = policy_loss + VALUE_COEF * value_loss - ENTROPY_COEF * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
    return agent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--total-timesteps", type=int, default=150_000)
    agent = train(parser.parse_args().total_timesteps)
    torch.save(agent.state_dict(), "cleanrl_ppo.pt")
