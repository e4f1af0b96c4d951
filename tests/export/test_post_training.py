"""Agents that are quantized after their training."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import onnx
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv

from sb3_distill import PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.base.students import student_model
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.export.cli import main as export
from sb3_distill.export.post_training import quantize_agent
from sb3_distill.quantization.layers import quantized_layers
from tests.qpd.students import BITS, SMALL_STUDENTS, make

pytestmark = SMALL_STUDENTS


@pytest.fixture(scope="module")
def agents(ppo_teacher, gaussian_teacher, cartpole_teacher, tmp_path_factory) -> dict[str, Path]:
    """Zips of every kind of agent, each as its algorithm leaves it."""
    folder = tmp_path_factory.mktemp("agents")
    kwargs = {"n_teacher_episodes": 0, "learning_starts": 64, "seed": 0, "device": "cpu"}
    pd = PolicyDistillation("MlpPolicy", "CartPole-v1", cartpole_teacher, policy_kwargs={"net_arch": [16]}, **kwargs)
    pd.learn(100).save(folder / "pd")
    ppo_teacher.save(folder / "ppo")
    gaussian_teacher.save(folder / "a2c")
    make(ppo_teacher).learn(100).save(folder / "qpd")
    run = folder / "rtpd"
    rtpd = RealTimeDistillDQN(
        "MlpPolicy",
        "CartPole-v1",
        {"small": {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [8]}}},
        learning_starts=16,
        buffer_size=200,
        eval_freq=-1,
        results_dir=str(run),
        seed=0,
        device="cpu",
    )
    rtpd.learn(64).save(run / "CartPole-v1")
    return {
        **{name: folder / f"{name}.zip" for name in ("pd", "ppo", "a2c", "qpd")},
        "dqn": cartpole_teacher,
        "rtpd": run / "CartPole-v1.zip",
        "student of rtpd": run / "students/small/pd/CartPole-v1_1",
    }


@pytest.mark.parametrize("name", ["pd", "ppo", "a2c", "qpd", "dqn", "rtpd", "student of rtpd"])
def test_agents_of_every_kind_are_quantized_on_their_own_episodes(agents, name):
    agent = load_teacher(agents[name], device="cpu")
    env_id = "Pendulum-v1" if name == "a2c" else "CartPole-v1"
    observations = record_observations(agent, env_id, 200).values
    expected, _ = agent.predict(observations)
    errors = []
    for bits in (8, 2):
        quantized = quantize_agent(agents[name], bits, bits, env_id, n_observations=200)
        assert {int(layer.weight_quantizer.bits) for layer in quantized_layers(quantized.policy)} == {bits}
        assert quantized.n_bytes < agent.n_bytes and quantized.algo == agent.algo
        actions, _ = quantized.predict(observations)
        errors.append(np.abs(actions - expected).mean())
    assert errors[0] <= errors[1] and errors[0] < 0.3
    assert not quantized_layers(agent.policy)


def test_frames_stay_as_they_are(monkeypatch):
    spec = EnvSpec("Frames-v0", FakeImageEnv, kwargs={"screen_height": 36, "screen_width": 36, "n_channels": 4})
    monkeypatch.setitem(gym.registry, spec.id, spec)
    student = student_model("Net5Policy", {}, spaces.Box(0, 255, (4, 36, 36), np.uint8), spaces.Discrete(6), "cpu")
    quantized = quantize_agent(student, 4, 4, spec.id, n_observations=8)
    assert [layer.input_quantizer is None for layer in quantized_layers(quantized.policy)] == [True, *[False] * 4]


def test_what_cannot_be_quantized_is_named(agents, ppo_teacher, tmp_path: Path):
    for bits, message in (((1, 8), "weight_bits must be a whole number"), ((8, 9.0), "activation_bits must be a")):
        with pytest.raises(ValueError, match=message):
            quantize_agent(agents["dqn"], *bits, "CartPole-v1")
    with pytest.raises(AgentError, match="quantized already"):
        quantize_agent(make(ppo_teacher, **BITS), 4, 4)
    cases = {
        "Nonsense-v0": "Nonsense-v0 of .* cannot be made.*--gym-packages",
        "LunarLander-v2": "cannot be made.*LunarLander-v3",
        "Pendulum-v1": "cannot play Pendulum-v1: it was trained with observations",
    }
    for env_id, message in cases.items():
        with pytest.raises(ValueError, match=message):
            quantize_agent(agents["dqn"], 8, 8, env_id)
    dictionary = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (2,))})
    for policy, space in (("MultiInputPolicy", dictionary), ("MlpPolicy", spaces.Discrete(4))):
        student = student_model(policy, {}, space, spaces.Discrete(2), "cpu")
        with pytest.raises(AgentError, match="is no chain of layers: its features extractor is"):
            quantize_agent(student, 8, 8, "CartPole-v1")
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu").save(tmp_path / "agent")
    with pytest.raises(AgentError, match=r"does not say its environment: name it with --env \(in Python, env_id=\)"):
        quantize_agent(tmp_path / "agent.zip", 8, 8)


def test_export_takes_bits(agents, tmp_path: Path, capsys):
    command = [str(agents["student of rtpd"]), "-o", str(tmp_path), "--n-observations", "60"]
    assert export([*command, "--bits", "3", "--max-disagreement", "1"]) == 0
    graph = onnx.load(tmp_path / "policy_int.onnx").graph
    assert (tmp_path / "policy.onnx").is_file()
    assert sum(item.data_type == onnx.TensorProto.INT4 for item in graph.initializer) == 2
    with pytest.raises(SystemExit):
        export([*command, "--bits", "9"])
    assert "--bits must be between 2 and 8, not 9" in capsys.readouterr().err
