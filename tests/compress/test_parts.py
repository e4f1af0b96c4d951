"""Searches over students that see parts of Dict observations."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack
from torch import nn

from sb3_distill import QPD, StackedEntries, load_teacher
from sb3_distill.cli import main
from sb3_distill.compress import cli
from sb3_distill.compress.compress import Compressed, compress
from sb3_distill.compress.job import score
from sb3_distill.compress.search import Goal, Plan
from sb3_distill.compress.view import View, show, students_space
from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.export.integer_policy import IntegerPolicy
from tests.agents.test_onnx_exporters import export
from tests.compress.games import SHORT, Here, record_of, save_teacher


class Parts(gym.ObservationWrapper):
    """The pole's two positions and its two speeds, of which nobody says bounds, and a picture."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(gym.make(SHORT, **kwargs))
        free, picture = spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0, 255, (8, 8, 8), np.uint8)
        self.observation_space = spaces.Dict({"positions": free, "speeds": free, "picture": picture})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        picture = np.zeros((8, 8, 8), dtype=np.uint8)
        return {"positions": observation[[0, 2]], "speeds": observation[[1, 3]], "picture": picture}


PARTS = "PartsOfCartPole-v0"
gym.register(PARTS, Parts)
# Of 8 entries: position, its speed, angle and its speed are those of the last step.
WRAPPER = {"sb3_distill.StackedEntries": {"entries": [0, 1, 2, 3], "n_stack": 2}}


def search(agent: Path, output: Path, env_id: str | None = None, **kwargs: Any) -> Compressed:
    plan = Plan(n_timesteps=1_600, n_students=2, n_episodes=6)
    made: dict[str, Any] = {"target": "c", "backend": Here(), "env_id": env_id, "say": lambda line: None, **kwargs}
    return compress(agent, output, Goal(keep=10.0), plan, n_rounds=1, **made)


def test_students_see_a_part_that_a_wrapper_adds(tmp_path: Path):
    keys = {"teacher_keys": "state", "student_keys": "positions"}
    found = search(save_teacher(tmp_path), tmp_path / "out", env_wrapper=WRAPPER, **keys)
    assert found.chosen is not None, found.text
    run = tmp_path / "out" / "student" / "qpd" / f"{SHORT}_1"
    student = load_teacher(run, device="cpu")
    assert student.observation_space.shape == (8,) and student.facts.teacher_keys == "state"
    assert yaml.safe_load((run / SHORT / "config.yml").read_text())["env_wrapper"] == [WRAPPER]
    # As `evaluate` plays it, it scores what it scored in the search.
    plan = found.search.plan
    assert score(student, SHORT, plan.n_episodes, found.search.runs[0].first_seed).returns == (
        found.chosen.student.outcome.returns
    )
    assert IntegerPolicy.load(tmp_path / "out" / "export" / "policy.npz").shape == (8,)
    assert {name: record_of(tmp_path / "out")[name] for name in keys} == keys


def test_the_students_of_a_student_see_what_it_saw(tmp_path: Path):
    env = make_vec_env(SHORT, 2, wrapper_class=StackedEntries, wrapper_kwargs={"entries": [0, 1, 2, 3], "n_stack": 2})
    model = QPD(
        "MlpPolicy",
        env,
        save_teacher(tmp_path),
        teacher_keys="state",
        student_keys="positions",
        weight_bits=None,
        activation_bits=None,
        policy_kwargs={"net_arch": []},
        device="cpu",
    )
    newest = th.tensor([0.0] * 4 + [0.1, 0.5, 8.0, 4.0])
    with th.no_grad():
        model.policy.action_net.weight.copy_(th.stack([-newest, newest]))
        model.policy.action_net.bias.zero_()
    run = tmp_path / "qpd" / f"{SHORT}_1"
    (run / SHORT).mkdir(parents=True)
    model.save(run / SHORT)
    (run / SHORT / "config.yml").write_text(yaml.safe_dump({"env_wrapper": [WRAPPER]}))
    (run / SHORT / "args.yml").write_text(yaml.safe_dump({"algo": "qpd", "env": SHORT}))
    found = search(run, tmp_path / "out")
    assert found.search.reference.mean == 60.0 and found.chosen is not None, found.text
    assert record_of(tmp_path / "out")["student_keys"] == "positions"


class Counter(nn.Module):
    """Pushes to the side to which the pole moves, which it knows from the last angle; its Q-values are 1 and 0."""

    def forward(self, obs: th.Tensor, angle: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        newest = obs[:, 2:3]
        right = (newest + newest - angle > 0).float()
        return th.cat([1 - right, right], dim=1), newest


@pytest.mark.ci
def test_students_of_an_agent_with_a_memory_see_the_last_observations(tmp_path: Path, capsys: pytest.CaptureFixture):
    names: dict[str, Any] = {"input_names": ["obs", "angle_in"], "output_names": ["q_values", "angle_out"]}
    agent = export(
        Counter(), tmp_path / "policy.onnx", False, dict.fromkeys(["obs", "angle_in", "q_values", "angle_out"], 0),
        args=(th.zeros(2, 4), th.zeros(2, 1)), **names,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"has a memory, .* observations with --frame-stack 4"):
        search(agent, tmp_path / "out", SHORT)
    assert not (tmp_path / "out").exists()
    # One that sees stacked observations itself shows as many to its students.
    stacking = load_teacher(agent, env_id=SHORT, device="cpu")
    stacking.facts = replace(stacking.facts, recipe=EnvRecipe(frame_stack=2))
    assert show(stacking, SHORT, View()).recipe.frame_stack == 2
    found = search(agent, tmp_path / "out", SHORT, frame_stack=3)
    assert found.search.reference.mean == 60.0 and found.chosen is not None, found.text
    run = tmp_path / "out" / "student" / "qpd" / f"{SHORT}_1"
    student = load_teacher(run, device="cpu")
    assert student.observation_space.shape == (12,)
    assert score(student, SHORT, 6, found.search.runs[0].first_seed).returns == found.chosen.student.outcome.returns
    # The exported policy stacks by itself.
    assert (tmp_path / "out" / "export" / "policy.npz").is_file() and record_of(tmp_path / "out")["frame_stack"] == 3
    assert main(["evaluate", str(run), "-n", "3"]) == 0
    assert "policy.onnx" in capsys.readouterr().out


def test_students_of_an_agent_that_sees_stacked_observations_see_as_many(tmp_path: Path):
    env = VecFrameStack(make_vec_env(SHORT), 4)
    agent = load_teacher(PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu"), env_id=SHORT)
    agent.facts = replace(agent.facts, recipe=EnvRecipe(frame_stack=4))
    assert students_space(agent, SHORT, show(agent, SHORT, View())).shape == (16,)
    assert students_space(agent, SHORT, show(agent, SHORT, View(frame_stack=4))).shape == (16,)
    for n_stack in (2, 8):
        with pytest.raises(ValueError, match=rf"\(frame_stack\) is {n_stack}, but .* leave the option out"):
            students_space(agent, SHORT, show(agent, SHORT, View(frame_stack=n_stack)))
    # One that sees the newest alone can have students that see any number.
    agent = load_teacher(save_teacher(tmp_path), device="cpu")
    assert students_space(agent, SHORT, show(agent, SHORT, View(frame_stack=3))).shape == (12,)


@pytest.mark.parametrize("algo", [PPO, DQN])
def test_students_see_one_unbounded_key_or_several(tmp_path: Path, algo: type):
    kwargs: dict[str, Any] = {"n_steps": 8, "batch_size": 8} if algo is PPO else {"buffer_size": 10}
    features = {"net_arch": [4], "features_extractor_kwargs": {"cnn_output_dim": 4}}
    env = gym.make(PARTS)
    # NatureCNN takes no picture of 8 x 8.
    seen = gym.wrappers.FilterObservation(env, ["positions", "speeds"])
    algo("MultiInputPolicy", seen, seed=0, device="cpu", policy_kwargs=copy.deepcopy(features), **kwargs).save(
        tmp_path / "agent.zip"
    )
    both = {"teacher_keys": ["positions", "speeds"]}
    one = search(tmp_path / "agent.zip", tmp_path / "one", PARTS, **both, student_keys="positions")
    assert one.chosen is not None, one.text
    student = load_teacher(tmp_path / "one" / "student" / "qpd" / f"{PARTS}_1", device="cpu")
    assert student.observation_space.shape == (2,) and student.normalization is not None
    assert score(student, PARTS, 6, one.search.runs[0].first_seed).returns == one.chosen.student.outcome.returns
    several = search(tmp_path / "agent.zip", tmp_path / "several", PARTS, **both, student_keys=["speeds", "positions"])
    assert several.chosen is not None, several.text
    student = load_teacher(tmp_path / "several" / "student" / "qpd" / f"{PARTS}_1", device="cpu")
    assert isinstance(student.observation_space, spaces.Dict) and student.n_bytes == several.chosen.student.n_bytes
    assert IntegerPolicy.load(tmp_path / "several" / "export" / "policy.npz").shape == (4,)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"teacher_keys": ["positions", "speeds"], "student_keys": "hearing"}, "student_keys: .*hearing.*positions"),
        ({"teacher_keys": ["positions", "speeds"], "student_keys": ["picture", "speeds"]}, "or several vectors: name"),
        (
            {"env_wrapper": "sb3_distill.Unknown"},
            r"--env-wrapper \(env_wrapper\) names the wrapper sb3_distill.Unknown",
        ),
        ({"env_wrapper": "StackedEntries"}, "StackedEntries without its package: write package.module.StackedEntries"),
        ({"env_wrapper": "stranger.Wrapper"}, r"--env-wrapper \(env_wrapper\) .* pass --gym-packages stranger"),
    ],
)
def test_keys_and_wrappers_that_do_not_fit_are_refused_before_the_search(tmp_path: Path, said: Any, message: str):
    seen = gym.wrappers.FilterObservation(gym.make(PARTS), ["positions", "speeds"])
    PPO("MultiInputPolicy", seen, n_steps=8, batch_size=8, device="cpu").save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match=message):
        search(tmp_path / "agent.zip", tmp_path / "out", PARTS, **said)
    assert not (tmp_path / "out").exists()


def test_the_command_takes_wrappers_as_names_with_arguments(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.wrapper("sb3_distill.RenderedFrames") == "sb3_distill.RenderedFrames"
    arguments = "sb3_distill.StackedEntries:dict(entries=[0, 1, 2, 3], n_stack=2)"
    assert cli.wrapper(arguments) == WRAPPER
    agent = str(save_teacher(tmp_path))
    options = ["--env-wrapper", arguments, "--teacher-keys", "state", "--student-keys", "heard"]
    assert main(["compress", agent, "-o", str(tmp_path / "out"), *options, "--target", "c"]) == 1
    assert "student_keys" in capsys.readouterr().err
