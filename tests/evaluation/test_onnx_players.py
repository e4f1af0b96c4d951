"""Teachers without a run of their own, ONNX files and objects, wherever agents play."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import pytest
import torch as th

from sb3_distill import QPD, Answers, load_teacher
from sb3_distill.agents.files import AgentError, AgentNotFoundError
from sb3_distill.agents.kinds.onnx import OnnxTeacher
from sb3_distill.cli import main
from sb3_distill.compress.compress import compress
from sb3_distill.compress.search import Goal, Plan
from sb3_distill.evaluation.loading import load_player
from sb3_distill.export.export import export_agent
from tests.agents.onnx_files import FLOAT, UINT8, linear, right_where_it_sees, save, weights_of
from tests.compress.games import SHORT, Here
from tests.envs.pictures import always_right

LOGITS = ["--teacher-kwargs", "answers:'logits'"]


def scores(capsys: pytest.CaptureFixture[str], *argv: Any) -> list[dict[str, Any]]:
    """The rows of ``sb3-distill evaluate``."""
    assert main(["evaluate", *map(str, argv), "-n", "2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["agents"]


def set_weights(path: Path, weights: np.ndarray) -> None:
    model = onnx.load(str(path))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, str(path))


def test_the_environment_says_what_the_file_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    action = linear(tmp_path / "action.onnx", 3, 1, target="actions")
    assert scores(capsys, action, "--env", "Pendulum-v1")[0]["mean"] < 0
    unnamed = linear(tmp_path / "y.onnx", 4, 2, target="y")
    assert scores(capsys, unnamed, "--env", "CartPole-v1", *LOGITS)[0]["mean"] > 0
    assert main(["evaluate", str(unnamed), "--env", "CartPole-v1", "-n", "1"]) == 1
    assert "pass teacher_kwargs=dict(answers=...)" in capsys.readouterr().err


def test_teacher_kwargs_are_of_onnx_files(cartpole_teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(cartpole_teacher), *LOGITS]) == 1
    assert f"say what an ONNX file does not, and none is named: {cartpole_teacher}." in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("gone.onnx", "gone.ONNX"):
        with pytest.raises(AgentNotFoundError, match=f"There is no file .*{name}"):
            load_teacher(tmp_path / name, teacher_kwargs={"answers": "logits"})


def test_what_a_student_says_of_its_teacher_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unnamed = linear(tmp_path / "y.onnx", 4, 2, target="y")
    kwargs = {"learning_starts": 10, "n_teacher_episodes": 0, "value_coef": 0.0, "device": "cpu"}
    model = QPD("MlpPolicy", "CartPole-v1", str(unnamed), teacher_kwargs={"answers": "logits"}, **kwargs).learn(20)
    model.save(tmp_path / "student")
    for named in ([], ["--teacher", unnamed]):
        teacher, student = scores(capsys, tmp_path / "student.zip", *named)
        assert teacher["percent_of_teacher"] == 100.0 and student["percent_of_teacher"] is not None


def test_compress_takes_onnx_files_and_refuses_objects_in_memory(tmp_path: Path) -> None:
    # The linear controller of the other tests, as a file whose output has no telling name
    weights = np.array([0.1, 0.5, 8.0, 4.0], np.float32)
    unnamed = linear(tmp_path / "y.onnx", 4, 2, target="y")
    set_weights(unnamed, np.stack([-weights, weights], axis=1))
    goal, plan = Goal(keep=50.0), Plan(n_timesteps=400, n_students=2, n_episodes=4)
    options: dict[str, Any] = {"n_rounds": 1, "target": "c", "backend": Here(), "env_id": SHORT}
    found = compress(unnamed, tmp_path / "out", goal, plan, teacher_kwargs={"answers": "logits"}, **options)
    assert found.search.reference.mean == 60 and found.search.students
    with pytest.raises(ValueError, match=r"is in memory.*pass the path, or pass"):
        compress(_Own(), tmp_path / "own", goal, plan, **options)


class _Own:
    observation_space = gym.spec("CartPole-v1").make().observation_space
    action_space = gym.spec("CartPole-v1").make().action_space

    def answer(self, obs: Any, state: Any, episode_start: Any) -> Any:
        return Answers(q_values=th.zeros(len(obs), 2)), None


@pytest.fixture
def velocity_run(zoo: Callable[..., str], tmp_path: Path, cartpole_teacher: Path) -> Path:
    """A student whose run hid the velocities."""
    params = ["env_wrapper:'rl_zoo3.wrappers.MaskVelocityWrapper'", f"teacher:'{cartpole_teacher}'"]
    params += ["n_teacher_episodes:0", "learning_starts:20"]
    zoo(tmp_path, "train", "--algo", "pd", "--env", "CartPole-v1", "-n", 60, "--eval-freq", -1, "-params", *params)
    return tmp_path / "logs/pd/CartPole-v1_1"


def test_our_own_export_plays_where_its_agent_played(
    velocity_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--gym-packages", "rl_zoo3"]
    assert main(["export", str(velocity_run), "-o", str(tmp_path / "out"), "--n-observations", "50", *options]) == 0
    capsys.readouterr()
    path = tmp_path / "out/policy.onnx"
    assert load_teacher(path).facts.recipe.wrappers == load_teacher(velocity_run).facts.recipe.wrappers
    # In its environment without wrappers it would see other numbers.
    assert load_player(path, "CartPole-v1").facts.recipe == load_teacher(path).facts.recipe
    run, exported = (scores(capsys, source, *options)[-1]["returns"] for source in (velocity_run, path))
    assert run == exported


def test_a_teacher_without_a_run_sees_what_its_student_saw(
    velocity_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It goes by the velocity of the cart alone, which is hidden: it always takes the first action.
    path = linear(tmp_path / "velocity.onnx", 4, 2)
    weights = np.zeros((4, 2), np.float32)
    weights[1, 1] = 1.0
    set_weights(path, weights)
    rows = scores(capsys, velocity_run, "--teacher", path, "--gym-packages", "rl_zoo3")
    always_left = scores(capsys, path, "--env", "CartPole-v1")
    assert rows[0]["mean"] < 11 and rows[0]["mean"] != always_left[0]["mean"]


def test_stacks_and_masks_of_our_own_export_come_back(cartpole_teacher: Path, tmp_path: Path) -> None:
    export_agent(cartpole_teacher, tmp_path, "CartPole-v1", n_observations=50)
    described = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(described | {"frame_stack": 3, "needs_masks": True}))
    agent = load_teacher(tmp_path / "policy.onnx")
    assert agent.facts.recipe.frame_stack == 3 and agent.needs_masks


def test_floats_are_not_cut_to_bytes(tmp_path: Path) -> None:
    path = tmp_path / "bytes.onnx"
    cast = onnx.helper.make_node("Cast", ["obs"], ["seen"], to=FLOAT)
    matmul = onnx.helper.make_node("MatMul", ["seen", "w"], ["logits"])
    save(path, [cast, matmul], {"obs": (UINT8, ["N", 4])}, {"logits": (FLOAT, ["N", 2])}, {"w": weights_of(4, 2)})
    with pytest.raises(AgentError, match=r"takes tensor\(uint8\), and the environment gives float32"):
        load_player(path, "CartPole-v1")


def test_an_unclear_memory_is_said_by_the_user(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["features", "w"], ["logits"]),
        onnx.helper.make_node("Identity", ["features"], ["hn"]),
    ]
    path = save(
        tmp_path / "h0.onnx",
        [*nodes, onnx.helper.make_node("Identity", ["h0"], ["unused"])],
        {"h0": (FLOAT, ["N", 4]), "features": (FLOAT, ["N", 4])},
        {"logits": (FLOAT, ["N", 2]), "hn": (FLOAT, ["N", 4])},
        {"w": weights_of(4, 2)},
    )
    with pytest.raises(AgentError, match=r"inputs h0, features, and does not say which one is the observation"):
        load_teacher(path)
    agent = load_teacher(path, teacher_kwargs={"observation": "features", "memory": {"h0": "hn"}})
    assert agent.sha256 == load_teacher(path, teacher_kwargs={"memory": {"h0": "hn"}, "observation": "features"}).sha256
    assert isinstance(agent, OnnxTeacher) and agent.has_memory
    for said, message in (
        ({"observation": "feature"}, "observation: Unknown input 'feature'.*Did you mean 'features'"),
        ({"memory": {"h0": "h"}}, "memory: Unknown output 'h'"),
        ({"memory": "h0"}, "memory must map inputs to outputs"),
    ):
        with pytest.raises(AgentError, match=message):
            load_teacher(path, teacher_kwargs=said)


def test_what_the_outputs_cannot_be(tmp_path: Path) -> None:
    actions = linear(tmp_path / "actions.onnx", 4, 2, target="actions")
    with pytest.raises(AgentError, match=r"'action', and the environment's actions are Discrete\(2\): say that"):
        load_player(actions, "CartPole-v1")
    wide = linear(tmp_path / "wide.onnx", 3, 1, target="mean", log_std=[1000.0])
    with pytest.raises(AgentError, match=r"log_std goes from 1000 to 1000, which is no logarithm"):
        load_player(wide, "Pendulum-v1", {"log_std": "log_std"})


def test_weights_that_are_not_beside_their_file(tmp_path: Path) -> None:
    path = linear(tmp_path / "outside.onnx", 4, 2)
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert load_teacher(path).n_parameters == 8
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(AgentError, match=r"has its weights in 'weights.bin', which is not beside it: copy both files"):
        load_teacher(path)


@pytest.fixture
def picture_run(zoo: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A teacher that goes to the right wherever it sees the dot, and its student, which does not see the picture."""
    # The file says no size of its input, so that its environment must.
    path = right_where_it_sees(tmp_path / "right.onnx", width="width")
    wrapper = "env_wrapper:{'sb3_distill.OwnPicture': {'function': 'tests.envs.pictures:row_of_dot'}}"
    params = [wrapper, "teacher_keys:'picture'", "student_keys:'state'", f"teacher:'{path}'"]
    params += ["n_teacher_episodes:0", "learning_starts:20"]
    options = ["-n", 40, "--eval-freq", -1, "--gym-packages", "tests.envs.pictures"]
    zoo(tmp_path, "train", "--algo", "pd", "--env", "Dot-v0", *options, "-params", *params)
    return tmp_path / "logs/pd/Dot-v0_1", path


def test_a_file_plays_where_its_student_played_and_sees_its_own_part(
    picture_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, path = picture_run
    packages = ["--gym-packages", "tests.envs.pictures"]
    expected = [always_right(seed) for seed in (0, 1)]
    for named in ([run], [run, "--teacher", path], [path, run]):
        teacher, student = scores(capsys, *named, *packages)
        assert teacher["returns"] == expected and teacher["agent"] == str(path)
        assert student["taught_by"] == str(path) and student["percent_of_teacher"] is not None


def test_other_agents_beside_a_student_do_not_say_what_its_teacher_sees(
    picture_run: tuple[Path, Path], zoo: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, path = picture_run
    packages = ["--gym-packages", "tests.envs.pictures"]
    zoo(tmp_path, "train", "--algo", "ppo", "--env", "Dot-v0", "-n", 40, "--eval-freq", -1, *packages)
    rows = scores(capsys, tmp_path / "logs/ppo/Dot-v0_1", run, "--teacher", path, *packages)
    assert [row["algo"] for row in rows] == ["onnx", "ppo", "pd"]
    assert rows[0]["returns"] == [always_right(seed) for seed in (0, 1)]


def test_a_file_of_stacked_observations_is_asked_what_it_was_asked_in_the_run(
    zoo: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It sees all four, and its student too.
    path = linear(tmp_path / "stacked.onnx", 16, 2)
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    onnx.save(model, str(path))
    params = ["frame_stack:4", f"teacher:'{path}'", "n_teacher_episodes:0", "learning_starts:20"]
    zoo(tmp_path, "train", "--algo", "pd", "--env", "CartPole-v1", "-n", 40, "--eval-freq", -1, "-params", *params)
    rows = scores(capsys, tmp_path / "logs/pd/CartPole-v1_1")
    assert [row["algo"] for row in rows] == ["onnx", "pd"]


@pytest.mark.parametrize(
    "command", ["evaluate {}", "compress {} -o out", "visualize q-values {} -o q.png", "export {} -o out"]
)
def test_commands_name_their_options_where_an_environment_is_missing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Only an environment says the bounds of its actions.
    linear(tmp_path / "actions.onnx", 3, 1, target="actions")
    assert main(command.format("actions.onnx").split()) == 1
    said = capsys.readouterr().err
    is_export = command.startswith("export")
    assert ("is an ONNX file already" if is_export else "its environment: name it with --env") in said
    assert "pass " not in said
