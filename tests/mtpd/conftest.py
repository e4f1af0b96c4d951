from pathlib import Path

import pytest
from stable_baselines3 import DQN, PPO


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of different algorithms and numbers of actions: untrained, only their answers matter."""
    folder = tmp_path_factory.mktemp("teachers")
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [16]}, seed=0, device="cpu").save(folder / "dqn")
    PPO("MlpPolicy", "MountainCar-v0", n_steps=8, batch_size=8, seed=0, device="cpu").save(folder / "ppo")
    return {"CartPole-v1": folder / "dqn.zip", "MountainCar-v0": folder / "ppo.zip"}
