"""What loading an agent costs."""

import subprocess
import sys

import pytest
from stable_baselines3 import DQN, PPO

MODELS = {
    "dqn": lambda: DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu"),
    "ppo": lambda: PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu"),
}


@pytest.mark.parametrize("algo", MODELS)
def test_agents_that_only_answer_need_no_compiler(algo, tmp_path):
    """PyTorch loads it with the first optimizer of a process."""
    MODELS[algo]().save(tmp_path / "agent")
    code = (
        "import sys; from sb3_distill import load_teacher; agent = load_teacher('agent.zip', device='cpu'); "
        "agent.predict(agent.observation_space.sample()); print('torch._dynamo' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == "False"
