import csv
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.base.students import student_model
from sb3_distill.export import runner
from sb3_distill.export.bench import bench_folder, mean_return, open_file
from sb3_distill.export.cli import main as export
from sb3_distill.export.cost import BenchRow, plot_returns
from sb3_distill.export.export import FLOAT_FILE, INTEGER_FILE, ExportError, _bound, disagreement, export_agent
from sb3_distill.export.graph import build_graph
from sb3_distill.export.post_training import quantize_on
from sb3_distill.export.runner import PolicyRunner
from sb3_distill.quantization.layers import set_blend
from tests.helpers import FRAMES, preferences, run_python

SMALL = {"policy_kwargs": {"net_arch": [16]}, "seed": 0, "device": "cpu"}
CARTPOLE = spaces.Box(-np.inf, np.inf, (4,))
GRID = spaces.Box(0, 1, (10, 10, 4), bool)
BYTE_GRID = spaces.Box(0, 255, (7, 7, 3), np.uint8)


def normalized_ppo() -> PPO:
    env = VecNormalize(make_vec_env("CartPole-v1"))
    return PPO("MlpPolicy", env, n_steps=64, batch_size=64, **SMALL).learn(128)


def image_student(policy: str) -> PolicyDistillation:
    student = student_model(policy, {}, FRAMES, spaces.Discrete(6), "cpu")
    frames = np.random.default_rng(1).integers(0, 255, size=(20, *FRAMES.shape), dtype=np.uint8)
    student.policy.fit_frame_scalers(th.as_tensor(frames))
    return student


AGENTS = {
    "dqn": lambda: DQN("MlpPolicy", "CartPole-v1", buffer_size=10, **SMALL),
    "qrdqn": lambda: QRDQN("MlpPolicy", "CartPole-v1", buffer_size=10, **SMALL),
    "normalized ppo": normalized_ppo,
    "gaussian a2c": lambda: A2C("MlpPolicy", "Pendulum-v1", **SMALL),
    "net5": lambda: image_student("Net5Policy"),
    "max-pool": lambda: image_student("MaxPoolCnnPolicy"),
    "grid": lambda: student_model("GridCnnPolicy", {}, GRID, spaces.Discrete(3), "cpu"),
    # SB3 divides images by 255 whatever comes behind
    "grid of bytes": lambda: student_model("GridCnnPolicy", {}, BYTE_GRID, spaces.Discrete(3), "cpu"),
    "flat image": lambda: student_model("MlpPolicy", {}, BYTE_GRID, spaces.Discrete(3), "cpu"),
}


def raw_observations(agent: Teacher, n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (n, *agent.observation_space.shape)
    if agent.observation_space.dtype == np.uint8:
        return rng.integers(0, 255, size=shape, dtype=np.uint8)
    return (
        rng.normal(size=shape).astype(np.float32) if agent.observation_space.dtype != bool else rng.random(shape) > 0.5
    )


def logits_of(agent: Teacher, observations: np.ndarray) -> np.ndarray:
    tensors = th.as_tensor(observations)
    if isinstance(agent.action_space, spaces.Box):
        return agent.answer(tensors)[0].gaussian.mean.numpy()
    if agent.algo in ("ppo", "qpd"):
        # The graph gives them before the softmax
        return (
            agent.policy.action_net(
                agent.policy.mlp_extractor.forward_actor(
                    agent.policy.extract_features(agent.normalize(tensors), agent.policy.pi_features_extractor)
                )
            )
            .detach()
            .numpy()
        )
    return preferences(agent, tensors).numpy()


@pytest.mark.parametrize("name", AGENTS)
def test_float_graphs_compute_what_the_agent_does(name):
    agent = load_teacher(AGENTS[name](), device="cpu")
    observations = raw_observations(agent)
    actions, logits = PolicyRunner(build_graph(agent).SerializeToString()).predict(observations)
    assert np.allclose(logits, logits_of(agent, observations), atol=1e-4)
    expected, _ = agent.predict(observations)
    assert np.allclose(actions, expected, atol=1e-4)


@pytest.mark.parametrize("name", AGENTS)
def test_integer_graphs_compute_what_the_quantized_policy_does(name):
    agent = load_teacher(AGENTS[name](), device="cpu")
    observations = raw_observations(agent)
    quantized = quantize_on(observations, agent, 8, 8, None)
    graph = build_graph(quantized)
    weights = [item for item in graph.graph.initializer if item.data_type == onnx.TensorProto.INT8 and item.dims]
    assert len(weights) >= 2
    _, logits = PolicyRunner(graph.SerializeToString()).predict(observations)
    expected = logits_of(quantized, observations)
    # A value on the border between two levels may fall to either side.
    assert np.median(np.abs(logits - expected)) <= 1e-3 * np.abs(expected).max()
    assert np.abs(logits - expected).max() <= 0.1 * np.abs(expected).max() + 1e-6


@pytest.fixture(scope="module")
def few_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    teacher = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=1, device="cpu")
    bits = dict.fromkeys(("weight_bits", "activation_bits", "first_layer_bits", "last_layer_bits"), 4)
    kwargs = {"policy_kwargs": {"net_arch": {"pi": [64], "vf": [8]}}, "n_teacher_episodes": 0, "learning_starts": 64}
    model = QPD("MlpPolicy", "CartPole-v1", teacher, **bits, **kwargs, seed=0, device="cpu").learn(600)
    set_blend(model.policy, 1.0)
    path = tmp_path_factory.mktemp("few") / "CartPole-v1.zip"
    model.save(path)
    return path


def test_weights_of_one_sign_keep_it_in_the_file():
    model = A2C("MlpPolicy", "Pendulum-v1", **SMALL)
    with th.no_grad():
        model.policy.action_net.weight.abs_()
    agent = load_teacher(model, device="cpu")
    observations = raw_observations(agent)
    for bits in (8, 4):
        quantized = quantize_on(observations, agent, bits, 8, None)
        _, logits = PolicyRunner(build_graph(quantized).SerializeToString()).predict(observations)
        expected = logits_of(quantized, observations)
        assert np.abs(logits - expected).max() <= 0.1 * np.abs(expected).max() + 1e-6


def test_images_with_their_channels_last(tmp_path: Path):
    gym.register("ChannelsLast-v0", lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=3))
    try:
        model = PPO("CnnPolicy", "ChannelsLast-v0", n_steps=8, batch_size=8, seed=0, device="cpu")
        description = export_agent(load_teacher(model, device="cpu"), tmp_path, None, 20, max_disagreement=1.0)
        assert description.observation.shape == [3, 36, 36]
        assert mean_return(open_file(tmp_path / FLOAT_FILE), description, 1) is not None
    finally:
        gym.registry.pop("ChannelsLast-v0")


def test_four_bits_take_half_a_byte(few_bits):
    agent = load_teacher(few_bits, device="cpu")
    graph = build_graph(agent)
    stored = {tuple(item.dims): item for item in graph.graph.initializer if item.data_type == onnx.TensorProto.INT4}
    assert {shape: len(item.raw_data) for shape, item in stored.items()} == {(64, 4): 128, (2, 64): 64}
    observations = raw_observations(agent, 200)
    for unpack in (True, False):
        _, logits = PolicyRunner(graph.SerializeToString(), unpack=unpack).predict(observations)
        assert np.median(np.abs(logits - logits_of(agent, observations))) < 1e-5


def test_older_operators(few_bits):
    agent = load_teacher(few_bits, device="cpu")
    graph = build_graph(agent, opset=18)
    assert graph.opset_import[0].version == 18
    assert not [item for item in graph.graph.initializer if item.data_type == onnx.TensorProto.INT4]
    observations = raw_observations(agent, 50)
    newest = PolicyRunner(build_graph(agent).SerializeToString()).predict(observations)[1]
    assert np.allclose(PolicyRunner(graph.SerializeToString()).predict(observations)[1], newest, atol=1e-5)
    for opset in (12, 99):
        with pytest.raises(AgentError, match=rf"version 18 to 21, not {opset}"):
            build_graph(agent, opset=opset)


@pytest.mark.ci
def test_export_writes_files_that_run_alone(few_bits, tmp_path: Path, capsys):
    assert export([str(few_bits), "-o", str(tmp_path / "out"), "--n-observations", "200"]) == 0
    assert "policy_int.onnx" in capsys.readouterr().out
    description = json.loads((tmp_path / "out/policy.json").read_text())
    assert description["env_id"] == "CartPole-v1" and description["action"] == {"n": 2}
    assert description["sha256"] == load_teacher(few_bits).sha256
    assert list(description["files"]) == [INTEGER_FILE]
    np.save(tmp_path / "observation.npy", np.zeros(4, np.float32))
    # The runner imports nothing of ours.
    code = "import sys; sys.modules['sb3_distill'] = sys.modules['torch'] = None; sys.argv = ['runner.py', "
    code += (
        "'out/policy_int.onnx', 'observation.npy']; import runpy; runpy.run_path('out/runner.py', run_name='__main__')"
    )
    assert run_python(tmp_path, "-c", code).stdout.strip() in ("0", "1")
    bench = run_python(tmp_path, "-m", "sb3_distill", "export", "bench", "out", "--n-runs", "20", "-o", "figures")
    assert "out/policy_int.onnx" in bench.stdout and "under torch" in bench.stdout
    with (tmp_path / "figures/bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["integer", "torch"]
    # The same episodes, and no torch in the file's process
    assert rows[0]["return"] == rows[1]["return"] and float(rows[0]["memory"]) < float(rows[1]["memory"]) / 2
    # 64 units, 4 inputs, 2 outputs
    assert {row["macs"] for row in rows} == {str(64 * 4 + 2 * 64)}
    assert (tmp_path / "figures/bench.csv").is_file() and (tmp_path / "figures/bench.png").is_file()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("dqn", "Train a student with quantization (--algo qpd), or allow more."),
        ("ppo", "Train a student with quantization (--algo qpd), or allow more."),
        # A student already
        ("pd", "Use policy.onnx, or allow more."),
    ],
)
def test_files_that_disagree_are_not_written(name, advice, tmp_path: Path):
    makers = {
        "dqn": AGENTS["dqn"],
        "ppo": lambda: PPO("MlpPolicy", "CartPole-v1", **SMALL),
        "pd": lambda: student_model("MlpPolicy", SMALL["policy_kwargs"], CARTPOLE, spaces.Discrete(2), "cpu"),
    }
    th.manual_seed(0)
    agent = load_teacher(makers[name](), device="cpu")
    # Nearly all actions are close calls: eight bits cannot tell them.
    with th.no_grad():
        head = agent.policy.action_net if name == "ppo" else agent.network.q_net[-1]
        head.weight[1] = head.weight[0] + 5e-5 * th.randn(head.in_features, generator=th.Generator().manual_seed(0))
        head.bias[1] = head.bias[0]
    with pytest.raises(
        ExportError, match=rf"policy_int.onnx would choose another action .*; written: .*{FLOAT_FILE}"
    ) as error:
        export_agent(agent, tmp_path, "CartPole-v1", 200, max_disagreement=0.0)
    assert str(error.value).endswith(advice)
    assert (tmp_path / FLOAT_FILE).is_file() and not (tmp_path / INTEGER_FILE).exists()
    assert list(json.loads((tmp_path / "policy.json").read_text())["files"]) == [FLOAT_FILE]
    with pytest.raises(ExportError, match=r"take more bits \(--bits\), or allow more"):
        export_agent(agent, tmp_path, "CartPole-v1", 200, max_disagreement=0.0, bits=2)


class WideActions(gym.Env):
    """An environment whose bounds say nothing of the actions that agents take."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, limit: float) -> None:
        self.action_space = spaces.Box(-limit, limit, (2,), np.float32)


@pytest.mark.parametrize("limit", [1.0, 100.0, float(np.finfo(np.float32).max)])
def test_errors_are_measured_by_what_the_agent_does(limit):
    model = A2C("MlpPolicy", WideActions(limit), **SMALL)
    with th.no_grad():
        model.policy.action_net.weight.mul_(50)
    agent = load_teacher(model, device="cpu")
    observations = raw_observations(agent, 200)
    shares = [
        disagreement(
            PolicyRunner(build_graph(policy).SerializeToString()).predict(observations)[0],
            agent.predict(observations)[0],
            agent.action_space,
        )
        for policy in (agent, quantize_on(observations, agent, 2, 2, None))
    ]
    assert shares[0] == 0.0 and shares[1] > 0.5


def test_description_says_what_there_is(few_bits, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(few_bits.parent)
    agent = load_teacher("CartPole-v1", device="cpu")
    # What an earlier export has left does not stay.
    (tmp_path / FLOAT_FILE).touch()
    (tmp_path / "policy.json").write_text('{"sha256": "", "files": {}}')
    description = export_agent(agent, tmp_path, n_observations=40, max_disagreement=1.0)
    assert not (tmp_path / FLOAT_FILE).exists() and list(description.files) == [INTEGER_FILE]
    assert description.source == str(few_bits.with_suffix("")) and description.sha256 == agent.sha256
    assert description.macs == 64 * 4 + 2 * 64 and description.n_parameters == 64 * 5 + 2 * 65
    # CartPole bounds positions and angles, not velocities, and JSON knows no infinity.
    low, high = description.observation.low, description.observation.high
    assert low[0] == pytest.approx(-4.8) and high[0] == pytest.approx(4.8) and low[1] is high[3] is None
    json.loads((tmp_path / "policy.json").read_text(), parse_constant=pytest.fail)


def test_bounds_of_frames_are_one_number_each():
    assert (_bound(FRAMES.low), _bound(FRAMES.high)) == (0, 255)


def test_bench_of_what_is_there(few_bits, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("sb3_distill.export.bench.peak_memory", lambda *arguments: None)
    student = tmp_path / "student.zip"
    student.write_bytes(few_bits.read_bytes())
    export_agent(student, tmp_path / "out", "CartPole-v1", 40, max_disagreement=1.0)
    # Neither named by policy.json nor measured
    (tmp_path / "out" / FLOAT_FILE).touch()
    kinds = [row.kind for row in bench_folder(tmp_path / "out", "out", 3, 0)]
    assert kinds == ["integer", "torch"] and not capsys.readouterr().err
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, **SMALL).save(student)
    rows = bench_folder(tmp_path / "out", "out", 3, 0)
    assert [row.kind for row in rows] == ["integer"] and rows[0].n_macs == 64 * 4 + 2 * 64
    assert "has changed since the export (sha256" in capsys.readouterr().err
    student.write_bytes(b"nothing")
    bench_folder(tmp_path / "out", "out", 3, 0)
    assert (
        "torch is not measured: " in (message := capsys.readouterr().err) and "cannot be read as an SB3 zip" in message
    )
    description = (tmp_path / "out/policy.json").read_text()
    (tmp_path / "out/policy.json").write_text(json.dumps(json.loads(description) | {"files": {}}))
    with pytest.raises(ExportError, match="no file and no agent to measure"):
        bench_folder(tmp_path / "out", "out", 3, 0)
    (tmp_path / "out/policy.json").write_text(description)
    content = (tmp_path / "out" / INTEGER_FILE).read_bytes()
    (tmp_path / "out" / INTEGER_FILE).write_bytes(content[:100])
    with pytest.raises(ExportError, match=r"policy_int.onnx cannot be run .*: export the agent again"):
        bench_folder(tmp_path / "out", "out", 3, 0)
    (tmp_path / "out/policy.json").write_text(json.dumps(json.loads(description) | {"frame_stack": 0}))
    with pytest.raises(ExportError, match=r"frame_stack must be at least 1, not 0"):
        bench_folder(tmp_path / "out", "out", 3, 0)
    (tmp_path / "out/policy.json").write_text("{}")
    with pytest.raises(ExportError, match=r"policy.json has no .*macs.*: export the agent again"):
        bench_folder(tmp_path / "out", "out", 3, 0)


def test_agents_play_in_the_environment_of_their_training(few_bits, tmp_path: Path):
    run = tmp_path / "qpd" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    (run / "CartPole-v1.zip").write_bytes(few_bits.read_bytes())
    (run / "CartPole-v1" / "args.yml").write_text("env: CartPole-v1\nenv_kwargs: {max_episode_steps: 7}\n")
    description = export_agent(run, tmp_path / "out", None, 40, max_disagreement=1.0)
    assert description.env_kwargs == {"max_episode_steps": 7}
    player = open_file(tmp_path / "out" / INTEGER_FILE)
    assert mean_return(player, description, 2) == 7.0
    # Elsewhere they say nothing.
    assert export_agent(run, tmp_path / "out", "CartPole-v0", 40, max_disagreement=1.0).env_kwargs == {}


def test_figure_has_a_colour_per_folder_and_a_marker_per_kind():
    rows = [
        BenchRow(folder, f"{folder} {kind}", kind, size, 1, 1.0, 1.0, None, size)
        for folder in ("teacher", "net1", "net3")
        for size, kind in enumerate(("float", "integer", "torch"), start=1)
    ]
    figure = plot_returns(rows)
    points = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len({line.get_color() for line in points}) == len({line.get_marker() for line in points}) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("teacher", "net1", "net3"),
        *("float", "integer", "torch"),
    ]


def test_runner_without_arguments_tells_its_usage(tmp_path: Path):
    result = run_python(tmp_path, runner.__file__, status=1)
    assert result.stderr.strip() == "usage: python runner.py policy.onnx observation.npy"


def test_what_cannot_be_exported_is_named(tmp_path: Path):
    kwargs = {"policy_kwargs": {"net_arch": [4], "activation_fn": th.nn.SiLU}, "seed": 0, "device": "cpu"}
    with pytest.raises(AgentError, match=r"no operator for its layer SiLU"):
        build_graph(load_teacher(DQN("MlpPolicy", "CartPole-v1", buffer_size=10, **kwargs), device="cpu"))
    student = student_model("MlpPolicy", {}, spaces.Box(-1, 1, (4,)), spaces.Discrete(2), "cpu")
    student.save(tmp_path / "student")
    with pytest.raises(AgentError, match=r"does not say its environment: name it with --env"):
        export_agent(tmp_path / "student.zip", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere.zip", "-o", "out"], 1, "There is no agent at nowhere.zip"),
        (["{agent}", "-o", "out", "--env", "Nonsense-v0"], 1, "The environment Nonsense-v0 of"),
        (["{agent}", "-o", "out", "--env", "LunarLander-v2"], 1, "LunarLander-v3"),
        (["{agent}", "-o", "out", "--env", "Pendulum-v1"], 1, "cannot play Pendulum-v1: it was trained with"),
        (["{agent}", "-o", "out", "--bits", "4"], 1, "is quantized already"),
        (["{agent}", "-o", "out", "--bits", "1"], 2, "--bits must be between 2 and 8, not 1"),
        (["{agent}", "-o", "out", "--max-disagreement=2"], 2, "between 0 and 1"),
        (["{agent}", "-o", "out", "--n-observations=0"], 2, "at least 1"),
        (["bench", "nowhere"], 1, "nowhere/policy.json is not there"),
    ],
)
def test_verb_refuses_bad_input(few_bits, tmp_path: Path, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    try:
        result = export([argument.format(agent=few_bits) for argument in arguments])
    except SystemExit as error:
        result = error.code
    assert result == status and message in " ".join(capsys.readouterr().err.split())
