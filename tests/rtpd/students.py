"""Runs with small students that several test files make."""

from sb3_distill import RealTimeDistillDQN

DQN_KWARGS = {
    "learning_rate": 2e-3,
    "learning_starts": 100,
    "batch_size": 32,
    "buffer_size": 1_000,
    "target_update_interval": 20,
    "train_freq": 4,
    "gradient_steps": 2,
    "exploration_fraction": 0.5,
    "policy_kwargs": {"net_arch": [32]},
    "seed": 3,
    "device": "cpu",
}
SMALL = {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [8]}}
KWARGS = {"students": {"small": SMALL, "other": {**SMALL, "imitation": False}}, "temperature": 0.1, "eval_freq": -1}


def make(**kwargs) -> RealTimeDistillDQN:
    return RealTimeDistillDQN(
        kwargs.pop("policy", "MlpPolicy"), kwargs.pop("env", "CartPole-v1"), **{**DQN_KWARGS, **KWARGS, **kwargs}
    )
