"""Writes an agent as files that run without Python's reinforcement learning: ONNX, a description, a runner."""

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor

from sb3_distill.common.archive import TeacherError
from sb3_distill.common.evaluation import is_atari, make_eval_env
from sb3_distill.common.layers import acting_modules
from sb3_distill.common.quantization import calibrate, quantize, quantized_layers, set_blend
from sb3_distill.common.teacher_policies import copy_policy
from sb3_distill.common.teachers import ActorCriticTeacher, Teacher, load_teacher
from sb3_distill.export import runner
from sb3_distill.export.graph import OPSET, build_graph, check_opset

FLOAT_FILE, INTEGER_FILE = "policy.onnx", "policy_int.onnx"


class ExportError(ValueError):
    """An exported policy does not do what the agent does."""


def record_observations(agent: Teacher, env_id: str, n_observations: int, seed: int = 0) -> np.ndarray:
    """
    Let an agent play, with a tenth of random actions so that it sees more than its own ways.

    :param agent: a loaded agent
    :param env_id: its environment
    :param n_observations: how many observations
    :param seed: of the environment and the random actions
    :return: raw observations ``(n_observations, ...)``
    """
    assert agent.observation_space.shape is not None
    frame_stack = agent.observation_space.shape[0] if is_atari(env_id) else 1
    venv = make_eval_env(env_id, 4, frame_stack)
    venv.seed(seed)
    venv.action_space.seed(seed)
    rng = np.random.default_rng(seed)
    obs: Any = venv.reset()
    recorded: list[np.ndarray] = []
    while len(recorded) * venv.num_envs < n_observations:
        recorded.append(obs)
        actions, _ = agent.predict(obs)
        for env in np.flatnonzero(rng.random(venv.num_envs) < 0.1):
            actions[env] = venv.action_space.sample()
        obs, *_ = venv.step(actions)
    venv.close()
    return np.concatenate(recorded)[:n_observations]


@th.no_grad()
def to_integers(agent: Teacher, observations: np.ndarray, bits: int = 8) -> Teacher:
    """
    :param agent: a loaded agent
    :param observations: raw observations that choose the step sizes
    :param bits: precision of weights and activations
    :return: a quantized copy; the agent itself where it is quantized already
    """
    if quantized_layers(agent.policy):
        return agent
    copied = type(agent)(
        copy_policy(agent.policy),
        agent.algo,
        agent.source,
        agent.sha256,
        agent.env_id,
        agent.normalization,
    )
    quantize(
        copied.policy,
        acting_modules(copied),
        lambda position, n_layers, layer: bits,
        # Frames are exact; the entries of a vector have scales too different for one step size.
        lambda position, n_layers, layer: None if position == 0 else bits,
    )
    tensors = obs_as_tensor(observations, copied.device)

    def run() -> Any:
        if isinstance(copied, ActorCriticTeacher):
            return copied.distribution(tensors)
        return copied.logits(tensors)

    calibrate(copied.policy, run)
    set_blend(copied.policy, 1.0)
    return copied


def disagreement(player: runner.PolicyRunner, agent: Teacher, observations: np.ndarray) -> float:
    """
    :param player: the exported policy
    :param agent: the agent
    :param observations: raw observations
    :return: share of them at which the two choose another action; continuous actions differ where they are further
        apart than 1% of their range
    """
    exported, _ = player.predict(observations)
    actions, _ = agent.predict(observations)
    if isinstance(agent.action_space, spaces.Box):
        span = agent.action_space.high - agent.action_space.low
        apart = np.abs(exported.reshape(actions.shape) - actions) > 0.01 * span
        return float(apart.reshape(len(actions), -1).any(axis=1).mean())
    return float((exported != actions).mean())


def _describe(agent: Teacher, env_id: str, opset: int) -> dict[str, Any]:
    space, actions = agent.observation_space, agent.action_space
    assert isinstance(space, spaces.Box)
    described: dict[str, Any] = {
        "source": agent.source,
        "sha256": agent.sha256,
        "algo": agent.algo,
        "env_id": env_id,
        "observation": {"shape": list(space.shape), "dtype": str(space.dtype)},
        "frame_stack": space.shape[0] if is_atari(env_id) else 1,
        "opset": opset,
    }
    if isinstance(actions, spaces.Discrete):
        described["action"] = {"n": int(actions.n)}
        env = gym.make(env_id)
        if hasattr(env.unwrapped, "get_action_meanings"):
            described["action"]["labels"] = env.unwrapped.get_action_meanings()
        env.close()
    else:
        assert isinstance(actions, spaces.Box)
        described["action"] = {
            "shape": list(actions.shape),
            "low": actions.low.tolist(),
            "high": actions.high.tolist(),
        }
    return described


@th.no_grad()
def export_agent(
    source: str | Path | Teacher,
    folder: str | Path,
    env_id: str | None = None,
    n_observations: int = 1_000,
    max_disagreement: float = 0.01,
    opset: int = OPSET,
) -> dict[str, Any]:
    """
    Write an agent as ``policy.onnx`` (float32), ``policy_int.onnx`` (weights stored as integers), ``policy.json`` and
    ``runner.py``. Students of ``QPD`` are integers already and have the second file alone.

    :param source: what ``load_teacher`` takes
    :param folder: where the files go
    :param env_id: the environment that checks the files, by default the agent's own
    :param n_observations: observations that they are checked on
    :param max_disagreement: share of them at which an exported policy may choose another action than the agent
    :param opset: version of ONNX's operators, 18 to 21
    :return: what ``policy.json`` says
    :raises TeacherError: the agent cannot be loaded or has parts that cannot be exported
    :raises ExportError: a file would disagree with the agent more often; that one is not written, the others are
    """
    check_opset(opset)
    agent = load_teacher(source, device="cpu")
    env_id = env_id or agent.env_id
    if env_id is None:
        raise TeacherError(f"{agent.source} does not say its environment: name it with --env.")
    observations = record_observations(agent, env_id, n_observations)
    models: dict[str, onnx.ModelProto] = {}
    if not quantized_layers(agent.policy):
        models[FLOAT_FILE] = build_graph(agent, opset)
    models[INTEGER_FILE] = build_graph(to_integers(agent, observations), opset)

    description: dict[str, Any] = {**_describe(agent, env_id, opset), "n_observations": len(observations), "files": {}}
    refused = []
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        data = model.SerializeToString()
        share = disagreement(runner.PolicyRunner(data), agent, observations)
        if share > max_disagreement:
            refused.append(f"{name} would choose another action than {agent.source} at {share:.1%}")
            continue
        (folder / name).write_bytes(data)
        description["files"][name] = {"bytes": len(data), "disagreement": share}
    (folder / "policy.json").write_text(json.dumps(description, indent=2) + "\n")
    shutil.copy(runner.__file__, folder / "runner.py")
    if refused:
        raise ExportError(
            f"Not written: {'; '.join(refused)} of {len(observations)} observations, more than the "
            f"{max_disagreement:.1%} that max_disagreement allows. Train a student with quantization (--algo qpd), or "
            "allow more."
        )
    return description
