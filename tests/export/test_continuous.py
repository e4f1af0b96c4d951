"""Actors of all kinds with continuous actions as ONNX."""

from typing import Any

import numpy as np
import pytest
from sb3_contrib import ARS, TQC, CrossQ
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_distill import load_teacher
from sb3_distill.export.graph import build_graph
from sb3_distill.export.post_training import quantize_on
from sb3_distill.export.runner import PolicyRunner
from tests.agents.test_continuous_teachers import Arm, make, observations, random_weights

GSDE_PPO = {"use_sde": True, "policy_kwargs": {"squash_output": True, "net_arch": [4]}, "device": "cpu"}
AGENTS: dict[str, Any] = {
    "sac": lambda: make(SAC),
    "tqc with gsde": lambda: make(TQC, {"clip_mean": 0.5}, use_sde=True),
    "crossq": lambda: make(CrossQ).learn(40),
    "td3": lambda: make(TD3),
    "ars": lambda: make(ARS),
    "linear ars": lambda: ARS("LinearPolicy", DummyVecEnv([Arm]), zero_policy=False, seed=0),
    "squashed ppo": lambda: PPO("MlpPolicy", DummyVecEnv([Arm]), **GSDE_PPO),
}


@pytest.mark.parametrize("name", AGENTS)
def test_graphs_act_as_their_agents(name):
    model = AGENTS[name]()
    if name != "crossq":
        random_weights(model.policy)
    agent, obs = load_teacher(model, device="cpu"), observations(40)
    quantized = quantize_on(obs, agent, 8, 8, None)
    bounds = agent.action_space
    for policy, tolerance in ((agent, 1e-5), (quantized, 0.05 * (bounds.high - bounds.low))):
        actions, _ = PolicyRunner(build_graph(policy).SerializeToString()).predict(obs)
        expected, _ = policy.predict(obs)
        apart = np.abs(actions - expected)
        # A value on the border between two levels may fall to either side.
        assert np.median(apart) < 1e-5 and (apart <= tolerance).all()
        assert np.ptp(expected) > 0
