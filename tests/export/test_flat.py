"""Agents on Dict observations of vectors, exported with the parts in a row."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_distill import QPD, load_teacher
from sb3_distill.agents.chain import count_macs
from sb3_distill.agents.files import AgentError
from sb3_distill.cli import main
from sb3_distill.evaluation.environments import make_env_of
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.export.bench import bench_folder, mean_return, read_description
from sb3_distill.export.c.build import find_compiler
from sb3_distill.export.cli import main as export
from sb3_distill.export.export import export_agent
from sb3_distill.export.flat import flattened, parts_of, sizes_of
from sb3_distill.export.integer_policy import IntegerPolicy
from sb3_distill.export.runner import PolicyRunner

PPO_KWARGS = {"n_steps": 8, "batch_size": 8, "seed": 0, "device": "cpu"}


class Parts(gym.ObservationWrapper):
    """Pendulum whose observation has three parts: of two types, with one axis or two."""

    def __init__(self) -> None:
        super().__init__(gym.make("Pendulum-v1", max_episode_steps=20))
        self.observation_space = spaces.Dict(
            {
                "speed": spaces.Box(-8, 8, (1,), np.float64),
                "angle": spaces.Box(-1, 1, (1, 2), np.float32),
                "useless": spaces.Box(-np.inf, np.inf, (1,), np.float32),
            }
        )

    def observation(self, observation):
        return {
            "speed": observation[2:].astype(np.float64),
            "angle": observation[None, :2],
            "useless": observation[:1] * 100,
        }


@pytest.fixture(autouse=True)
def registered():
    gym.register("Parts-v0", Parts)
    yield
    del gym.registry["Parts-v0"]


def batch_of(space: spaces.Dict, n: int) -> dict[str, np.ndarray]:
    space.seed(0)
    samples = [space.sample() for _ in range(n)]
    return {key: np.stack([sample[key] for sample in samples]) for key in space}


@pytest.mark.parametrize("algorithm", [PPO, SAC])
@pytest.mark.parametrize("normalized", [False, True])
def test_the_flat_agent_acts_as_the_whole_one(algorithm, normalized):
    env = make_vec_env("Parts-v0", 2)
    env = VecNormalize(env, clip_obs=2.0) if normalized else env
    kwargs = PPO_KWARGS if algorithm is PPO else {"buffer_size": 100, "seed": 0, "device": "cpu"}
    model = algorithm("MultiInputPolicy", env, **kwargs)
    env.reset()
    for _ in range(20):
        env.step(np.array([env.action_space.sample() for _ in range(2)]))
    agent = load_teacher(model)
    flat = flattened(agent)
    assert isinstance(flat.observation_space, spaces.Box) and flat.observation_space.shape == (4,)
    assert flat.observation_space.dtype == np.float64 and flat.n_parameters == agent.n_parameters
    whole = batch_of(model.observation_space, 50)
    rows = np.concatenate([whole[key].reshape(50, -1) for key in flat.facts.flat_keys], axis=1)
    assert np.allclose(flat.predict(rows)[0], agent.predict(whole)[0], atol=1e-6)
    assert flattened(flat) is flat and isinstance(agent.observation_space, spaces.Dict)
    sizes = sizes_of(agent.observation_space, flat.facts.flat_keys)
    for key, part in parts_of(rows, agent.observation_space, sizes).items():
        assert np.array_equal(part, whole[key]) and part.dtype == whole[key].dtype


def test_a_student_of_several_keys_becomes_onnx_and_c(tmp_path: Path):
    teacher = PPO("MultiInputPolicy", "Parts-v0", **PPO_KWARGS)
    model = QPD(
        "MultiInputPolicy",
        make_vec_env("Parts-v0", 4),
        teacher,
        student_keys=["speed", "angle"],
        policy_kwargs={"net_arch": {"pi": [16], "vf": []}},
        **dict.fromkeys(("weight_bits", "activation_bits", "first_layer_bits", "last_layer_bits"), 8),
        learning_starts=100,
        seed=0,
        device="cpu",
    ).learn(800)
    model.save(tmp_path / "student")
    description = export_agent(
        tmp_path / "student.zip", tmp_path / "out", "Parts-v0", n_observations=300, formats=("onnx", "c")
    )
    own = load_teacher(tmp_path / "student.zip", device="cpu")
    assert (description.sha256, description.observation.shape) == (own.sha256, [3])
    parts = description.observation.parts
    assert parts is not None and sum(parts.values()) == 3 and set(parts) == {"speed", "angle"}
    assert description.n_parameters == own.n_parameters
    readme = (tmp_path / "out" / "README.md").read_text()
    assert f"An observation is these parts in a row: {', '.join(f'`{k}` ({n})' for k, n in parts.items())}." in readme
    # Whoever reads the folder plays in the same environment.
    read = read_description(tmp_path / "out")
    assert read.observation == description.observation
    runner = PolicyRunner(tmp_path / "out" / "policy_int.onnx")
    whole = batch_of(own.observation_space, 200)
    rows = np.concatenate([whole[key].reshape(200, -1) for key in parts], axis=1)
    actions = own.predict(whole)[0]
    assert np.mean(np.abs(runner.predict(rows)[0] - actions) < 0.04) > 0.99
    in_integers = IntegerPolicy.load(tmp_path / "out" / "policy.npz")
    assert np.mean(np.abs(in_integers.predict(rows)[0] - actions) < 0.04) > 0.95

    expected = evaluate_paired(own, lambda n_envs: make_env_of(own, "Parts-v0", n_envs), 3).mean
    assert mean_return(flattened(own), read, 3) == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler")
def test_bench_plays_it(tmp_path: Path):
    DQN("MultiInputPolicy", make_env_of_two(), buffer_size=10, seed=0, device="cpu").save(tmp_path / "agent")
    try:
        arguments = [str(tmp_path / "agent.zip"), "-o", str(tmp_path / "out"), "--env", "Two-v0", "--format", "c"]
        assert export([*arguments, "--n-observations", "60"]) == 0
        rows = {row.kind: row for row in bench_folder(tmp_path / "out", "out", 5, 2)}
        assert set(rows) == {"C", "torch"} and rows["torch"].memory is not None
        agent = load_teacher(tmp_path / "agent.zip", device="cpu")
        expected = evaluate_paired(agent, lambda n_envs: make_env_of(agent, "Two-v0", n_envs), 2).mean
        assert rows["torch"].mean_return == expected
    finally:
        del gym.registry["Two-v0"]


class Two(gym.ObservationWrapper):
    """CartPole in two parts."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1", max_episode_steps=20))
        part = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = spaces.Dict({"cart": part, "pole": part})

    def observation(self, observation):
        return {"cart": observation[:2], "pole": observation[2:]}


def make_env_of_two() -> str:
    gym.register("Two-v0", Two)
    return "Two-v0"


def test_what_has_no_row_is_refused_by_name(tmp_path: Path):
    env = VecNormalize(make_vec_env("Parts-v0", 1), norm_obs_keys=["angle"])
    model = PPO("MultiInputPolicy", env, **PPO_KWARGS)
    with pytest.raises(AgentError, match=r"normalizes some keys .* but not 'speed', 'useless'. Train it with all"):
        flattened(load_teacher(model))
    run = tmp_path / "ppo" / "Parts-v0_1"
    (run / "Parts-v0").mkdir(parents=True)
    (run / "Parts-v0" / "config.yml").write_text(json.dumps({"frame_stack": 2}))
    (run / "Parts-v0" / "args.yml").write_text(json.dumps({"algo": "ppo", "env": "Parts-v0"}))
    PPO("MultiInputPolicy", VecFrameStack(make_vec_env("Parts-v0", 1), 2), **PPO_KWARGS).save(run / "Parts-v0")
    for form in ("onnx", "c"):
        with pytest.raises(AgentError, match="Dict observations are stacked part by part"):
            export_agent(run, tmp_path / "out", n_observations=40, formats=(form,))


QUICK = {
    "learning_starts": 10,
    "buffer_size": 60,
    "n_teacher_episodes": 1,
    "value_coef": 0.0,
    "device": "cpu",
    "seed": 0,
}


def test_what_takes_the_parts_in_a_row_comes_back_as_a_teacher(tmp_path, capsys):
    model = PPO("MultiInputPolicy", "Parts-v0", **PPO_KWARGS)
    path = tmp_path / "out" / "policy.onnx"
    described = export_agent(model, path.parent, n_observations=40, max_disagreement=1.0)
    student = QPD("MultiInputPolicy", "Parts-v0", str(path), **QUICK).learn(30)
    obs = {key: np.array(part[:20, 0]) for key, part in student.replay_buffer.stores.items()}
    expected = model.predict(obs, deterministic=True)[0]
    assert np.allclose(2 * student.replay_buffer.answers["point"][:20, 0], expected, atol=1e-5)
    # With an environment it takes the parts, wherever it plays; without one a row, in the wrappers of its export.
    whole, row = load_teacher(path, env_id="Parts-v0", device="cpu"), load_teacher(path, device="cpu")
    assert whole.observation_space == model.observation_space and row.observation_space.shape == (4,)
    assert whole.sha256 == row.sha256 and count_macs(whole) == count_macs(row) == described.macs
    assert np.allclose(whole.predict(obs)[0], expected, atol=1e-5)
    played = [
        evaluate_paired(each, lambda n, each=each: make_env_of(each, "Parts-v0", n), 2, seed=0).returns
        for each in (whole, row)
    ]
    assert played[0] == played[1]
    student.save(tmp_path / "student")
    assert main(["evaluate", str(tmp_path / "student.zip"), "--env", "Parts-v0", "-n", "2"]) == 0
    assert "policy.onnx" in capsys.readouterr().out
    with pytest.raises(ValueError, match="Pass its path, or load it with env=: it then takes the parts"):
        QPD("MultiInputPolicy", "Parts-v0", row, **QUICK)


def test_a_file_for_other_parts_is_refused(tmp_path):
    model = QPD(
        "MultiInputPolicy",
        "Parts-v0",
        PPO("MultiInputPolicy", "Parts-v0", **PPO_KWARGS),
        **QUICK,
        student_keys=["speed", "angle"],
        weight_bits=None,
    )
    model.save(tmp_path / "student")
    path = tmp_path / "out" / "policy_int.onnx"
    export_agent(tmp_path / "student.zip", path.parent, "Parts-v0", n_observations=40, max_disagreement=1.0)
    # It sees two of three keys.
    with pytest.raises(ValueError, match="angle, speed, useless: name with teacher_keys what the teacher sees"):
        QPD("MultiInputPolicy", "Parts-v0", str(path), **QUICK)
    assert QPD("MultiInputPolicy", "Parts-v0", str(path), **QUICK, teacher_keys=["speed", "angle"]).learn(20)._n_updates
    said = r"takes these parts of Dict observations in a row \(with so many numbers\): angle \(2\), speed \(1\)\."
    with pytest.raises(AgentError, match=said):
        QPD("MultiInputPolicy", "Parts-v0", str(path), **QUICK, teacher_keys=["speed", "useless"])
    stacked = VecFrameStack(make_vec_env("Parts-v0", 2), 2)
    with pytest.raises(AgentError, match=said):
        QPD("MultiInputPolicy", stacked, str(path), **QUICK)
