"""Scores that compare, and the verb that prints them."""

import io
import json
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.cli import main
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.evaluation.players import mix_random_actions


class Fixed:
    """Plays one action, and remembers what it saw."""

    def __init__(self, action):
        self.action = action
        self.seen = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.append(np.array(observation))
        return np.full(len(observation), self.action), state


def cartpoles(n_envs):
    return make_eval_env("CartPole-v1", n_envs)


def test_players_meet_the_same_starts_and_random_actions():
    players = [Fixed(0), Fixed(0)]
    scores = [evaluate_paired(player, cartpoles, 7, epsilon=0.5, seed=3, n_envs=4) for player in players]
    assert scores[0].returns == scores[1].returns and len(scores[0].returns) == 7
    assert all(np.array_equal(*pair) for pair in zip(players[0].seen, players[1].seen, strict=True))
    assert evaluate_paired(Fixed(0), cartpoles, 7, epsilon=0.5, seed=4).returns != scores[0].returns


def test_traces_tell_episodes_apart():
    first, again, other = (evaluate_paired(Fixed(0), cartpoles, 4, seed=seed) for seed in (0, 0, 2))
    assert first.traces == again.traces and len(set(first.traces)) == 4
    # Episodes 2 and 3 of the one are 0 and 1 of the other.
    assert first.traces[2:] == other.traces[:2] and not set(first.traces[:2]) & set(other.traces)
    assert not set(evaluate_paired(Fixed(1), cartpoles, 4).traces) & set(first.traces)


def test_an_episode_does_not_depend_on_how_many_are_played_side_by_side():
    one, three = (evaluate_paired(Fixed(1), cartpoles, 6, epsilon=0.3, seed=0, n_envs=n) for n in (1, 3))
    assert one.returns == three.returns and one.lengths == three.lengths and one.traces == three.traces


def test_a_game_does_not_depend_on_how_many_are_played_side_by_side():
    """Stepped in C++, too, where games begin anew one by one."""
    make = partial(make_eval_env, "BreakoutNoFrameskip-v4", native=True)
    scores = [evaluate_paired(Fixed(0), make, 5, epsilon=0.9, seed=3, n_envs=n) for n in (1, 3)]
    assert scores[0] == scores[1] and len(set(scores[0].lengths)) == 5


def test_sampled_actions_repeat_and_leave_the_generator_alone():
    policy = A2C("MlpPolicy", "CartPole-v1", device="cpu", seed=0).policy
    state = th.get_rng_state()
    first, again, other = (
        evaluate_paired(policy, cartpoles, 6, seed=seed, n_envs=3, deterministic=False).returns for seed in (0, 0, 9)
    )
    assert first == again != other and th.equal(th.get_rng_state(), state)


@pytest.mark.parametrize(
    ("env_id", "kwargs"), [("CartPole-v1", {}), ("Pendulum-v1", {}), ("Pendulum-v1", {"use_sde": True})]
)
def test_sampled_actions_of_an_agent_belong_to_the_episode(env_id, kwargs):
    agent = load_teacher(A2C("MlpPolicy", env_id, device="cpu", seed=0, **kwargs))
    scores = [
        evaluate_paired(agent, partial(make_eval_env, env_id), 4, seed=1, n_envs=n, deterministic=False) for n in (1, 3)
    ]
    assert scores[0].returns == pytest.approx(scores[1].returns, rel=1e-4)
    assert scores[0].lengths == scores[1].lengths and len(set(scores[0].traces)) == 4
    greedy = evaluate_paired(agent, partial(make_eval_env, env_id), 4, seed=1)
    assert greedy.returns != scores[0].returns


def test_sampled_actions_of_several_parts_repeat():
    class Parts(gym.wrappers.TransformAction):
        def __init__(self, env):
            super().__init__(env, lambda action: int(action[0]), gym.spaces.MultiDiscrete([2, 3]))

    make = lambda n_envs: DummyVecEnv([lambda: Parts(Monitor(gym.make("CartPole-v1"))) for _ in range(n_envs)])  # noqa: E731
    agent = load_teacher(A2C("MlpPolicy", make(1), device="cpu", seed=0))
    scores = [evaluate_paired(agent, make, 4, seed=1, n_envs=2, deterministic=False) for _ in range(2)]
    assert scores[0] == scores[1]


class Lengths(gym.Env):
    """An episode of seed s lasts as many steps as the list says."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, lengths):
        self.lengths = lengths

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.lengths[0 if seed is None else seed]
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}


def test_no_environment_waits_for_another_and_none_is_made_twice():
    lengths, made = [60, 5, 10, 5, 20, 5, 15], []

    def make(n_envs):
        made.append(n_envs)
        return DummyVecEnv([lambda: Monitor(Lengths(lengths)) for _ in range(n_envs)])

    player = Fixed(0)
    score = evaluate_paired(player, make, len(lengths), n_envs=2)
    assert score.returns == score.lengths == lengths and made == [2]
    # One plays the long episode, the other all short ones.
    assert len(player.seen) == 60


def test_traces_tell_which_episodes_are_the_same():
    score = evaluate_paired(Fixed(0), cartpoles, 3, n_envs=2)
    assert len(set(score.traces)) == 3
    make = lambda n_envs: DummyVecEnv([lambda: Monitor(Lengths([3, 4, 3])) for _ in range(n_envs)])  # noqa: E731
    traces = evaluate_paired(Fixed(0), make, 3, n_envs=1).traces
    assert traces[0] == traces[2] != traces[1]
    assert evaluate_paired(Fixed(1), make, 1, n_envs=1).traces[0] != traces[0]


def test_a_progress_bar_moves_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    evaluate_paired(Fixed(0), cartpoles, 12, n_envs=2, progress="student.zip")
    shown = terminal.getvalue()
    assert "student.zip" in shown and "0/12" in shown
    evaluate_paired(Fixed(0), cartpoles, 1)
    assert terminal.getvalue() == shown


def test_random_actions_are_another_one_in_three_of_four_cases():
    actions = mix_random_actions(np.zeros(4000, int), 4, 0.5, np.random.default_rng(0))
    assert (actions != 0).mean() == pytest.approx(0.375, abs=0.03)


@pytest.fixture(scope="module")
def student(cartpole_teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "CartPole-v1.zip"
    PolicyDistillation(
        "MlpPolicy", "CartPole-v1", teacher=cartpole_teacher, n_teacher_episodes=0, device="cpu", seed=0
    ).learn(1_200).save(path)
    return path


def test_evaluate_verb(student, cartpole_teacher, capsys):
    command = ["evaluate", str(student), "-n", "3"]
    assert main(command) == 0
    table = capsys.readouterr().out.splitlines()
    # The student names its own teacher.
    assert [line.split()[0] for line in table[1:4]] == ["agent", str(cartpole_teacher), str(student)]
    assert main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    teacher, found = facts["agents"]
    assert teacher["percent_of_teacher"] == 100 and len(found["returns"]) == 3
    assert found["n_bytes"] == 4 * found["n_parameters"]
    assert teacher["percent_of_teacher_bytes"] == 100
    assert found["percent_of_teacher_bytes"] == pytest.approx(100 * found["n_bytes"] / teacher["n_bytes"])
    assert found["percent_of_teacher"] == pytest.approx(100 * found["mean"] / teacher["mean"])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("evaluate", "nothing.zip"), 1, "There is no agent at nothing.zip"),
        (("evaluate", "{student}", "-n", "0"), 2, "must be a whole number of at least 1, not 0"),
        (("evaluate", "{student}", "--env", "Nothing-v0"), 1, "Pass the package that registers it with --gym-packages"),
        (("teachers", "nothing.zip"), 1, "There is no agent at nothing.zip"),
    ],
)
def test_verbs_refuse_bad_input(student, capsys, arguments, status, message):
    try:
        ended = main([argument.format(student=student) for argument in arguments])
    except SystemExit as error:
        ended = error.code
    assert ended == status and message in " ".join(capsys.readouterr().err.split())
