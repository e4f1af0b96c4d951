"""Teachers with a picture of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack

from sb3_distill import QPD, OwnPicture, PolicyDistillation, load_teacher
from sb3_distill.cli import main
from sb3_distill.envs.imports import _named_packages
from sb3_distill.resume.resume import resume
from tests.envs.pictures import Blind, Watcher, make_watcher, place_of, rendered_row, row_of_dot, small_screen
from tests.helpers import status_of

ROW = "tests.envs.pictures:row_of_dot"
QUICK: dict[str, Any] = {"learning_starts": 16, "n_teacher_episodes": 1, "device": "cpu", "seed": 0}
KEYS: dict[str, Any] = {"teacher_keys": "picture", "student_keys": "state"}


def games(vec_env_cls: type[VecEnv] = DummyVecEnv, **kwargs: Any) -> VecFrameStack:
    env = make_vec_env(
        "Dot-v0",
        2,
        seed=0,
        wrapper_class=OwnPicture,
        wrapper_kwargs={"function": row_of_dot},
        vec_env_cls=vec_env_cls,
        **kwargs,
    )
    return VecFrameStack(env, 4)


@pytest.mark.parametrize("of", ["screen", "env"])
def test_a_function_makes_the_picture(of: str) -> None:
    env = OwnPicture(gym.make("Dot-v0"), row_of_dot if of == "screen" else place_of, of=of)
    assert env.observation_space["picture"].dtype == np.float32  # type: ignore[index]
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        place = env.get_wrapper_attr("place")
        expected = [place] if of == "env" else [[float(column == place // 2) for column in range(8)]]
        assert np.array_equal(obs["picture"], expected) and env.observation_space.contains(obs)
        obs, *_ = env.step(0)
    assert env.unwrapped.render_mode is None


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, SubprocVecEnv])
def test_the_teacher_sees_it_and_the_student_does_not(
    vec_env_cls: type[VecEnv], capsys: pytest.CaptureFixture[str]
) -> None:
    # Forked, because other processes take seconds to begin
    options = {"vec_env_kwargs": {"start_method": "fork"}} if vec_env_cls is SubprocVecEnv else {}
    teacher = make_watcher()
    model = QPD("MlpPolicy", games(vec_env_cls, **options), teacher, value_coef=0.0, verbose=1, **QUICK, **KEYS)
    assert model.learn(80).observation_space.shape == (4,) and model._n_updates > 0
    assert "sees 4 stacked observations, the teacher object:tests.envs.pictures.Watcher the newest" in (
        capsys.readouterr().out
    )
    # The same actions once more: what the teacher answered is what it says to the pictures of this stream.
    stored = model.replay_buffer.stores[""][:20, 0]
    game, state = OwnPicture(gym.make("Dot-v0"), row_of_dot), None
    obs, _ = game.reset(seed=0)
    for step in range(11):
        answers, state = load_teacher(teacher, device="cpu").answer(th.as_tensor(obs["picture"])[None], state)
        assert np.allclose(model.replay_buffer.answers["log_probs"][step, 0], answers.log_probs[0], atol=1e-5)
        obs, *_ = game.step(int(stored[step + 1, -1]))
    assert model._reference is not None and model._reference.score is not None
    model.env.close()  # type: ignore[union-attr]


def test_from_the_zoo_and_when_it_is_evaluated(
    zoo: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sb3_distill.envs.imports._NAMED", set())
    wrapper = f"env_wrapper:{{'sb3_distill.OwnPicture': {{'function': '{ROW}'}}}}"
    run = ["--algo", "pd", "--env", "Dot-v0", "-n", 60, "--eval-freq", 40, "--eval-episodes", 1, "--seed", 1]
    params = ["-params", wrapper, "teacher_keys:'picture'", "student_keys:'state'", "frame_stack:4", "n_envs:1"]
    params += ["teacher:'tests.envs.pictures:make_watcher'", "learning_starts:20", "n_teacher_episodes:1"]
    monkeypatch.chdir(tmp_path)
    assert status_of(["zoo", "train", *map(str, run), *params]) == 2
    said = capsys.readouterr().err
    assert "function of OwnPicture is tests.envs" in said and "Importing tests runs its code" in said
    named = ["--gym-packages", "tests.envs.pictures"]
    zoo(tmp_path, "train", *named, *run, *params)
    zoo(tmp_path, "enjoy", *named, "--algo", "pd", "--env", "Dot-v0", "-f", "logs", "-n", 12, "--no-render")
    student = str(next((tmp_path / "logs/pd").glob("Dot-v0_*/Dot-v0.zip")).parent)
    monkeypatch.setattr("sb3_distill.envs.imports._NAMED", set())
    monkeypatch.setattr("sys.argv", ["sb3-distill"])
    assert main(["evaluate", student, "-n", "2"]) == 1
    assert "if you trust it, pass --gym-packages tests" in capsys.readouterr().err
    evaluate = ["evaluate", student, "-n", "2", "--teacher", "tests.envs.pictures:make_watcher", *named]
    assert main(evaluate) == 0 and "make_watcher" in capsys.readouterr().out


@pytest.mark.ci
def test_in_the_processes_of_a_run_and_of_one_that_goes_on(zoo: Callable[..., str], tmp_path: Path) -> None:
    wrapper = f"env_wrapper:{{'sb3_distill.OwnPicture': {{'function': '{ROW}'}}}}"
    PPO("MultiInputPolicy", OwnPicture(gym.make("Dot-v0"), row_of_dot), seed=0, device="cpu").save(tmp_path / "ppo")
    options = ["--gym-packages", "tests.envs.pictures", "--algo", "qpd", "--env", "Dot-v0", "--vec-env", "subproc"]
    options += ["-n", 100, "--eval-freq", -1, "--save-freq", 40, "--seed", 1]
    params = [wrapper, f"teacher:'{tmp_path / 'ppo.zip'}'", "student_keys:'state'", "n_envs:2", "learning_starts:20"]
    zoo(tmp_path, "train", *options, "-params", *params, "n_teacher_episodes:0")
    (run,) = (tmp_path / "logs/qpd").iterdir()
    for path in run.glob("*.zip"):
        path.unlink()
    resume(run)
    assert load_teacher(run, device="cpu").observation_space.shape == (1,)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("train --gym-packages first.part second --seed 1", {"first", "second"}),
        ("train --gym-packages=first -params teacher:'other:make'", {"first"}),
        ("train -params gym_packages:first", set()),
    ],
)
def test_packages_are_named_on_the_command_line(words: str, named: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_distill.envs.imports._NAMED", set())
    monkeypatch.setattr("sys.argv", words.split())
    assert _named_packages() == named


def test_a_teacher_of_single_screens_and_a_student_of_the_stock_stack(capsys: pytest.CaptureFixture[str]) -> None:
    def wrap(env: gym.Env) -> gym.Env:
        return OwnPicture(AtariWrapper(env), small_screen)

    env = make_vec_env("PongNoFrameskip-v4", 2, seed=0, wrapper_class=wrap, env_kwargs={"render_mode": None})
    teacher = Watcher(spaces.Box(0, 255, (80, 80), np.uint8), 6)
    options = {**QUICK, "n_teacher_episodes": 0, "learning_starts": 16, "buffer_size": 100, "batch_size": 8}
    model = PolicyDistillation("Net3Policy", VecFrameStack(env, 4), teacher, verbose=1, **options, **KEYS)
    said = capsys.readouterr().out
    assert "Stepping the Atari games in Python: they have the wrapper OwnPicture, which needs the raw screen" in said
    assert "sees 4 stacked observations" in said
    model.learn(40)
    assert model.observation_space.shape == (4, 84, 84) and model._n_updates > 0
    answers = model.replay_buffer.answers["log_probs"][:20]
    assert len(np.unique(answers[:, 0].round(5), axis=0)) > 1


@pytest.mark.parametrize(
    ("function", "kwargs", "message"),
    [
        (row_of_dot, {"of": "frame"}, "of"),
        (lambda screen: screen.astype(np.int64), {}, r"<lambda>, .* bytes \(uint8\) or floats, not int64"),
        (lambda screen: None, {}, "not object of the shape"),
        ("row_of_dot", {}, "must be package.module:function, not 'row_of_dot'"),
        ("os:getcwd", {}, "Importing os runs its code"),
        (row_of_dot, {"key": "state"}, "another name than 'state'"),
    ],
)
def test_what_makes_no_picture_is_named(function: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OwnPicture(gym.make("Dot-v0"), function, **kwargs)


def test_pictures_must_be_alike_and_images_of_one_order() -> None:
    with pytest.raises(ValueError, match=r"renders RGB arrays; .* With of='env'"):
        OwnPicture(Blind(), row_of_dot)
    sizes = iter([2, 2, 3])
    env = OwnPicture(gym.make("Dot-v0"), lambda _: np.zeros(next(sizes)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"of the shape \(3,\) .* its first one was \(2,\)"):
        env.step(0)
    atari = AtariWrapper(gym.make("PongNoFrameskip-v4"))
    with pytest.raises(ValueError, match=r"shape \(1, 80, 80\), and those of the environment are \(84, 84, 1\)"):
        OwnPicture(atari, lambda screen: small_screen(screen)[None])


@pytest.mark.parametrize("of", ["screen", "env"])
def test_what_records_episodes_sees_none_before_the_first(of: str, tmp_path: Path) -> None:
    def wrap(env: gym.Env) -> gym.Env:
        video = gym.wrappers.RecordVideo(env, str(tmp_path), episode_trigger=lambda _: False)
        return OwnPicture(video, row_of_dot if of == "screen" else rendered_row, of=of)

    env = make_vec_env(
        "Dot-v0", 1, seed=0, wrapper_class=wrap, monitor_kwargs={"allow_early_resets": False}, vec_env_cls=DummyVecEnv
    )
    # An episode of 12 steps, and the next
    assert env.get_attr("episode_id") == [-1]
    assert env.reset()["picture"].shape == (1, 1, 8)  # type: ignore[call-overload]
    infos = [env.step(np.zeros(1, int))[3][0] for _ in range(13)]
    assert infos[11]["episode"]["l"] == 12 and env.get_attr("episode_id") == [1]


def test_the_first_reset_of_an_atari_game_is_a_real_one() -> None:
    """It is not one of a game that went on from a lost life."""

    def first(env: gym.Env) -> Any:
        return env.reset(seed=3)[0]

    atari = [AtariWrapper(gym.make("BreakoutNoFrameskip-v4")) for _ in range(2)]
    assert np.array_equal(first(OwnPicture(atari[0], small_screen))["state"], first(atari[1]))


@pytest.mark.parametrize(
    ("function", "vec_env"),
    [
        ("fails", "dummy"),
        ("fails_at_the_border", "dummy"),
        pytest.param("fails", "subproc", marks=pytest.mark.ci),
        pytest.param("fails_at_the_border", "subproc", marks=pytest.mark.ci),
    ],
)
def test_a_function_that_fails_is_named_with_its_reason(
    function: str, vec_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # The command sets it.
    monkeypatch.setattr("sys.argv", [])
    named = f"tests.envs.pictures:{function}"
    command = ["--algo", "pd", "--env", "Dot-v0", "--gym-packages", "tests.envs.pictures", "-n", "100"]
    command += ["--vec-env", vec_env, "--eval-freq", "-1", "-params"]
    command += [f"env_wrapper:{{'sb3_distill.OwnPicture': {{'function': '{named}'}}}}", "n_teacher_episodes:0"]
    command += ["teacher:'tests.envs.pictures:make_watcher'", "teacher_keys:'picture'", "student_keys:'state'"]
    assert status_of(["zoo", "train", *command]) == 2
    said = f"{named}, the function of OwnPicture, failed (KeyError: 'ball')."
    if vec_env == "subproc":
        # That one is said by the process itself, where this test does not hear it.
        said = "The process of an environment has ended. Its error stands above; with --vec-env dummy"
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"sb3-distill zoo train: error: {said}")
