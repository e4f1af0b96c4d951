"""The verb that prints scores: whose they are, in which environment, and what its files say."""

import csv
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.evaluation.cli import find_starts, main, parse_args
from sb3_distill.evaluation.games import Game
from sb3_distill.evaluation.scoring import architecture_of
from sb3_distill.evaluation.starts import HeldOutStarts
from sb3_distill.evaluation.table import footnotes, geometric_means
from sb3_distill.results.comparison import verdict
from sb3_distill.results.row import Row
from sb3_distill.results.statistics import summarize
from tests.helpers import content_of, full_disk


class OneStart(gym.Env):
    """Always begins at 0; an action adds itself, and the sum is the observation and the reward."""

    observation_space = gym.spaces.Box(0, 100, (1,))
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sum, self.steps = 0.0, 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.sum, self.steps = self.sum + float(action), self.steps + 1
        return np.full(1, self.sum, dtype=np.float32), 1.0 + self.sum, self.steps == 20, False, {}


def row(env, agent, returns, n_parameters=10, taught_by=None):
    taught_by = taught_by or f"teacher of {env}"
    return Row(
        env, agent, "pd", n_parameters, 4 * n_parameters, mean=np.mean(returns), taught_by=taught_by, returns=returns
    )


def test_geometric_means_by_hand():
    rows = [
        row("A", "teacher of A", [100.0] * 6),
        row("A", "small, first seed", [40.0] * 6),
        row("A", "small, second seed", [50.0, 70.0] * 3),
        row("A", "large", [70.0] * 6, 90),
        row("B", "teacher of B", [100.0] * 6),
        row("B", "small", [200.0] * 6, 12),
    ]
    kinds = {"small": 1, "small, first seed": 1, "small, second seed": 1, "large": 2}
    # Of the large one there is no student in B.
    ((label, (mean, low, high)),) = geometric_means(rows, kinds).items()
    assert label == "pd, 10 to 12 parameters, 40 to 48 bytes, 1 to 2 students of each game"
    # The two seeds score 50% in the mean; how far they are from each other is not what episodes tell.
    assert mean == pytest.approx(100.0) and 85 < low < mean < high < 115
    assert any("does not say what students of other seeds" in note for note in footnotes(rows, 5.0, has_means=True))
    assert geometric_means(rows[:4], kinds) == {}


def test_games_without_a_percentage_are_named_in_the_geometric_mean():
    rows = [
        row("A", "teacher of A", [100.0] * 6),
        row("A", "first", [50.0] * 6),
        row("B", "teacher of B", [0.0] * 6),
        row("B", "second", [50.0] * 6),
    ]
    ((label, (mean, _, _)),) = geometric_means(rows, dict.fromkeys(["first", "second"], 1)).items()
    assert label.endswith(", without B") and mean == pytest.approx(50.0)


def test_geometric_means_of_students_with_different_teachers():
    rows = [
        row("A", "weak teacher", [100.0] * 6, taught_by="weak teacher"),
        row("A", "first", [50.0] * 6, taught_by="weak teacher"),
        row("A", "strong teacher", [300.0] * 6, taught_by="strong teacher"),
        row("A", "second", [150.0] * 6, taught_by="strong teacher"),
        row("B", "teacher of B", [100.0] * 6),
        row("B", "third", [50.0] * 6),
    ]
    ((label, (mean, _, _)),) = geometric_means(rows, dict.fromkeys(["first", "second", "third"], 1)).items()
    assert mean == pytest.approx(50.0) and label.endswith("1 to 2 students of each game")


@pytest.fixture(scope="module")
def student(cartpole_teacher, tmp_path_factory) -> Path:
    """A run folder of the Zoo whose best model is another one than its last."""
    run = tmp_path_factory.mktemp("logs") / "pd" / "CartPole-v1_1"
    (run / "CartPole-v1").mkdir(parents=True)
    model = PolicyDistillation(
        "MlpPolicy", "CartPole-v1", cartpole_teacher, n_teacher_episodes=0, learning_starts=50, device="cpu", seed=0
    )
    model.learn(60).save(run / "best_model")
    model.learn(100, reset_num_timesteps=False).save(run / "CartPole-v1")
    return run


def test_agents_that_differ_in_their_game_alone(student, cartpole_teacher):
    agent = load_teacher(student / "CartPole-v1.zip", device="cpu")
    acrobot = DQN("MlpPolicy", "Acrobot-v1", policy_kwargs={"net_arch": [64]}, device="cpu")
    cartpole = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [64]}, device="cpu")
    assert architecture_of(load_teacher(acrobot)) == architecture_of(load_teacher(cartpole))
    assert architecture_of(load_teacher(cartpole)) != architecture_of(load_teacher(cartpole_teacher, device="cpu"))
    assert architecture_of(load_teacher(cartpole)) != architecture_of(agent)


@pytest.mark.parametrize(
    ("algorithm", "policy", "kwargs"),
    [
        (SAC, "MlpPolicy", {}),
        (SAC, "MlpPolicy", {"use_sde": True}),
        (TD3, "MlpPolicy", {}),
        (PPO, "MlpPolicy", {}),
        (PPO, "MlpPolicy", {"use_sde": True}),
        (RecurrentPPO, "MlpLstmPolicy", {}),
    ],
)
def test_agents_with_continuous_actions_that_differ_in_their_game_alone(algorithm, policy, kwargs):
    """The game decides the size of the observations and of the actions; the critic does not act."""

    def architecture(n_observations, n_actions, width):
        game = OneStart()
        game.observation_space = gym.spaces.Box(0, 100, (n_observations,))
        game.action_space = gym.spaces.Box(-1, 1, (n_actions,))
        env = DummyVecEnv([lambda: game])
        own = {"lstm_hidden_size": width} if algorithm is RecurrentPPO else {"net_arch": [width, 6]}
        model = algorithm(policy, env, policy_kwargs=own, device="cpu", **kwargs)
        return architecture_of(load_teacher(model, device="cpu"))

    assert architecture(3, 1, 8) == architecture(5, 2, 8) != architecture(3, 1, 9)


def test_scores_are_not_lost_on_a_full_disk(student, tmp_path, capsys):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with full_disk():
        assert main([str(student), "-n", "2", "-o", str(path)]) == 1
    printed = capsys.readouterr()
    assert f"{path} cannot be written" in printed.err and str(student) in printed.out
    assert content_of(tmp_path) == {"scores.json": b"old"}


def test_best_models_and_files(student, tmp_path, capsys):
    outputs = [tmp_path / "out" / f"scores.{ending}" for ending in ("json", "csv", "md")]
    assert main([str(student), "--best", "-n", "8", "-o", *map(str, outputs)]) == 0
    assert "best_model.zip" in capsys.readouterr().out
    teacher, found = json.loads(outputs[0].read_text())["agents"]
    assert found["agent"].endswith("best_model.zip") and found["n_bytes"] > 0
    with outputs[1].open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [entry["agent"] for entry in written] == [teacher["agent"], found["agent"]]
    summary = summarize(found["returns"], found["traces"])
    for name in ("mean", "iqm"):
        ends = [float(written[1][f"{name}_interval_{end}"]) for end in ("low", "high")]
        assert ends == found[f"{name}_interval"] == pytest.approx(list(getattr(summary, f"{name}_interval")))
    assert float(written[1]["median"]) == summary.median and "returns" not in written[1]
    text = outputs[2].read_text()
    assert f"| {summary.median:.2f} |" in text
    # The per cent, its interval and the verdict, with what they are
    low, high = found["percent_interval"]
    assert [float(written[1][f"percent_interval_{end}"]) for end in ("low", "high")] == [low, high]
    for entry in (found, written[1]):
        assert entry["verdict"] == verdict((low, high), 5.0) and float(entry["margin"]) == 5
        assert entry["percent_definition"] == "signed quotient"
        assert int(entry["n_distinct"]) == int(entry["n_distinct_pairs"]) == 8
    assert f"| {found['percent_of_teacher']:.1f} ({low:.1f} to {high:.1f}) | {found['verdict']} |" in text
    assert "% of teacher: the signed quotient 100 + 100 (score - teacher) / |teacher|" in text
    # The teacher is not compared with itself.
    assert teacher["percent_of_teacher"] == 100 and not {"verdict", "percent_interval"} & teacher.keys()


def test_margin(student, capsys):
    assert main([str(student), "-n", "8", "--margin", "99"]) == 0
    header, _, found, *notes = capsys.readouterr().out.splitlines()[1:]
    assert header.endswith("margin 99%") and found.endswith("not worse")
    assert "margin 99%: not worse if the interval is above 1%" in notes[0]


def test_repeated_episodes_are_shown(tmp_path, capsys):
    """A deterministic game: all episodes of a greedy agent are one."""
    gym.register("OneStart-v0", entry_point=OneStart)
    try:
        for name, seed in (("teacher", 0), ("student", 1)):
            model = DQN("MlpPolicy", "OneStart-v0", policy_kwargs={"net_arch": [4]}, device="cpu", seed=seed)
            model.save(tmp_path / name)
        agents = [str(tmp_path / "student.zip"), "--teacher", str(tmp_path / "teacher.zip"), "--env", "OneStart-v0"]
        assert main([*agents, "-n", "20"]) == 0
        out = capsys.readouterr().out
        assert out.count("20 (1 distinct)") == 2 and out.count("undecided") == 2
        assert "Some episodes are exact repeats of others" in out and "fewer than 6 distinct episodes" in out
        # With random actions they differ.
        assert main([*agents, "-n", "20", "--epsilon", "0.5"]) == 0
        out = capsys.readouterr().out
        assert "distinct)" not in out and out.count(" to ") >= 3
    finally:
        del gym.registry["OneStart-v0"]


def test_arguments_of_the_environment(student, tmp_path, capsys):
    arguments = student / "CartPole-v1" / "args.yml"
    arguments.write_text(
        "!!python/object/apply:collections.OrderedDict\n- - - env_kwargs\n    - {max_episode_steps: 7}\n"
    )
    try:
        # The run's own, for its teacher too
        assert main([str(student), "-n", "2", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert [entry["returns"] for entry in result["agents"]] == [[7, 7], [7, 7]]
        assert result["env_kwargs"] == {"CartPole-v1": {"max_episode_steps": 7}}
        assert main([str(student), "-n", "2", "--json", "--env-kwargs", "max_episode_steps:5"]) == 0
        assert json.loads(capsys.readouterr().out)["agents"][1]["returns"] == [5, 5]
        other = tmp_path / "pd" / "CartPole-v1_1"
        (other / "CartPole-v1").mkdir(parents=True)
        (other / "CartPole-v1.zip").write_bytes((student / "CartPole-v1.zip").read_bytes())
        both = [str(student), str(other), "-n", "1", "--json"]
        # None at all are different ones too, where a run says so.
        for text in ("env_kwargs: {max_episode_steps: 9}\n", "env_kwargs: null\n"):
            (other / "CartPole-v1" / "args.yml").write_text(text)
            assert main(both) == 1
            assert "trained with different arguments of the environment" in capsys.readouterr().err
        assert main([*both, "--env-kwargs"]) == 0
        assert json.loads(capsys.readouterr().out)["agents"][1]["returns"][0] > 7
        # They are those of the run's own environment.
        assert main([str(student), "-n", "1", "--json", "--env", "CartPole-v0"]) == 0
        played = json.loads(capsys.readouterr().out)
        assert not {"env_kwargs", "stochastic"} & played.keys()
        assert main([str(student), "-n", "1", "--json", "--env", "CartPole-v0", "--stochastic"]) == 0
        assert json.loads(capsys.readouterr().out)["stochastic"] is True
    finally:
        arguments.unlink()


def test_starts_of_an_agent_that_is_scored(student, cartpole_teacher, tmp_path, capsys):
    teacher = load_teacher(cartpole_teacher, device="cpu")
    path = tmp_path / "starts.npz"
    HeldOutStarts("PongNoFrameskip-v4", (b"state",), (0,), "someone", teacher.sha256).save(path)
    assert HeldOutStarts.load(path).recorder_sha256 == teacher.sha256
    args = parse_args([str(student), "--starts", str(path)])
    find_starts(args, Game("PongNoFrameskip-v4", [load_teacher(student / "best_model.zip", device="cpu")]))
    assert not capsys.readouterr().err
    find_starts(args, Game("PongNoFrameskip-v4", [teacher]))
    assert f"Warning: {cartpole_teacher} recorded" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["-n", "0"], "must be a whole number of at least 1, not 0"),
        (["--margin", "100"], "must be a number of per cent from 0 to below 100, not 100"),
        (["--epsilon", "x"], "must be a share, between 0 and 1, not x"),
        (["--device", "cud"], "--device: must be cpu, cuda, mps or auto, not cud"),
        (["--env-kwargs", "mode:fast"], "must be key:value with a Python literal"),
        (["--env-kwargs", "a:1", "b:1", "a:2"], "--env-kwargs: a is given twice"),
        (["--env-kwargs", "mode:1"], "CartPole-v1 does not take the arguments {'mode': 1}"),
        (["-o", "{student}/CartPole-v1.zip/s.json"], "s.json cannot be written"),
        (["--env", "Acrobot-v1"], "cannot play Acrobot-v1: it was trained with observations"),
        (["--env", "Pendulum-v1"], "cannot play Pendulum-v1"),
    ],
)
def test_command_line_refuses(student, capsys, arguments, message):
    try:
        status = main([str(student), "-n", "1", *(argument.format(student=student) for argument in arguments)])
    except SystemExit as error:
        status = error.code
    assert status and message in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(th.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_no_unknown_one(student, capsys):
    with pytest.raises(SystemExit):
        main([str(student), "--device", "cuda"])
    error = " ".join(capsys.readouterr().err.split())
    assert "torch sees no CUDA device: use 'cpu' or 'auto'." in error and "must be cpu" not in error


def test_random_actions_are_discrete_ones(tmp_path, capsys):
    from stable_baselines3 import A2C

    A2C("MlpPolicy", "Pendulum-v1", device="cpu").save(tmp_path / "Pendulum-v1")
    assert main([str(tmp_path / "Pendulum-v1.zip"), "-n", "1", "--epsilon", "0.05"]) == 1
    assert "share of random discrete actions, but these are Box" in capsys.readouterr().err


def test_every_student_is_compared_with_its_own_teacher(tmp_path, capsys):
    """Also in one game, and whatever the order in which the agents are named."""
    for seed, n_timesteps in ((0, 10), (1, 20)):
        teacher = tmp_path / f"teacher_{seed}.zip"
        DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=seed, device="cpu").save(teacher)
        student = PolicyDistillation(
            "MlpPolicy", "CartPole-v1", str(teacher), n_teacher_episodes=0, learning_starts=5, device="cpu", seed=seed
        )
        student.learn(n_timesteps).save(tmp_path / f"student_{seed}")
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}, seed=2, device="cpu").save(tmp_path / "other.zip")
    names = ["student_1", "other", "student_0", "teacher_1"]
    paths = [str(tmp_path / f"{name}.zip") for name in names]
    assert main([*paths, "--env", "CartPole-v1", "-n", "2", "--json"]) == 0
    rows = {Path(row["agent"]).stem: row for row in json.loads(capsys.readouterr().out)["agents"]}
    assert list(rows) == ["teacher_1", "student_1", "other", "teacher_0", "student_0"]
    for seed in (0, 1):
        teacher, student = rows[f"teacher_{seed}"], rows[f"student_{seed}"]
        assert Path(student["taught_by"]).stem == Path(teacher["taught_by"]).stem == f"teacher_{seed}"
        assert student["teacher_mean"] == teacher["mean"] and teacher["percent_of_teacher"] == 100
    # Nobody says which of the two would be the teacher of the third.
    assert "taught_by" not in rows["other"]
    assert rows["other"]["percent_of_teacher"] is None


def teach(folder: Path, teacher: Path, name: str) -> str:
    kwargs = {"n_teacher_episodes": 0, "learning_starts": 5, "device": "cpu", "seed": 0}
    PolicyDistillation("MlpPolicy", "CartPole-v1", str(teacher), **kwargs).learn(10).save(folder / name)
    return str(folder / name)


def save_teacher(path: Path, seed: int) -> str:
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=seed, device="cpu").save(path)
    return load_teacher(path, device="cpu").sha256


def test_a_teacher_is_known_by_its_hash(tmp_path, capsys):
    """Not by where it is: who is there now is another agent, and who is somewhere else can be the same."""
    teacher, moved = tmp_path / "teacher.zip", tmp_path / "moved.zip"
    before = save_teacher(teacher, 0)
    old = teach(tmp_path, teacher, "old")
    teacher.rename(moved)
    now = save_teacher(teacher, 1)
    new = teach(tmp_path, teacher, "new")

    def rows(*arguments):
        assert main([*arguments, "--env", "CartPole-v1", "-n", "1", "--json"]) == 0
        out, err = capsys.readouterr()
        return {Path(row["agent"]).stem: row for row in json.loads(out)["agents"]}, err

    # Also where there is a single other teacher
    found, err = rows(old, new)
    assert f"Warning: {old} learned from {teacher} (sha256 {before[:12]})" in err and f"(sha256 {now[:12]})" in err
    assert found["old"]["percent_of_teacher"] is None and "taught_by" not in found["old"]
    assert found["new"]["teacher_sha256"] == now == found["teacher"]["agent_sha256"]
    found, err = rows(old, str(moved))
    assert not err and found["old"]["teacher_sha256"] == before and found["old"]["taught_by"] == str(moved)
    # Who is named counts, and it is said that somebody else taught.
    found, err = rows(old, "--teacher", str(teacher))
    assert found["old"]["teacher_sha256"] == now
    assert f"Note: {old} learned from another agent (sha256 {before[:12]}) than --teacher {teacher}" in err
    assert not rows(old, "--teacher", str(moved))[1]


def test_other_statistics_are_another_teacher(tmp_path, capsys):
    venv = VecNormalize(make_vec_env("CartPole-v1", 1, seed=0))
    A2C("MlpPolicy", venv, device="cpu", seed=0).learn(10).save(tmp_path / "teacher")
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    student = teach(tmp_path, tmp_path / "teacher.zip", "student")
    (tmp_path / "args.yml").write_text("env: CartPole-v1\n")
    hashes = [load_teacher(tmp_path / "teacher.zip", device="cpu").sha256]
    # The same numbers in another file are the same ones: those of rewards change nothing.
    written = (tmp_path / "vecnormalize.pkl").read_bytes()
    venv.ret_rms.mean += 1
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    assert (tmp_path / "vecnormalize.pkl").read_bytes() != written
    assert load_teacher(tmp_path / "teacher.zip", device="cpu").sha256 == hashes[0]
    venv.obs_rms.mean += 1
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    hashes.append(load_teacher(tmp_path / "teacher.zip", device="cpu").sha256)
    assert len(set(hashes)) == 2
    folder = tmp_path / "alone"
    folder.mkdir()
    Path(f"{student}.zip").rename(folder / "student.zip")
    assert main([str(folder / "student.zip"), "--env", "CartPole-v1", "-n", "1"]) == 0
    assert f"(sha256 {hashes[0][:12]}). Another agent is there now (sha256 {hashes[1][:12]})" in capsys.readouterr().err


def test_agents_of_one_file_in_different_environments_have_their_own_scores(student, tmp_path, capsys):
    """The weights are the same, what they score is not."""
    runs = []
    for name, highest in (("half", 0.5), ("whole", 1.0)):
        run = tmp_path / name / "pd" / "CartPole-v1_1"
        (run / "CartPole-v1").mkdir(parents=True)
        (run / "CartPole-v1.zip").write_bytes((student / "CartPole-v1.zip").read_bytes())
        wrapper = f"gymnasium.wrappers.ClipReward: {{min_reward: 0.0, max_reward: {highest}}}"
        (run / "CartPole-v1" / "config.yml").write_text(f"env_wrapper:\n- {wrapper}\n")
        runs.append(str(run))
    assert main([*runs, "-n", "3", "--json"]) == 0
    *_, first, second = json.loads(capsys.readouterr().out)["agents"]
    assert first["agent_sha256"] == second["agent_sha256"]
    assert [2 * score for score in first["returns"]] == second["returns"]
