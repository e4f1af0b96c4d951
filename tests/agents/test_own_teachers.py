"""Objects of a user's own as teachers, and functions that make them."""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import QPD, Answers, Gaussian, PolicyDistillation, ProximalPolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.cli import main
from sb3_distill.resume.resume import resume
from tests.agents.own_teachers import Counter, Plain, Swinger
from tests.helpers import status_of
from tests.mtpd.students import make as make_mtpd

QUICK: dict[str, Any] = {"n_teacher_episodes": 1, "device": "cpu", "seed": 0}
OFF_POLICY: dict[str, Any] = {**QUICK, "learning_starts": 32, "buffer_size": 200}
MAKER = "tests.agents.own_teachers:make_plain"


def answering(answers: Any, **attributes: Any) -> Any:
    """A teacher whose ``answer`` returns this, whatever it is asked."""

    def answer(self: Any, obs: Any, state: Any, episode_start: Any) -> Any:
        return answers(len(obs)) if callable(answers) else answers

    names = {"observation_space": Plain.observation_space, "action_space": Plain.action_space, "answer": answer}
    return type("Mine", (), {**names, **attributes})()


def test_pd_qpd_and_ppd_learn_from_an_object(tmp_path: Path) -> None:
    own = Plain()
    pd = PolicyDistillation("MlpPolicy", "CartPole-v1", own, **OFF_POLICY).learn(64)
    qpd = QPD("MlpPolicy", "CartPole-v1", own, **OFF_POLICY).learn(64)
    ppd = ProximalPolicyDistillation("MlpPolicy", "CartPole-v1", own, n_steps=32, batch_size=16, **QUICK).learn(32)
    # The memory holds what the network says.
    seen = th.as_tensor(np.array(pd.replay_buffer.stores[""][:20, 0]))
    expected = own.net(seen)[:, :2].log_softmax(dim=1).detach().numpy()
    assert np.allclose(pd.replay_buffer.answers["log_probs"][:20, 0], expected, atol=1e-6)
    assert "values" in qpd.replay_buffer.answers and "values" not in pd.replay_buffer.answers
    # It goes on learning as before: nothing of the user's is frozen.
    assert all(parameter.requires_grad for parameter in own.net.parameters())
    for model in (pd, qpd, ppd):
        model.save(tmp_path / "student")
        student = type(model).load(tmp_path / "student", env=make_vec_env("CartPole-v1"))
        assert student.taught_by is None and student.teacher_sha256 == load_teacher(Plain(), device="cpu").sha256
        with pytest.raises(ValueError, match="teacher was a model in memory, not a file: pass teacher="):
            student.learn(1)


def test_mtpd_learns_from_an_object() -> None:
    other = PPO("MlpPolicy", "MountainCar-v0", n_steps=8, batch_size=8, seed=0, device="cpu")
    model = make_mtpd({"CartPole-v1": Plain(), "MountainCar-v0": other}, learning_starts=20).learn(60)
    assert model.teacher_sha256["CartPole-v1"] == load_teacher(Plain()).sha256


def test_it_is_named_by_its_class_and_its_answers() -> None:
    teacher = load_teacher(Plain(), device="cpu")
    assert teacher.source == "object:tests.agents.own_teachers.Plain" and teacher.saved_source is None
    assert teacher.sha256 == load_teacher(Plain(), device="cpu").sha256 != load_teacher(Plain(1), device="cpu").sha256
    assert teacher.has_critic and teacher.has_distribution and not teacher.has_memory
    assert teacher.n_parameters == 4 * 8 + 8 + 8 * 3 + 3 and teacher.n_bytes == 4 * teacher.n_parameters


@pytest.mark.parametrize("kind", ["point", "gaussian", "squashed"])
def test_it_acts_as_it_answers(kind: str) -> None:
    teacher = load_teacher(Swinger(kind), device="cpu")
    obs = np.array([[0.6, 0.8, 0.1], [0.9, -0.4, 2.0]], np.float32)
    expected = {
        "point": 2 * 0.5 * obs[:, 1:2],
        "gaussian": 0.5 * obs[:, 1:2],
        "squashed": 2 * np.tanh(0.5 * obs[:, 1:2]),
    }
    actions, state = teacher.predict(obs)
    assert state is None and np.allclose(actions, expected[kind], atol=1e-6)
    assert np.allclose(teacher.predict(obs[0])[0], actions[0])
    drawn = np.concatenate([teacher.predict(obs[:1], deterministic=False)[0] for _ in range(20)])
    assert np.ptp(drawn) > 0.1 if kind != "point" else np.ptp(drawn) == 0
    env = make_vec_env("Pendulum-v1")
    model = QPD("MlpPolicy", env, Swinger(kind), **{**OFF_POLICY, "value_coef": 0.0}).learn(64)
    assert set(model.replay_buffer.answers) == set(teacher.answer(th.as_tensor(obs))[0].arrays())


TWO = {"q_values": lambda n: np.zeros((n, 2))}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Plain, "a class was passed, not an object of it: call it, Plain()"),
        (answering(None, observation_space=None), r"observation_space must be a gymnasium.spaces.Space, not None"),
        (
            answering(None, action_space=spaces.MultiBinary(2)),
            "action_space must be a .*Discrete or a .*Box, not Multi",
        ),
        (type("Half", (), {"answer": 1})(), "has no observation_space and no action_space: a teacher needs"),
        (
            answering(lambda n: Answers(q_values=np.zeros((n, 2)))),
            "answer must return two things, Answers and the next",
        ),
        (answering(lambda n: (np.zeros((n, 2)), None)), "answer must return two things"),
        (
            answering(lambda n: (Answers(q_values=np.zeros((n, 3))), None)),
            r"q_values has the shape \(4, 3\), not \(4, 2",
        ),
        (answering(lambda n: (Answers(q_values=np.full((n, 2), np.nan)), None)), "q_values holds NaN or infinite"),
        (answering(lambda n: (Answers(log_probs=np.full((n, 2), -np.inf)), None)), "log_probs holds NaN .*-1e9"),
        (answering(lambda n: (Answers(point=np.zeros((n, 2))), None)), "action_space is Discrete.* answers with point"),
        (
            answering(lambda n: (Answers(q_values=np.zeros((n, 2)), values=np.zeros((n, 1))), None)),
            r"values has the shape \(4, 1\), not \(4,\)",
        ),
        (
            answering(lambda n: (Answers(q_values=np.zeros((n, 2))), np.zeros((1, n)))),
            r"state has the shape \(1, 4\); its first axis must be that of the 4 environments",
        ),
        (
            answering(lambda n: (Answers(q_values=np.zeros((n, 2))), {"h": (np.zeros(n), [0])})),
            r"state\['h'\]\[1\] has the type list; it must be None, an array or a tensor, or a plain tuple",
        ),
        (
            answering(lambda n: (Answers(point=np.full((n, 1), 2.0)), None), action_space=spaces.Box(-2, 2, (1,))),
            r"point must be scaled from the bounds of the actions to \[-1, 1\], and goes to 2",
        ),
        (
            answering(
                lambda n: (Answers(gaussian=Gaussian(np.zeros((n, 1)), np.zeros((n, 1)))), None),
                action_space=spaces.Box(-2, 2, (1,)),
            ),
            "std holds numbers that are not above 0",
        ),
        (answering(lambda n: 1 / 0), r"failed on 4 random observations .*\(ZeroDivisionError: division by zero\)"),
        (PPO, r"class PPO was passed as a teacher, not a model: pass PPO.load\(PATH\), or the path"),
        (object(), "or an object with observation_space, action_space and answer"),
    ],
)
def test_what_is_wrong_is_said_at_once(own: Any, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        PolicyDistillation("MlpPolicy", "CartPole-v1", own, **OFF_POLICY)


@pytest.mark.parametrize("n_actions", [2, 3, 4, 5])
def test_the_axes_of_answers_are_told_apart(n_actions: int) -> None:
    """Also where there are as many actions as environments."""
    own = answering(
        lambda n: (Answers(q_values=np.zeros((n_actions, n))), None), action_space=spaces.Discrete(n_actions)
    )
    with pytest.raises(AgentError, match=rf"q_values has the shape \({n_actions}, "):
        load_teacher(own, device="cpu")


@pytest.mark.parametrize("n_layers", [1, 3, 4, 5])
def test_the_axes_of_a_memory_are_told_apart(n_layers: int) -> None:
    """Also where there are as many layers as environments."""
    own = answering(lambda n: (Answers(q_values=np.zeros((n, 2))), np.zeros((n_layers, n, 8))))
    with pytest.raises(AgentError, match=rf"state has the shape \({n_layers}, \d, 8\); its first axis must be that of"):
        load_teacher(own, device="cpu")


LARGEST = np.finfo(np.float32).max


class Sum:
    """Q-values that follow from the sum of what it sees."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space, power: int = 1, factor: float = 1.0) -> None:
        self.observation_space, self.power, self.factor = space, power, factor

    def answer(self, obs: Any, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        parts = obs.values() if isinstance(obs, dict) else [obs]
        total = sum(part.float().flatten(1).sum(dim=1) for part in parts)
        return Answers(q_values=th.stack([total**self.power, (self.factor * total).tanh()], dim=1)), None


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-LARGEST, LARGEST, (4,)),
        spaces.Box(np.float32([-1, -LARGEST, -np.inf, 0]), np.float32([LARGEST, 1, LARGEST, 1])),
        spaces.Box(-np.finfo(np.float64).max, np.finfo(np.float64).max, (4,), np.float64),
        spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (4,), np.int64),
        spaces.Box(0, np.iinfo(np.int32).max, (4,), np.int32),
        spaces.Dict({"a": spaces.Box(-LARGEST, LARGEST, (2,)), "b": spaces.MultiBinary(3)}),
    ],
    ids=str,
)
def test_it_is_not_asked_about_the_largest_numbers(space: spaces.Space) -> None:
    """Their squares are infinite, and behind a tanh all of them are the same."""
    assert load_teacher(Sum(space, 2), device="cpu").n_actions == 2
    hashes = {load_teacher(Sum(space, factor=factor), device="cpu").sha256 for factor in (0.1, 0.2, 0.3)}
    assert len(hashes) == 3


def test_a_point_is_checked_in_each_dimension_with_bounds() -> None:
    actions = spaces.Box(np.float32([-1, -np.inf]), np.float32([1, np.inf]))
    point = np.array([[0.5, 9.0]], np.float32)
    own = answering(lambda n: (Answers(point=np.repeat(point, n, axis=0)), None), action_space=actions)
    assert np.array_equal(load_teacher(own, device="cpu").predict(np.zeros((1, 4), np.float32))[0], point)
    point[0, 0] = 2.0
    with pytest.raises(AgentError, match=r"point must be scaled from the bounds of the actions to \[-1, 1\]"):
        load_teacher(own, device="cpu")


def test_answers_are_checked_later_too() -> None:
    asked = iter(range(10_000))
    own = answering(lambda n: (Answers(q_values=np.full((n, 2), 0.0 if next(asked) < 8 else np.inf)), None))
    with pytest.raises(AgentError, match="q_values holds NaN or infinite numbers"):
        PolicyDistillation("MlpPolicy", "CartPole-v1", own, **{**OFF_POLICY, "n_teacher_episodes": 0}).learn(64)


def test_rtpd_refuses_an_object() -> None:
    from tests.rtpd.students import make as make_rtpd

    with pytest.raises(ValueError, match=r"object:tests.agents.own_teachers.Counter \(object\) is no DQN"):
        make_rtpd(teacher=Counter())


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that nobody has named."""
    (tmp_path / "strange_teachers.py").write_text("from tests.agents.own_teachers import make_plain\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "strange_teachers", raising=False)
    return "strange_teachers:make_plain"


def test_a_function_is_called_where_its_package_is_named(
    strange: str,
    zoo: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ["--algo", "pd", "--env", "CartPole-v1", "-n", 64, "--eval-freq", -1, "--seed", 1, "--save-freq", 40]
    params = ["-params", f"teacher:'{strange}'", "n_envs:1", "learning_starts:20", "n_teacher_episodes:1"]
    assert status_of(["zoo", "train", *map(str, [*run, *params])]) == 2
    said = "Importing strange_teachers runs its code: if you trust it, pass --gym-packages"
    assert said in capsys.readouterr().err
    assert "strange_teachers" not in sys.modules
    zoo(tmp_path, "train", "--gym-packages", "strange_teachers", *run, *params)
    student = tmp_path / "logs" / "pd" / "CartPole-v1_1" / "CartPole-v1.zip"
    assert load_teacher(student).facts.taught_by is None
    capsys.readouterr()
    evaluate = ["evaluate", str(student), "-n", "2", "--teacher", strange, "--gym-packages", "strange_teachers"]
    assert main(evaluate) == 0 and "strange_teachers:make_plain" in capsys.readouterr().out
    # Its file does not name the function.
    assert main(["evaluate", str(student), "-n", "2"]) == 0
    said = (
        "its file does not name, such as a function or a model in memory, so no percentage is given. Say with --teach"
    )
    assert said in capsys.readouterr().err
    beside = ["evaluate", str(student), strange, "--env", "CartPole-v1", "-n", "2", "--json"]
    assert main([*beside, "--gym-packages", "strange_teachers"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["agents"][1]["percent_of_teacher"] is not None and "Note" not in printed.err
    # What a file says is no reason to call anything, whoever named the package before.
    (student.parent / "CartPole-v1.zip").unlink()
    with pytest.raises(AgentError, match=r"config.yml of .* names the function strange_teachers:make_plain"):
        resume(student.parent)


def test_no_file_calls_a_function(tmp_path: Path) -> None:
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", Plain(), **OFF_POLICY)
    model.taught_by = "os:abort"
    model.save(tmp_path / "student")
    student = PolicyDistillation.load(tmp_path / "student", env=make_vec_env("CartPole-v1"))
    with pytest.raises(AgentError, match="taught_by in the student's file names the function os:abort"):
        student.learn(1)
    # Standard modules are imported already, and still no user has named them.
    with pytest.raises(AgentError, match="Importing os runs its code"):
        load_teacher("os:abort")
    with pytest.raises(AgentError, match="names the function os:abort"):
        load_teacher("os:abort", local_only=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.agents.own_teachers:nothing", "cannot be imported"),
        ("tests.agents.own_teachers:CARTPOLE", "is no func"),
        (
            "tests.agents.own_teachers:fails",
            r"The function tests.agents.own_teachers:fails failed .KeyError: 'weights'",
        ),
    ],
)
def test_a_name_that_is_no_function(name: str, message: str) -> None:
    from sb3_distill.envs.imports import trust_packages

    trust_packages(["tests.agents"])
    with pytest.raises(AgentError, match=message):
        load_teacher(name)
    assert load_teacher(MAKER, device="cpu").source == MAKER


def test_a_memory_that_grows_is_refused() -> None:
    lengths = itertools.count(1)
    own = answering(lambda n: (Answers(q_values=np.zeros((n, 2))), np.zeros((n, next(lengths)))))
    with pytest.raises(AgentError, match=r"shapes \(1,\) after one observation, and \(2,\) later. A memory must keep"):
        PolicyDistillation("MlpPolicy", "CartPole-v1", own, **OFF_POLICY)
