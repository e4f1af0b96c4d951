"""The layers that an agent's observations go through, and what they multiply."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from onnx import helper
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_distill import load_teacher
from sb3_distill.agents.chain import count_macs
from sb3_distill.base.students import student_model
from sb3_distill.evaluation.scoring import row_of, score_agent
from sb3_distill.evaluation.table import cells_of, header
from sb3_distill.export.export import export_agent
from tests.agents.onnx_files import FLOAT, env_of, gated, linear, save, weights_of
from tests.agents.own_teachers import Counter, Plain
from tests.helpers import FRAMES


def test_macs_of_net3():
    model = student_model("Net3Policy", {}, FRAMES, spaces.Discrete(6), device="cpu")
    # Positions x weights of the three convolutions, then the two fully connected layers
    convolutions = 400 * 16 * 4 * 64 + 81 * 16 * 16 * 16 + 49 * 16 * 16 * 9
    assert count_macs(load_teacher(model)) == convolutions + 784 * 64 + 64 * 6 == 2_133_632


@pytest.mark.parametrize("batch", ["N", 1])
def test_macs_of_onnx_files(batch: Any, tmp_path: Path) -> None:
    path = linear(tmp_path / "policy.onnx", 4, 2, batch=batch)
    assert count_macs(load_teacher(path, device="cpu")) == 4 * 2
    assert count_macs(load_teacher(gated(path, batch), device="cpu")) == 4 * 3 + 3 * 2
    nodes = [
        helper.make_node("Conv", ["obs", "kernel"], ["seen"], strides=[2, 2]),
        helper.make_node("Flatten", ["seen"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
    ]
    weights = {
        "kernel": np.zeros((3, 2, 3, 3), np.float32),
        "w": weights_of(5, 3 * 3 * 4),
        "b": np.zeros(5, np.float32),
    }
    ports = {"obs": (FLOAT, [batch, 2, 7, 9])}, {"logits": (FLOAT, [batch, 5])}
    teacher = load_teacher(save(path, nodes, *ports, weights), device="cpu")
    # A kernel at each of 3 x 4 places, then a layer
    assert count_macs(teacher) == 3 * 4 * (3 * 2 * 3 * 3) + 3 * 3 * 4 * 5


def test_macs_of_our_own_export(ppo_teacher: PPO, tmp_path: Path) -> None:
    described = export_agent(ppo_teacher, tmp_path, n_observations=20, max_disagreement=1.0)
    for name in described.files:
        assert count_macs(load_teacher(tmp_path / name, device="cpu")) == described.macs > 0


class WithLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 5, 2), nn.Linear(5, 2)

    def forward(self, obs: th.Tensor, h_in: th.Tensor, c_in: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        seen, (h, c) = self.rnn(obs.unsqueeze(0), (h_in, c_in))
        return self.head(seen.squeeze(0)), h, c


@pytest.mark.filterwarnings("ignore")
def test_macs_of_an_lstm(tmp_path: Path) -> None:
    inputs = th.zeros(1, 4), th.zeros(2, 1, 5), th.zeros(2, 1, 5)
    names = {"input_names": ["obs", "h_in", "c_in"], "output_names": ["logits", "h_out", "c_out"]}
    th.onnx.export(WithLSTM().eval(), inputs, str(tmp_path / "policy.onnx"), dynamo=False, **names)
    teacher = load_teacher(tmp_path / "policy.onnx", env_id="CartPole-v1", device="cpu")
    # Four gates of five units in each of two layers
    assert count_macs(teacher) == 20 * (4 + 5) + 20 * (5 + 5) + 5 * 2


def test_products_that_are_not_counted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Einsum", ["obs", "w"], ["logits"], equation="ni,ij->nj")]
    ports = {"obs": (FLOAT, ["N", 4])}, {"logits": (FLOAT, ["N", 2])}
    path = save(tmp_path / "policy.onnx", nodes, *ports, {"w": weights_of(4, 2)})
    assert count_macs(load_teacher(path, env=env_of(spaces.Discrete(2)), device="cpu")) is None


class OwnLayer(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, 5)
        self.own = nn.GRUCell(4, 5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.own(observations)


def test_layers_that_are_not_counted() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"features_extractor_class": OwnLayer}, device="cpu")
    for own in (model, Plain(), Counter()):
        assert count_macs(load_teacher(own, device="cpu")) is None


def test_tables_say_what_is_not_known() -> None:
    teacher = load_teacher(Counter(), device="cpu")
    row = row_of(teacher, "Parity-v0", score_agent(teacher, "Parity-v0", 2), None, None)
    cells = dict(zip(header(5.0), cells_of(row), strict=True))
    assert row.n_macs is None and [cells[name] for name in ("parameters", "bytes", "MACs")] == ["unknown"] * 3


def test_no_observation_is_drawn_to_count() -> None:
    """There is no uniform distribution between the largest numbers."""
    space = spaces.Box(-np.finfo(np.float64).max, np.finfo(np.float64).max, (40,), np.float64)
    with pytest.raises(OverflowError), np.errstate(over="ignore"):
        space.sample()
    student = student_model("MlpPolicy", {"net_arch": [8]}, space, spaces.Discrete(2), device="cpu")
    assert count_macs(load_teacher(student, device="cpu")) == 40 * 8 + 8 * 2
