"""Against what an export is checked."""

import json
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.export.cli import main as export
from sb3_distill.export.export import FLOAT_FILE, ExportError, export_agent
from sb3_distill.export.runner import PolicyRunner

BITS = spaces.Box(0, 1, (3, 5, 5), np.uint8)


class Bits(gym.Env):
    observation_space = BITS
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = 0
        return self._obs(), {}

    def step(self, action):
        self.n += 1
        return self._obs(), 0.0, self.n == 8, False, {}

    def _obs(self):
        return self.np_random.integers(0, 2, BITS.shape, np.uint8)


@pytest.fixture(autouse=True)
def registered():
    gym.register("Bits-v0", Bits)
    gym.register(
        "Pixels-v0",
        lambda: gym.wrappers.TransformObservation(Bits(), np.copy, spaces.Box(0, 255, BITS.shape, np.uint8)),
    )
    yield
    del gym.registry["Bits-v0"], gym.registry["Pixels-v0"]


def rewrite(path: Path, **attributes: str) -> None:
    """State another space beside the pickle of a saved model."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"])
    data["observation_space"] |= attributes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "data": json.dumps(data)}.items():
            archive.writestr(name, content)


@pytest.fixture
def misread(tmp_path: Path) -> Path:
    """An agent on bits whose file states bytes, which SB3 divides by 255."""
    path = tmp_path / "Bits-v0.zip"
    DQN("MlpPolicy", "Bits-v0", buffer_size=10, seed=0, device="cpu", policy_kwargs={"net_arch": [16]}).save(path)
    rewrite(path, high=str(np.full(BITS.shape, 255, np.uint8)))
    return path


def test_an_agent_that_is_read_with_another_space_is_refused(misread: Path, tmp_path: Path):
    pattern = r"with the observations Box\(0, 255, .*but Bits-v0 has Box\(0, 1, .*--env .*--allow-pickle"
    with pytest.raises(ExportError, match=pattern):
        export_agent(misread, tmp_path / "out", n_observations=40)
    assert not (tmp_path / "out").exists()
    description = export_agent(misread, tmp_path / "out", "Pixels-v0", n_observations=40, max_disagreement=1.0)
    assert description.checked_against == "the agent as rebuilt, with the spaces of its environment"


def test_an_unpickled_agent_is_checked_as_sb3_loads_it(misread: Path, tmp_path: Path):
    arguments = [str(misread), "-o", str(tmp_path / "out"), "--allow-pickle", "--n-observations", "40"]
    assert export([*arguments, "--max-disagreement", "1"]) == 0
    description = json.loads((tmp_path / "out" / "policy.json").read_text())
    assert description["checked_against"] == "the agent as SB3 runs it" and description["observation"]["high"] == 1
    obs = np.stack([BITS.sample() for _ in range(40)])
    expected, _ = DQN.load(misread, device="cpu").predict(obs, deterministic=True)
    assert np.array_equal(PolicyRunner(tmp_path / "out" / FLOAT_FILE).predict(obs)[0], expected)


@pytest.mark.parametrize("contrary", [False, True])
def test_a_model_in_memory_is_asked_itself(contrary, tmp_path: Path):
    class PPOAgent(PPO):
        def predict(self, *arguments, **keywords):
            actions, state = super().predict(*arguments, **keywords)
            return 1 - actions if contrary else actions, state

    env = VecNormalize(make_vec_env("CartPole-v1"))
    model = PPOAgent("MlpPolicy", env, n_steps=64, batch_size=64, seed=0, device="cpu").learn(64)
    if contrary:
        with pytest.raises(ExportError, match=r"policy.onnx would choose another action than PPOAgent model at 100"):
            export_agent(model, tmp_path, n_observations=40)
    else:
        description = export_agent(model, tmp_path, n_observations=40, max_disagreement=0.2)
        assert description.checked_against == "the agent as SB3 runs it"
        assert description.files[FLOAT_FILE].disagreement == 0.0


def test_a_student_is_unpickled_too(cartpole_teacher: Path, tmp_path: Path):
    student = PolicyDistillation(
        "MlpPolicy", "CartPole-v1", cartpole_teacher, n_teacher_episodes=0, policy_kwargs={"net_arch": [8]}, seed=0
    )
    student.learn(100).save(tmp_path / "CartPole-v1")
    agent = load_teacher(tmp_path / "CartPole-v1.zip", allow_pickle=True, device="cpu")
    assert not agent.facts.is_rebuilt and agent.facts.taught_by == str(cartpole_teacher)
    obs = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    assert np.array_equal(agent.predict(obs)[0], student.predict(obs, deterministic=True)[0])


def test_action_bounds_that_differ_are_refused(tmp_path: Path):
    model = PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, seed=0, device="cpu")
    model.action_space = spaces.Box(-1, 1, (1,))
    model.save(tmp_path / "Pendulum-v1")
    with pytest.raises(ValueError, match=r"actions go from \[-1.0\] .*, those of the environment from \[-2.0\]"):
        export_agent(tmp_path / "Pendulum-v1.zip", tmp_path / "out", n_observations=40)


def test_a_dict_with_channels_first_images_is_refused_as_what_it_is(tmp_path: Path):
    """Found by tests/test_properties.py: the check of the spaces tried to transpose it."""
    space = spaces.Dict({"image": spaces.Box(0, 255, (1, 36, 40), np.uint8)})
    gym.register("Camera-v0", lambda: gym.wrappers.TransformObservation(Bits(), lambda obs: space.sample(), space))
    try:
        DQN("MultiInputPolicy", "Camera-v0", buffer_size=10, device="cpu").save(tmp_path / "Camera-v0")
        with pytest.raises(AgentError, match="is no chain of layers"):
            export_agent(tmp_path / "Camera-v0.zip", tmp_path / "out", n_observations=8)
    finally:
        del gym.registry["Camera-v0"]


def test_a_file_in_the_place_of_the_folder_is_refused_before_the_agent_is_read(tmp_path, capsys):
    (tmp_path / "notes").touch()
    assert export([str(tmp_path / "no_agent.zip"), "-o", str(tmp_path / "notes")]) == 1
    assert f"{tmp_path / 'notes'} is a file, not a folder" in capsys.readouterr().err


def test_an_export_that_is_refused_leaves_no_empty_folder(tmp_path: Path):
    # Q-values that 2 bits do not tell apart
    DQN("MlpPolicy", "Bits-v0", buffer_size=10, seed=0, device="cpu").save(tmp_path / "agent")
    with pytest.raises(ExportError, match="written: no file"):
        export_agent(tmp_path / "agent.zip", tmp_path / "new" / "out", "Bits-v0", 40, 0.0, bits=2, formats=["c"])
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]


@pytest.mark.parametrize("name", ["README.md", "policy.c", "runner.py", "policy.json"])
def test_files_of_somebody_else_stay(name: str, tmp_path: Path, capsys):
    DQN("MlpPolicy", "Bits-v0", buffer_size=10, device="cpu", policy_kwargs={"net_arch": [4]}).save(tmp_path / "agent")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / name).write_text("mine")
    command = [str(tmp_path / "agent.zip"), "--env", "Bits-v0", "--n-observations", "8", "--max-disagreement", "1"]
    assert export([*command, "-o", str(folder)]) == 1
    said = capsys.readouterr().err
    assert f"{folder} holds other files, of which {name} would be replaced: name a folder that is empty or new" in said
    assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_text() == "mine"
    # Our own are.
    for _ in range(2):
        assert export([*command, "-o", str(tmp_path / "own")]) == 0
    with pytest.raises(SystemExit):
        export([*command, "-o", str(tmp_path / "own"), "--opset", "5"])
    assert "--opset must be between 18 and 21, not 5" in capsys.readouterr().err
