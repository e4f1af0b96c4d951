"""Students of a log: the teacher answers in the order of each episode, and nobody plays."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_distill import Answers, PolicyDistillation, load_teacher
from sb3_distill.buffers.minari import to_minari
from sb3_distill.buffers.recordings import Recording
from sb3_distill.cli import main
from sb3_distill.envs.recipe import EnvRecipe, NamedWrapper
from sb3_distill.evaluation.table import header
from sb3_distill.fit.cli import check_playable, score
from sb3_distill.fit.env import LogEnv
from sb3_distill.fit.fit import compare, fit
from sb3_distill.fit.log import LogError, hold_out, read_log
from tests.agents.own_teachers import Counter
from tests.helpers import same

LENGTHS = (5, 9, 3, 12, 7, 4)
N = sum(LENGTHS)
STARTS = np.isin(np.arange(N), np.cumsum([0, *LENGTHS[:-1]]))
ENDS = np.isin(np.arange(N), np.cumsum(LENGTHS) - 1)
CARTPOLE, PENDULUM = (gym.spec(name).make().observation_space for name in ("CartPole-v1", "Pendulum-v1"))


def observations(space: spaces.Box = CARTPOLE, n: int = N) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *space.shape)).astype(np.float32)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    np.savez(tmp_path / "log.npz", observations=observations(), episode_starts=STARTS)
    return tmp_path / "log.npz"


@pytest.mark.parametrize(
    "marks",
    [
        {"episode_starts": STARTS},
        {"dones": ENDS},
        {"terminals": ENDS * 1.0, "timeouts": np.zeros(N)},
        {"terminated": ENDS, "truncated": ~ENDS & False},
        {"terminations": ENDS & (np.arange(N) < 10), "truncations": ENDS & (np.arange(N) >= 10)},
    ],
)
def test_a_file_is_cut_into_its_episodes(marks: Any, tmp_path: Path) -> None:
    # As a robot writes them: in float64
    np.savez(tmp_path / "log.npz", observations=observations().astype(np.float64), **marks)
    episodes = read_log(tmp_path / "log.npz", CARTPOLE)
    assert tuple(map(len, episodes)) == LENGTHS
    assert np.array_equal(np.concatenate(episodes), observations()) and episodes[0].dtype == np.float32


def test_recordings_and_minari_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ppo_teacher: PPO) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    kwargs: dict[str, Any] = {"n_teacher_episodes": 0, "learning_starts": 90, "device": "cpu", "seed": 0}
    PolicyDistillation("MlpPolicy", "CartPole-v1", ppo_teacher, recording=tmp_path / "play", **kwargs).learn(90)
    recording = Recording(tmp_path / "play")
    to_minari(recording, "pole/ppo-v0")
    logs = [read_log(source, CARTPOLE) for source in (str(tmp_path / "play"), "pole/ppo-v0")]
    assert len(logs[0]) == len(recording.episodes) > 1
    for first, second, end in zip(*logs, recording.episodes, strict=True):
        assert np.array_equal(first, second) and len(first) == end.length
    with pytest.raises(LogError, match="pole/other-v0"):
        read_log("pole/other-v0", CARTPOLE)


def test_a_log_is_an_environment_that_nobody_changes() -> None:
    episodes = np.split(observations(), np.flatnonzero(STARTS)[1:])
    env = LogEnv(episodes, CARTPOLE, spaces.Discrete(2))
    seen = []
    for _ in range(2):
        for _ in episodes:
            obs, _ = env.reset()
            is_over = False
            while not is_over:
                seen.append(obs)
                obs, reward, is_over, truncated, _ = env.step(env.action_space.sample())
                assert (reward, truncated) == (0.0, False)
    assert env.n_steps == N and np.array_equal(seen, np.concatenate([observations()] * 2))


def test_episodes_are_held_out() -> None:
    episodes = [np.full((2, 1), number) for number in range(20)]
    kept, other = hold_out(episodes, 0.2, np.random.default_rng(1))
    numbers = [[int(episode[0, 0]) for episode in part] for part in (kept, other)]
    assert len(other) == 4 and sorted([*numbers[0], *numbers[1]]) == list(range(20))
    assert all(part == sorted(part) for part in numbers) and numbers[1] != [16, 17, 18, 19]
    # Something is left on both sides, also of one episode.
    assert [len(part) for part in hold_out(episodes, 0.99, np.random.default_rng(0))] == [1, 19]
    assert [len(part) for part in hold_out(episodes, 1e-9, np.random.default_rng(0))] == [19, 1]
    (kept,), (other,) = hold_out([observations()], 0.25, np.random.default_rng(0))
    assert len(other) == N // 4 and np.array_equal(np.concatenate([kept, other]), observations())
    with pytest.raises(LogError, match="single step"):
        hold_out([observations()[:1]], 0.1, np.random.default_rng(0))


def test_a_memory_runs_along_each_episode(log: Path) -> None:
    """The teacher says the number of the step in its episode."""
    found = fit(log, Counter(), "pd", n_timesteps=3 * N, held_out=0.3, frame_stack=3, device="cpu")
    buffer: Any = found.model.replay_buffer
    kept, other = hold_out(read_log(log, CARTPOLE), 0.3, np.random.default_rng(0))
    expected = np.concatenate([np.arange(len(episode)) for episode in kept])
    assert buffer.full and len(expected) == buffer.buffer_size
    assert np.array_equal(buffer.answers["q_values"][:, 0, 0], expected)
    assert found.model.observation_space.shape == (12,) and (found.n_episodes, found.n_steps) == (
        len(other),
        sum(map(len, other)),
    )


def test_a_memory_goes_on_over_the_cut_of_a_single_episode(tmp_path: Path) -> None:
    """The teacher's best action is the parity of the step; the student finds it in what it sees."""

    class Seen:
        observation_space, action_space = CARTPOLE, spaces.Discrete(2)

        def answer(self, obs: th.Tensor, state: Any, starts: Any) -> Any:
            return Answers(q_values=th.stack([1 - obs[:, 0], obs[:, 0]], dim=1)), None

    rows = np.zeros((10, 4), np.float32)
    rows[:, 0] = np.arange(10) % 2
    student, teacher = load_teacher(Seen(), device="cpu"), load_teacher(Counter(), device="cpu")
    assert compare(student, teacher, [rows], first=7) == {"agreement": 1.0}
    assert compare(student, teacher, [rows[7:]]) == {"agreement": 0.0}
    asked = []

    class Telling(Counter):
        def answer(self, *args: Any) -> Any:
            answers, state = super().answer(*args)
            asked.append(answers.q_values[0, 0])
            return answers, state

    np.savez(tmp_path / "log.npz", observations=rows)
    found = fit(tmp_path / "log.npz", Telling(), "pd", n_timesteps=14, held_out=0.3, device="cpu")
    assert (found.n_episodes, found.n_steps) == (1, 3) and asked[-10:] == list(range(10))


@pytest.mark.parametrize("algo", ["pd", "qpd"])
def test_it_learns_what_the_teacher_would_do(algo: str, tmp_path: Path) -> None:
    class Side:
        """Pushes where the pole leans."""

        observation_space, action_space = CARTPOLE, spaces.Discrete(2)

        def answer(self, obs: th.Tensor, state: Any, starts: Any) -> Any:
            from sb3_distill import Answers

            return Answers(log_probs=5 * th.stack([-obs[:, 2], obs[:, 2]], dim=1)), None

    np.savez(tmp_path / "log.npz", observations=observations(n=600), dones=np.arange(600) % 50 == 49)
    params: dict[str, Any] = {"learning_rate": 0.01, "temperature": 1.0, "batch_size": 64, "learning_starts": 100}
    params |= {"value_coef": 0.0} if algo == "qpd" else {}
    found = fit(tmp_path / "log.npz", Side(), algo, n_timesteps=700, device="cpu", **params)
    assert found.n_steps == 50 and found.alike["agreement"] > 0.8
    assert "agreement with the teacher on 50 held-out steps (1 episode)" in found.describe()
    held_out = hold_out(read_log(tmp_path / "log.npz", CARTPOLE), 0.1, np.random.default_rng(0))[1][0]
    actions = found.model.predict(held_out, deterministic=True)[0]
    assert np.mean(actions == (held_out[:, 2] > 0)) == pytest.approx(found.alike["agreement"])


def test_the_verb(log: Path, ppo_teacher: PPO, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ppo_teacher.save(tmp_path / "CartPole-v1")
    student = tmp_path / "student.zip"
    command = ["fit", str(log), "--teacher", str(tmp_path / "CartPole-v1.zip"), "-o", str(student), "-n", "40"]
    command += ["--params", "batch_size:8", "learning_starts:8", "--frame-stack", "2"]
    assert main([*command, "--env", "CartPole-v1", "--n-episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert "agreement with the teacher" in out and out.count("CartPole-v1.zip") == 1 and str(student) in out
    # Its zip says where it plays, and who taught it.
    agent = load_teacher(student, device="cpu")
    assert (agent.algo, agent.env_id) == ("qpd", "CartPole-v1") and agent.facts.taught_by is not None
    assert agent.observation_space.shape == (8,) and agent.frame_stack == 2
    # And how many observations it sees at once
    assert main(["evaluate", str(student), "-n", "2", "--device", "cpu"]) == 0
    assert str(student) in capsys.readouterr().out


def test_the_environment_of_the_score_is_checked_first(
    log: Path, ppo_teacher: PPO, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ppo_teacher.save(tmp_path / "CartPole-v1")
    command = ["fit", str(log), "--teacher", str(tmp_path / "CartPole-v1.zip"), "-o", str(tmp_path / "s.zip")]
    assert main([*command, "--env", "Pendulum-v1"]) == 1
    assert "cannot play Pendulum-v1" in capsys.readouterr().err and not (tmp_path / "s.zip").exists()
    teacher: Any = SimpleNamespace(
        source="stacked.zip",
        env_id="CartPole-v1",
        observation_space=VecFrameStack(DummyVecEnv([lambda: gym.make("CartPole-v1")]), 2).observation_space,
        action_space=spaces.Discrete(2),
        facts=SimpleNamespace(recipe=EnvRecipe(frame_stack=2), student_keys=None, flat_keys=None),
    )
    check_playable(teacher, "CartPole-v1", 1)
    with pytest.raises(ValueError, match="--frame-stack 3: the teacher's observations in CartPole-v1 are 2 stacked"):
        check_playable(teacher, "CartPole-v1", 3)


def test_a_student_is_scored_in_the_wrappers_of_its_teacher(ppo_teacher: PPO, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, student = (load_teacher(ppo_teacher, device="cpu") for _ in range(2))
    teacher.facts = replace(teacher.facts, recipe=EnvRecipe(wrappers=[NamedWrapper("a.Wrapper")]))
    seen = []
    monkeypatch.setattr("sb3_distill.fit.cli.score_agent", lambda agent, *_, **__: seen.append(agent.facts.recipe))
    monkeypatch.setattr("sb3_distill.fit.cli.row_of", lambda *_: None)
    monkeypatch.setattr("sb3_distill.fit.cli.cells_of", lambda _: header(1.0))
    monkeypatch.setattr("sb3_distill.fit.cli.footnotes", lambda *_: [])
    score(student, teacher, "CartPole-v1", 1, 0, 3)
    assert [recipe.wrappers for recipe in seen] == [[NamedWrapper("a.Wrapper")]] * 2 and seen[1].frame_stack == 3


def test_what_an_onnx_file_does_not_say(log: Path, tmp_path: Path) -> None:
    """It is kept with the student, so that its teacher is found again."""
    pytest.importorskip("onnxruntime")
    linear = pytest.importorskip("tests.agents.onnx_files").linear
    options = ["--teacher-kwargs", "answers:'q_values'", "--algo", "pd", "-n", "40", "--params", "learning_starts:8"]
    path, student = linear(tmp_path / "policy.onnx", 4, 2, target="scores"), tmp_path / "student.zip"
    assert main(["fit", str(log), "--teacher", str(path), "-o", str(student), *options]) == 0
    facts = load_teacher(student, device="cpu").facts
    assert (facts.taught_by, facts.teacher_kwargs) == (str(path), {"answers": "q_values"})


def test_continuous_actions(gaussian_teacher: A2C, tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", observations=observations(PENDULUM))
    found, again = (fit(tmp_path / "log.npz", gaussian_teacher, n_timesteps=60, device="cpu") for _ in range(2))
    # Same seed, same bits
    assert same(found.model.policy, again.model.policy) and found.alike == again.alike
    assert type(found.model).__name__ == "QPD" and found.alike["action_distance"] >= 0
    assert f"on {round(0.1 * N)} held-out steps (1 episode)" in found.describe()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"obs": observations()}, "has the arrays obs, but no observations"),
        ({"observations": observations()[:, :3]}, r"shape \(3,\), the teacher's of \(4,\)"),
        ({"observations": observations(), "dones": ENDS[1:]}, rf"dones must be numbers of the shape \({N},\)"),
        ({"observations": observations(), "dones": np.where(ENDS, np.nan, 0)}, "its dones hold NaN"),
        ({"observations": observations() + 1j}, "not of numbers"),
        ({"observations": np.full((5, 4), np.nan)}, "NaN or infinite"),
        ({"observations": np.full((5, 4), 1e300)}, "too large for float32"),
        ({"observations": np.array([object()])}, "not of numbers"),
        ({"observations": np.zeros((0, 4))}, "no episode"),
        ({"observations": np.float32(1)}, "a single number"),
    ],
)
def test_a_log_that_cannot_be_used_is_named(arrays: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", **arrays)
    with pytest.raises(LogError, match=message) as caught:
        read_log(tmp_path / "log.npz", CARTPOLE)
    assert "log.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "number", "message"),
    [(np.int64, 300, "from 0 to 300, the teacher's int8 only from -128 to 127"), (np.uint8, 128, "from 0 to 128")],
)
def test_whole_numbers_do_not_wrap(dtype: Any, number: int, message: str, tmp_path: Path) -> None:
    space = spaces.Box(-128, 127, (4,), np.int8)
    rows = np.zeros((5, 4), dtype=dtype)
    for last, message_of in ((100, None), (number, message)):
        rows[-1, -1] = last
        np.savez(tmp_path / "log.npz", observations=rows)
        if message_of is None:
            assert np.array_equal(read_log(tmp_path / "log.npz", space)[0], rows)
        else:
            with pytest.raises(LogError, match=message_of):
                read_log(tmp_path / "log.npz", space)


def test_pictures_in_bytes_need_a_scale(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", observations=np.zeros((5, 1, 8, 8), np.uint8))
    with pytest.raises(LogError, match=r"pictures in bytes, and the teacher's float32: say by what they are divided"):
        read_log(tmp_path / "log.npz", spaces.Box(-np.inf, np.inf, (1, 8, 8), np.float32))


def test_a_folder_that_is_no_recording_is_not_to_be_deleted(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"holds no whole recording: it has no recording.json. Name") as caught:
        read_log(tmp_path, CARTPOLE)
    assert "Delete" not in str(caught.value)


def test_a_learning_rate_that_falls(log: Path, ppo_teacher: PPO) -> None:
    found = fit(log, ppo_teacher, n_timesteps=40, device="cpu", learning_rate="lin_1e-3")
    assert 0 <= found.model.policy.optimizer.param_groups[0]["lr"] < 1e-3


@pytest.mark.parametrize("n_timesteps", [4, 40])
def test_short_fits_learn(n_timesteps: int, log: Path, ppo_teacher: PPO) -> None:
    found = fit(log, ppo_teacher, n_timesteps=n_timesteps, device="cpu")
    assert found.model.learning_starts == n_timesteps // 10 and found.model._n_updates > 0
    with pytest.raises(ValueError, match=f"n_timesteps={n_timesteps} must be more than learning_starts=40"):
        fit(log, ppo_teacher, n_timesteps=n_timesteps, learning_starts=40)


class OfParts:
    """Sees a state and a goal."""

    observation_space, action_space = spaces.Dict({"goal": PENDULUM, "state": CARTPOLE}), spaces.Discrete(2)

    def answer(self, obs: Any, state: Any, episode_start: np.ndarray) -> tuple[Answers, Any]:
        preference = 5 * (obs["state"][:, 2] + obs["goal"][:, 0])
        return Answers(log_probs=th.stack([-preference, preference], dim=1)), None


@pytest.mark.parametrize("student_keys", [None, "state"])
def test_dict_observations(student_keys: str | None, tmp_path: Path) -> None:
    goals = observations(PENDULUM)
    np.savez(tmp_path / "log.npz", **{"observations/state": observations(), "observations/goal": goals}, dones=ENDS)
    keys = {} if student_keys is None else {"student_keys": student_keys}
    found = fit(tmp_path / "log.npz", OfParts(), n_timesteps=4 * N, value_coef=0.0, device="cpu", **keys)
    stored: Any = found.model.replay_buffer.stores
    assert set(stored) == ({"goal", "state"} if student_keys is None else {""})
    # The answers are those to both parts, whatever the student sees.
    kept, _ = hold_out(read_log(tmp_path / "log.npz", OfParts.observation_space), 0.1, np.random.default_rng(0))
    seen = {key: np.concatenate([episode.parts[key] for episode in kept]) for key in ("goal", "state")}  # type: ignore[union-attr]
    answers, _ = OfParts().answer({key: th.as_tensor(part) for key, part in seen.items()}, None, np.zeros(0))
    expected = answers.log_probs.log_softmax(dim=1)  # type: ignore[union-attr]
    assert np.allclose(found.model.replay_buffer.answers["log_probs"][:, 0], expected, atol=1e-5)
    assert 0.0 <= found.alike["agreement"] <= 1.0


def test_dict_observations_are_not_stacked(tmp_path: Path) -> None:
    # Before the log is read
    (tmp_path / "log.npz").touch()
    with pytest.raises(ValueError, match=r"frame_stack=2: .* several at once only of a Box.*leave out frame_stack"):
        fit(tmp_path / "log.npz", OfParts(), frame_stack=2, device="cpu")


def test_other_mistakes_are_named(
    log: Path, ppo_teacher: PPO, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LogError, match="no such file, folder or Minari dataset"):
        read_log(tmp_path / "none.npz", CARTPOLE)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(LogError, match=r"text\.npz cannot be used"):
        read_log(tmp_path / "text.npz", CARTPOLE)
    with pytest.raises(LogError, match=r"has the arrays observations, episode_starts, but no observations/a \(n_steps"):
        read_log(log, spaces.Dict({"a": CARTPOLE}))
    with pytest.raises(LogError, match=r"observes Dict\('a': Discrete\(2\)\): a log holds arrays of numbers"):
        read_log(log, spaces.Dict({"a": spaces.Discrete(2)}))
    np.savez(tmp_path / "keys.npz", **{"observations/a": observations(), "observations/b": observations(n=3)})
    with pytest.raises(LogError, match="different numbers of steps: 40 of a, 3 of b"):
        read_log(tmp_path / "keys.npz", spaces.Dict({"a": CARTPOLE, "b": CARTPOLE}))
    with pytest.raises(LogError, match=r"its observations \(a\) are of the shape \(4,\), the teacher's of \(3,\)"):
        read_log(tmp_path / "keys.npz", spaces.Dict({"a": PENDULUM}))
    with pytest.raises(LogError, match=r"float32, the teacher's uint8"):
        read_log(log, spaces.Box(0, 255, (4,), np.uint8))
    with pytest.raises(ValueError, match="Unknown algorithm of a log 'ppd'"):
        fit(log, ppo_teacher, "ppd")
    with pytest.raises(ValueError, match="frame_stack must be a number from 1 to 100, not 101"):
        fit(log, ppo_teacher, frame_stack=101)
    with pytest.raises(ValueError, match="rollout_policy is no parameter"):
        fit(log, ppo_teacher, rollout_policy="student")
    ppo_teacher.save(tmp_path / "CartPole-v1")
    common = ["fit", str(log), "--teacher", str(tmp_path / "CartPole-v1.zip"), "-o", str(tmp_path / "s.zip")]
    # Before the teacher is read
    assert main(["fit", "none.npz", "--teacher", "none.zip", *common[4:]]) == 1
    assert "The log none.npz cannot be used: there is no such file" in capsys.readouterr().err
    # Before the log is read
    unread = ["fit", str(tmp_path / "text.npz"), *common[2:]]
    assert main([*unread, "--params", "learning_rat:1"]) == 1
    error = capsys.readouterr().err
    assert "Unknown argument of qpd 'learning_rat'" in error and "Did you mean 'learning_rate'?" in error
    assert main([*unread, "--params", "loss:'kl'"]) == 1 and "of qpd 'loss'" in capsys.readouterr().err
    assert main([*unread, "--params", "recording:1"]) == 1 and "leave it out" in capsys.readouterr().err
    for name, option in (("seed", "--seed"), ("teacher_kwargs", "--teacher-kwargs"), ("source", "")):
        with pytest.raises(SystemExit):
            main([*unread, "--params", f"{name}:1"])
        said = f"{name} cannot be set here{option and f': use {option}'}"
        assert capsys.readouterr().err.splitlines()[0].endswith(said)
    PPO("MlpPolicy", "Acrobot-v1", device="cpu").save(tmp_path / "other")
    other = ["fit", str(log), "--teacher", str(tmp_path / "other.zip"), "-o", str(tmp_path / "s.zip")]
    assert main([*other, "--env", "CartPole-v1"]) == 1
    said = capsys.readouterr().err
    assert "cannot play CartPole-v1: it was trained with observations" in said and "on CartPole-v1" not in said
    with pytest.raises(SystemExit):
        main([*common[:-1], str(tmp_path / "student")])
    assert "must end with .zip" in capsys.readouterr().err


def test_a_log_serves_the_algorithms_in_python(log: Path, ppo_teacher: PPO) -> None:
    """What the page shows."""
    teacher = load_teacher(ppo_teacher, device="cpu")
    episodes = read_log(log, teacher.observation_space)
    env = DummyVecEnv([lambda: LogEnv(episodes, teacher.observation_space, teacher.action_space)])
    kwargs: dict[str, Any] = {"n_teacher_episodes": 0, "learning_starts": 8, "device": "cpu"}
    model = PolicyDistillation("MlpPolicy", env, teacher, **kwargs).learn(N)
    assert np.array_equal(model.replay_buffer.stores[""][:N, 0], observations())
