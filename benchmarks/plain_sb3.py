"""Policy distillation as a user would write it with Stable-Baselines3 alone: the baseline of the benchmarks."""

from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from stable_baselines3.dqn.policies import CnnPolicy, DQNPolicy
from torch import nn
from torch.nn import functional as F

gym.register_envs(ale_py)


class PlainCNN(NatureCNN):
    """SB3's NatureCNN with a configurable number of feature maps."""

    def __init__(self, observation_space: spaces.Box, features_dim: int, channels: tuple[int, int, int]) -> None:
        super().__init__(observation_space, features_dim)
        self.cnn = nn.Sequential(
            nn.Conv2d(observation_space.shape[0], channels[0], kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(channels[0], channels[1], kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(channels[1], channels[2], kernel_size=3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.linear = nn.Sequential(nn.Linear(channels[2] * 7 * 7, features_dim), nn.ReLU())


class LabelledReplayBuffer(ReplayBuffer):
    """SB3's ReplayBuffer (stacked observations), which also stores the teacher's Q-values."""

    def __init__(self, *args: Any, n_actions: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.q_values = np.zeros((self.buffer_size, self.n_envs, n_actions), dtype=np.float32)

    def sample_labelled(self, batch_size: int) -> tuple[th.Tensor, th.Tensor]:
        """Draw observations and the teacher's Q-values for them."""
        rows = np.random.randint(0, self.size(), size=batch_size)
        envs = np.random.randint(0, self.n_envs, size=batch_size)
        return self.to_torch(self.observations[rows, envs]), self.to_torch(self.q_values[rows, envs])


class PlainDistillation(OffPolicyAlgorithm):
    """Policy distillation with the KL loss, in SB3's own loop."""

    policy_aliases = {"CnnPolicy": CnnPolicy}  # noqa: RUF012
    policy: DQNPolicy
    replay_buffer: LabelledReplayBuffer

    def __init__(
        self,
        env: VecEnv,
        teacher: DQNPolicy | None,
        temperature: float = 0.01,
        policy: str | type[DQNPolicy] = "CnnPolicy",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy,
            env,
            replay_buffer_class=LabelledReplayBuffer,
            replay_buffer_kwargs={"n_actions": env.action_space.n},  # type: ignore[attr-defined]
            optimize_memory_usage=False,
            sde_support=False,
            support_multi_env=True,
            **kwargs,
        )
        self.teacher = teacher
        self.temperature = temperature
        self._setup_model()

    def _sample_action(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        assert self.teacher is not None
        with th.no_grad():
            obs, _ = self.teacher.obs_to_tensor(self._last_obs)  # type: ignore[arg-type]
            self._q_values = self.teacher.q_net(obs).numpy()
        actions = self._q_values.argmax(axis=1)
        for env in range(self.n_envs):
            if np.random.rand() < 0.05:
                actions[env] = self.action_space.sample()
        return actions, actions

    def _store_transition(self, replay_buffer: Any, *args: Any, **kwargs: Any) -> None:
        replay_buffer.q_values[replay_buffer.pos] = self._q_values
        super()._store_transition(replay_buffer, *args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses = []
        for _ in range(gradient_steps):
            observations, q_values = self.replay_buffer.sample_labelled(batch_size)
            log_probs = F.log_softmax(self.policy.q_net(observations), dim=1)
            targets = F.softmax(q_values / self.temperature, dim=1)
            loss = F.kl_div(log_probs, targets, reduction="batchmean")
            losses.append(loss.item())
            self.policy.optimizer.zero_grad()
            loss.backward()
            self.policy.optimizer.step()
        self._n_updates += gradient_steps
        self.logger.record("train/loss", np.mean(losses))


def make_plain_env(env_id: str, n_envs: int) -> VecEnv:
    """The environment that the Zoo builds for an Atari game."""
    return VecFrameStack(make_atari_env(env_id, n_envs=n_envs, seed=0), n_stack=4)
