"""Scores are made in the environment of the run: `evaluate` and the Zoo's `enjoy` give the same returns."""

import json
import re
import sys
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import yaml

from sb3_distill import OwnPicture, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.envs import imports
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import EnvRecipe, NamedWrapper, read_wrappers
from sb3_distill.evaluation.cli import main
from sb3_distill.evaluation.environments import find_env_id, make_env_of, play_where_it_taught
from sb3_distill.evaluation.games import Game, add_teachers
from tests.envs.pictures import row_of_dot

PACKAGE = "tests.evaluation.walk"
WALK = "Walk-v0"
PONG, BREAKOUT = "PongNoFrameskip-v4", "BreakoutNoFrameskip-v4"
DQN = {"policy": "MlpPolicy", "n_timesteps": 40, "learning_starts": 10, "buffer_size": 100}
PPO = {"policy": "MlpPolicy", "n_timesteps": 32, "n_steps": 16, "batch_size": 16}
STUDENT = {"policy": "MlpPolicy", "n_timesteps": 40, "learning_starts": 10, "batch_size": 8, "n_teacher_episodes": 0}
TIME = "sb3_contrib.common.wrappers.TimeFeatureWrapper"
MIRROR = {f"{PACKAGE}.Mirror": {"factor": 3}}
# What a run may say of its environments
RUNS = {
    "frames of vectors": {"frame_stack": 3},
    "wrappers": {"env_wrapper": [{TIME: {"max_steps": 30}}, MIRROR]},
    "the Zoo's": {
        "env_wrapper": [{"rl_zoo3.wrappers.FrameSkip": {"skip": 2}}, "gymnasium.wrappers.FlattenObservation"]
    },
    "of all": {
        "env_wrapper": TIME,
        "vec_env_wrapper": "stable_baselines3.common.vec_env.VecCheckNan",
        "frame_stack": 2,
    },
    "normalised": {"normalize": True},
    "arguments": {"env_kwargs": {"length": 12}},
}


def train(zoo, folder: Path, algo: str, env: str, hyperparams: dict, *arguments) -> Path:
    config = folder / f"{algo}.yml"
    config.write_text(yaml.safe_dump({env: hyperparams}))
    packages = ["--gym-packages", PACKAGE] if env == WALK else []
    options = ["--conf-file", config, "--seed", 1, "--eval-freq", -1, *packages, *arguments]
    zoo(folder, "train", "--algo", algo, "--env", env, "-f", folder, *options)
    return folder / algo / f"{env.replace(':', '-').replace('/', '-')}_1"


def enjoy(zoo, folder: Path, algo: str, env: str, seed: int, n_steps: int) -> list[float]:
    options = ["--seed", seed, "-n", n_steps, "--no-render", "--deterministic"]
    printed = zoo(folder, "enjoy", "--algo", algo, "--env", env, "-f", folder, *options)
    return [float(score) for score in re.findall(r"Episode (?:Reward|Score): (\S+)", printed)]


def evaluate(capsys, run: Path, *arguments) -> list[float]:
    """Returns of the run's agent, which is the last row."""
    assert main([str(run), "--json", *map(str, arguments)]) == 0
    return [round(value, 2) for value in json.loads(capsys.readouterr().out)["agents"][-1]["returns"]]


@pytest.mark.parametrize("name", RUNS)
def test_evaluate_gives_the_returns_of_enjoy(name, zoo, capsys, tmp_path):
    run = train(zoo, tmp_path, "dqn", WALK, {**DQN, **RUNS[name]})
    expected = [enjoy(zoo, tmp_path, "dqn", WALK, seed, 70)[0] for seed in range(3)]
    assert len(set(expected)) == 3
    assert evaluate(capsys, run, "-n", 3) == expected
    assert evaluate(capsys, run, "-n", 1, "--seed", 2) == expected[2:]


@pytest.mark.parametrize(
    ("algo", "teacher"), [("pd", DQN), ("qpd", PPO), ("rtpd", None), ("a2c", None), ("qrdqn", None), ("ppo", None)]
)
def test_evaluate_gives_the_returns_of_enjoy_for_every_algorithm(algo, teacher, zoo, capsys, tmp_path):
    wrapped = {"frame_stack": 2, "env_wrapper": [{TIME: {"max_steps": 30}}, MIRROR]}
    own = {
        "a2c": {"policy": "MlpPolicy", "n_timesteps": 20},
        "ppo": PPO,
        "rtpd": {**DQN, "students": None, "eval_freq": -1},
    }
    hyperparams = {**own.get(algo, DQN), **wrapped}
    if teacher is not None:
        source = train(zoo, tmp_path, "ppo" if algo == "qpd" else "dqn", WALK, {**teacher, **wrapped})
        hyperparams = {**STUDENT, **wrapped, "teacher": str(source)}
    run = train(zoo, tmp_path, algo, WALK, hyperparams)
    expected = [enjoy(zoo, tmp_path, algo, WALK, seed, 70)[0] for seed in range(2)]
    assert evaluate(capsys, run, "-n", 2) == expected


def test_continuous_actions_with_a_history(zoo, capsys, tmp_path):
    hyperparams = {**PPO, "env_wrapper": [{"rl_zoo3.wrappers.HistoryWrapper": {"horizon": 3}}], "normalize": True}
    run = train(zoo, tmp_path, "ppo", WALK, hyperparams, "--env-kwargs", "continuous:True")
    assert evaluate(capsys, run, "-n", 1) == enjoy(zoo, tmp_path, "ppo", WALK, 0, 70)[:1]


@pytest.mark.parametrize(
    ("env", "hyperparams", "arguments"),
    [
        # A greedy agent that has learned nothing does not fire: the Zoo's wrappers do, after every life.
        (BREAKOUT, {"policy": "CnnPolicy", "env_wrapper": ["AtariWrapper"], "frame_stack": 4}, ()),
        (
            BREAKOUT,
            {"policy": "CnnPolicy", "env_wrapper": [{"AtariWrapper": {"screen_size": 42, "frame_skip": 8}}]},
            (),
        ),
        (BREAKOUT, {"policy": "MlpPolicy"}, ("--env-kwargs", "obs_type:'ram'", "max_num_frames_per_episode:400")),
    ],
)
def test_evaluate_gives_the_scores_of_enjoy_on_atari(env, hyperparams, arguments, zoo, capsys, tmp_path):
    wrapper = "stable_baselines3.common.atari_wrappers.AtariWrapper"
    text = yaml.safe_dump(hyperparams).replace("AtariWrapper", wrapper)
    run = train(zoo, tmp_path, "dqn", env, {**DQN, **yaml.safe_load(text)}, *arguments)
    scores = enjoy(zoo, tmp_path, "dqn", env, 0, 400)
    assert evaluate(capsys, run, "-n", 1, "--no-native") == scores[:1]


def test_what_files_name_is_not_imported(zoo, tmp_path, monkeypatch, capsys):
    trusted = set(imports._TRUSTED)
    (tmp_path / "stranger.py").write_text(
        "import gymnasium\nfrom tests.evaluation import walk\n"
        "class Mirror(walk.Mirror): pass\ngymnasium.register('Stranger-v0', walk.Walk)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def forget():
        monkeypatch.setattr(imports, "_TRUSTED", set(trusted))
        del sys.modules["stranger"], gym.registry["Stranger-v0"]

    options = ["--gym-packages", "stranger"]
    run = train(zoo, tmp_path, "dqn", "Stranger-v0", {**DQN, "env_wrapper": ["stranger.Mirror"]}, *options)
    forget()
    for arguments, message in (
        ([], "Its run had --gym-packages stranger: pass it if you trust it"),
        (["--env", "CartPole-v1"], "Importing stranger runs its code: if you trust it, pass --gym-packages stranger"),
        (["--gym-packages", "nothing_here"], "--gym-packages: nothing_here cannot be imported"),
    ):
        assert main([str(run), "-n", "1", *arguments]) == 1
        assert message in capsys.readouterr().err and "stranger" not in sys.modules
    for arguments in (options, ["--allow-import"]):
        assert main([str(run), "-n", "1", *arguments]) == 0
        assert "% of teacher" in capsys.readouterr().out
        forget()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"env_wrapper": "unknown_package.Wrapper"}, "Importing unknown_package runs its code"),
        ({"env_wrapper": "gymnasium.wrappers.Nothing"}, "gymnasium.wrappers.Nothing, which cannot be imported"),
        ({"env_wrapper": "gymnasium.make"}, "names gymnasium.make, which is not a gymnasium Wrapper"),
        ({"env_wrapper": {"gymnasium.wrappers.RecordVideo": {"video_folder": "x"}}}, "which writes files"),
        (
            {"env_wrapper": {"gymnasium.wrappers.TimeLimit": {"steps": 3}}},
            "cannot be put on the environment (TypeError",
        ),
        ({"env_wrapper": "sb3_distill.__main__.main"}, "Importing sb3_distill runs its code"),
        ({"vec_env_wrapper": TIME}, "not a stable_baselines3 VecEnvWrapper"),
        ({"env_wrapper": [3]}, "must be the name of a wrapper, or a name with arguments, not 3"),
        ({"frame_stack": "four"}, "frame_stack must be a number of frames, not 'four'"),
        ({"env_wrapper": None, "frame_stack": 2}, "cannot play CartPole-v1: it was trained with observations"),
    ],
)
def test_what_cannot_be_applied_is_refused(entries, message, cartpole_teacher, tmp_path, capsys):
    folder = tmp_path / "dqn" / "CartPole-v1_1" / "CartPole-v1"
    folder.mkdir(parents=True)
    folder.with_suffix(".zip").write_bytes(cartpole_teacher.read_bytes())
    (folder / "config.yml").write_text(yaml.safe_dump({"policy": "MlpPolicy", **entries}))
    assert main([str(folder.parent), "-n", "1"]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_names_of_former_times_and_of_the_zoo(cartpole_teacher):
    assert imports.find_wrapper("gym.wrappers.FlattenObservation", object, "").__module__.startswith("gymnasium.")
    assert imports.find_wrapper("utils.wrappers.HistoryWrapper", object, "").__module__ == "rl_zoo3.wrappers"
    # What is imported already is not trusted because a file names it.
    imports.import_trusted(["yaml"])
    assert not imports._is_trusted("yaml.nothing")
    # Registered by the Zoo alone
    agent = load_teacher(cartpole_teacher, device="cpu")
    assert find_env_id(agent, "CartPoleNoVel-v1") == "CartPoleNoVel-v1"
    make_env_of(agent, "CartPoleNoVel-v1").close()


def test_what_is_stepped_in_another_way_is_said(tmp_path, capsys):
    model = stable_baselines3.DQN("CnnPolicy", make_eval_env(BREAKOUT), buffer_size=1, device="cpu", seed=0)
    model.save(tmp_path / BREAKOUT)
    command = [str(tmp_path / f"{BREAKOUT}.zip"), "-n", "1"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["native"] == [BREAKOUT]
    assert main(command) == 0
    assert "stepped in C++" in capsys.readouterr().out


def test_agents_in_different_wrappers_are_named(cartpole_teacher, tmp_path, capsys):
    runs = []
    for name, wrappers in (("a", None), ("b", [{TIME: {}}]), ("c", ["gymnasium.wrappers.FlattenObservation"])):
        folder = tmp_path / name / "dqn" / "CartPole-v1_1" / "CartPole-v1"
        folder.mkdir(parents=True)
        env = make_eval_env("CartPole-v1", recipe=EnvRecipe(wrappers=read_wrappers(wrappers, "")))
        stable_baselines3.DQN("MlpPolicy", env, device="cpu").save(folder.with_suffix(".zip"))
        (folder / "config.yml").write_text(yaml.safe_dump({"env_wrapper": wrappers}))
        runs.append(str(folder.parent))
    assert main([*runs, "-n", "1"]) == 0
    note = " ".join(capsys.readouterr().err.split())
    assert "they differ here" in note and f"{runs[0]}: none" in note and f"{runs[1]}: {TIME}" in note


def test_actions_of_other_bounds_are_refused(tmp_path):
    class Doubled(gym.wrappers.RescaleAction):
        def __init__(self, env):
            super().__init__(env, np.float32(-4), np.float32(4))

    agent = load_teacher(stable_baselines3.PPO("MlpPolicy", Doubled(gym.make("Pendulum-v1")), device="cpu"))
    with pytest.raises(ValueError, match=r"\[4.0\], those of the environment from \[-2.0\]"):
        make_env_of(agent, "Pendulum-v1")


def student_of_own_keys(teacher, name, keys="state", **recipe):
    env = OwnPicture(gym.make("Dot-v0"), row_of_dot)
    agent = load_teacher(stable_baselines3.PPO("MultiInputPolicy", env, device="cpu"))
    facts = {"source": name, "env_id": "Dot-v0", "teacher_keys": keys, "recipe": EnvRecipe(**recipe)}
    agent.facts = replace(agent.facts, taught_by="an object", teacher_sha256=teacher.sha256, **facts)
    return agent


def test_a_teacher_of_two_runs_saw_the_same_in_both(monkeypatch):
    monkeypatch.setattr("sb3_distill.envs.imports._NAMED", {"tests"})
    named = "tests.envs.pictures:make_watcher"
    make = partial(student_of_own_keys, load_teacher(named, device="cpu"))
    wrappers = [NamedWrapper("sb3_distill.OwnPicture", {"function": "tests.envs.pictures:row_of_dot"})]
    other = [NamedWrapper("sb3_distill.OwnPicture", {"function": "tests.envs.pictures:other"})]
    # It sees the newest of those that only the student stacks.
    game = Game("Dot-v0", [make("a", wrappers=wrappers, frame_stack=4), make("b", wrappers=tuple(wrappers))])
    add_teachers(game, named, "cpu")
    assert game.agents[0].facts.student_keys == "state" and game.agents[0].facts.recipe.frame_stack == 4
    for second in (make("b", wrappers=other), make("b", "picture", wrappers=wrappers)):
        game = Game("Dot-v0", [make("a", wrappers=wrappers), second])
        with pytest.raises(AgentError, match=r"a and b are compared.*teacher_keys=.* a command of its own"):
            add_teachers(game, named, "cpu")


def test_frames_of_a_run_are_left_out_for_teachers_of_students_alone(monkeypatch):
    monkeypatch.setattr("sb3_distill.envs.imports._NAMED", {"tests"})

    def of_frames(n):
        agent = load_teacher(stable_baselines3.PPO("MlpPolicy", "CartPole-v1", device="cpu"))
        agent.facts = replace(agent.facts, recipe=EnvRecipe(frame_stack=n))
        return agent

    with pytest.raises(ValueError, match="was trained with observations"):
        make_env_of(of_frames(2), "CartPole-v1")
    teacher = load_teacher("tests.envs.pictures:make_watcher", device="cpu")
    wrappers = [NamedWrapper("sb3_distill.OwnPicture", {"function": "tests.envs.pictures:row_of_dot"})]
    play_where_it_taught(teacher, [student_of_own_keys(teacher, "a", "picture", wrappers=wrappers, frame_stack=4)])
    with closing(make_env_of(teacher, "Dot-v0")) as env:
        assert env.observation_space.shape == (1, 8)


def test_best_is_for_runs_that_were_evaluated(tmp_path: Path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "agent.zip").touch()
    for source, said in (
        (tmp_path / "agent.zip", "is none: leave it out, or name the folder"),
        ("zoo:ppo/CartPole-v1", "--best is for run folders, and zoo:ppo/CartPole-v1 is none"),
        (tmp_path / "run", "has no best_model.zip: it is a run that made no evaluations"),
    ):
        assert main([str(source), "--best"]) == 1
        assert said in capsys.readouterr().err
