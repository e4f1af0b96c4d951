"""One agent with a memory as a zip, as an ONNX file with its state, and as an object of the user's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_distill import Answers, load_teacher
from tests.agents.test_onnx_exporters import export

N_STEPS, WIDTH = 1_000, 8


class Network(nn.Module):
    """The actor, whose memory is an input and an output."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.lstm, self.net, self.head = policy.lstm_actor, policy.mlp_extractor.policy_net, policy.action_net

    def forward(self, obs: th.Tensor, h_in: th.Tensor, c_in: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        seen, (h_out, c_out) = self.lstm(obs.unsqueeze(0), (h_in, c_in))
        return self.head(self.net(seen.squeeze(0))), h_out, c_out


class Own:
    """The same network as a user would write it."""

    def __init__(self, model: RecurrentPPO) -> None:
        self.observation_space, self.action_space = model.observation_space, model.action_space
        self.net = Network(model.policy)

    def answer(self, obs: th.Tensor, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        h, c = (th.zeros(len(obs), WIDTH),) * 2 if state is None else state
        logits, h, c = self.net(obs, h[None], c[None])
        return Answers(log_probs=logits), (h[0], c[0])


@pytest.mark.ci
def test_zip_onnx_and_object_answer_alike(tmp_path: Path) -> None:
    env = make_vec_env("CartPole-v1", 3, seed=0)
    kwargs: dict[str, Any] = {"policy_kwargs": {"lstm_hidden_size": WIDTH}, "device": "cpu", "seed": 0}
    model = RecurrentPPO("MlpLstmPolicy", env, n_steps=8, batch_size=8, **kwargs)
    with th.no_grad():
        # So that its memory shows, and that it prefers one action or the other
        for name, weight in model.policy.named_parameters():
            if "lstm" in name or "action_net.weight" in name:
                weight.mul_(5.0)
    model.save(tmp_path / "CartPole-v1")
    names: dict[str, Any] = {"input_names": ["obs", "h_in", "c_in"], "output_names": ["logits", "h_out", "c_out"]}
    axes = {"obs": 0, "logits": 0, "h_in": 1, "c_in": 1, "h_out": 1, "c_out": 1}
    args = (th.zeros(3, 4), th.zeros(1, 3, WIDTH), th.zeros(1, 3, WIDTH))
    path = export(Network(model.policy), tmp_path / "policy.onnx", False, axes, args=args, **names)
    teachers = [
        load_teacher(tmp_path / "CartPole-v1.zip", device="cpu"),
        load_teacher(path, env_id="CartPole-v1", device="cpu"),
        load_teacher(Own(model), device="cpu"),
    ]
    states: list[Any] = [None] * 3
    obs: Any = env.reset()
    starts, n_resets, n_of_action, largest = np.ones(3, dtype=bool), 0, np.zeros(2, int), 0.0
    for _ in range(N_STEPS):
        answers = []
        for index, teacher in enumerate(teachers):
            found, states[index] = teacher.answer(th.as_tensor(obs), states[index], starts)
            answers.append(found.preferences.log_softmax(dim=1).numpy())
        largest = max(largest, float(np.ptp(answers, axis=0).max()))
        actions = answers[0].argmax(axis=1)
        n_of_action += np.bincount(actions, minlength=2)
        obs, _, starts, _ = env.step(actions)
        n_resets += starts.sum()
    # docs/memory_results.md shows this line.
    print(f"largest difference of log-probabilities in {N_STEPS:,} steps with {n_resets} resets: {largest:.1e}")
    assert n_resets > 30 and n_of_action.min() > 30
    assert largest < 1e-5
