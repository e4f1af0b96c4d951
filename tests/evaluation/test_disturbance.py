"""Noise, few bits and late actions, which are the same for all who play."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_distill.cli import main
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.disturbance import Disturbance
from sb3_distill.evaluation.play import Score, evaluate_paired
from sb3_distill.results.likeness import conditions_of
from sb3_distill.results.row import parse_rows

N_STEPS = 30


class Counter(gym.Env):
    """Observes the number of its steps twice, the second time without bounds, and a 7; remembers the actions."""

    observation_space: spaces.Space = spaces.Box(
        np.array([0.0, -np.inf, -np.inf]), np.array([100.0, np.inf, np.inf]), dtype=np.float32
    )

    def __init__(self, action_space: spaces.Space | None = None) -> None:
        self.action_space = action_space or spaces.Discrete(3)
        self.actions: list = []

    def observe(self):
        return np.array([self.n, self.n, 7.0], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n = 0
        self.actions.append([])
        return self.observe(), {}

    def step(self, action):
        self.n += 1
        # Many environments look their actions up.
        assert not isinstance(self.action_space, spaces.Discrete) or action in {0, 1, 2}
        self.actions[-1].append(np.array(action).tolist())
        return self.observe(), float(self.n), self.n == N_STEPS, False, {}


class Frames(Counter):
    """The same number as the brightness of a frame."""

    observation_space = spaces.Box(0, 255, (1, 2, 2), np.uint8)

    def observe(self):
        return np.full((1, 2, 2), 8 * self.n, np.uint8)


class Watcher:
    """Chooses the number of its step as its action, and remembers what it saw."""

    def __init__(self, action=None):
        self.seen: list[np.ndarray] = []
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.append(np.array(observation))
        own = len(self.seen) % 3 if self.action is None else self.action
        return np.array([own] * len(observation)), state


def play(disturbance: Disturbance, player=None, n_episodes=1, n_envs=1, make=Counter, **kwargs) -> tuple[Score, list]:
    """The score, and the environments that were played."""
    player, envs = player or Watcher(), []

    def make_env(n):
        envs[:] = [make() for _ in range(n)]
        venv = DummyVecEnv([lambda env=env: Monitor(env) for env in envs])
        return VecFrameStack(venv, 2, channels_order="first") if make is Frames else venv

    def again(n_episodes, **kwargs):
        return evaluate_paired(Watcher(), make_env_unseen, n_episodes, **kwargs)

    def make_env_unseen(n):
        return DummyVecEnv([lambda: Monitor(make()) for _ in range(n)])

    wrapper = disturbance.wrapper(again)
    return evaluate_paired(player, make_env, n_episodes, n_envs=n_envs, wrapper=wrapper, **kwargs), envs


def test_actions_come_late_and_begin_with_a_neutral_one():
    _, (env,) = play(Disturbance(action_delay=2), n_episodes=2)
    assert env.actions[0][:6] == [0, 0, 1, 2, 0, 1] and len(env.actions[0]) == N_STEPS
    # Nothing of the first episode comes in the second one.
    assert env.actions[1][:2] == [0, 0]
    spaces_of = [(spaces.Box(0.5, 1.0, (2,)), [0.5, 0.5]), (spaces.Box(-1.0, 1.0, (2,)), [0.0, 0.0])]
    for space, neutral in [*spaces_of, (spaces.MultiBinary(2), [0, 0])]:
        player = Watcher(np.ones(2, space.dtype))
        _, (env,) = play(Disturbance(action_delay=1), player, make=lambda space=space: Counter(space))
        assert env.actions[0][:2] == [neutral, [1, 1]]


def test_nothing_is_disturbed_without_being_asked():
    assert not Disturbance() and Disturbance().wrapper(lambda: None) is None and Disturbance().describe() == []
    assert play(Disturbance())[0].traces == play(Disturbance(obs_noise=0.0, action_delay=0))[0].traces


def test_noise_is_that_of_the_episode_and_the_step():
    first, second = Watcher(), Watcher(2)
    scores = [play(Disturbance(obs_noise=0.1), player, 4, 2, seed=3)[0] for player in (first, second)]
    # Whatever they do, they see the same, for they are at the same place.
    assert all(np.array_equal(*pair) for pair in zip(first.seen, second.seen, strict=True))
    assert scores[0].returns == scores[1].returns and len(set(scores[0].traces)) == 4
    alone, later = Watcher(), Watcher()
    play(Disturbance(obs_noise=0.1), alone, 1, 1, seed=3)
    play(Disturbance(obs_noise=0.1), later, 1, 1, seed=4)
    assert np.array_equal([seen[0] for seen in first.seen[:N_STEPS]], [seen[0] for seen in alone.seen])
    assert np.array_equal([seen[1] for seen in first.seen[:N_STEPS]], [seen[0] for seen in later.seen])


def test_noise_is_a_share_of_the_range_of_each_entry():
    player, disturbance = Watcher(), Disturbance(obs_noise=0.1)
    play(disturbance, player, 20)
    noise = np.concatenate(player.seen) - np.tile([[n, n, 7.0] for n in range(N_STEPS)], (20, 1))
    # The bounds are 100 apart. The play of the first agent goes from 0 to 30, and 15 further at both ends.
    assert noise.std(axis=0) == pytest.approx([10.0, 6.0, 0.0], rel=0.1) and noise[:, 2].max() == 0
    (ranges,) = disturbance.ranges()
    assert (ranges["low"], ranges["high"], ranges["key"]) == ([0.0, -15.0, 7.0], [100.0, 45.0, 7.0], None)


def test_bits_are_levels_of_the_range():
    player = Watcher()
    play(Disturbance(obs_bits=2), player)
    seen = np.concatenate(player.seen)
    assert set(seen[:, 0]) == {0.0, np.float32(100 / 3)} and set(seen[:, 2]) == {7.0}
    assert set(seen[:, 1]) <= {-15.0, 5.0, 25.0, 45.0} and seen[14, 1] == 5.0 and seen[16, 1] == 25.0
    player = Watcher()
    play(Disturbance(obs_noise=0.5, obs_bits=1), player, 10)
    # What is beyond the range is at its end.
    assert set(np.concatenate(player.seen)[:, 0]) == {0.0, 100.0}


def test_frames_stay_bytes_and_a_stack_keeps_what_was_seen():
    player = Watcher()
    play(Disturbance(obs_noise=0.1), player, make=Frames)
    seen = np.concatenate(player.seen)
    assert seen.dtype == np.uint8 and seen.shape == (N_STEPS, 2, 2, 2)
    assert np.array_equal(seen[1:, 0], seen[:-1, 1]) and len(set(seen[:, 1].flat)) > N_STEPS
    player = Watcher()
    play(Disturbance(obs_bits=8), player, make=Frames)
    assert np.concatenate(player.seen)[:, 1, 0, 0].tolist() == [8 * n for n in range(N_STEPS)]
    player = Watcher()
    play(Disturbance(obs_bits=1), player, make=Frames)
    assert set(np.concatenate(player.seen)[:, 1].flat) == {0, 255}


class Parts(Counter):
    observation_space = spaces.Dict({"a": spaces.Box(0, 100, (1,)), "b": spaces.Discrete(2)})


class Cells(Counter):
    observation_space = spaces.Box(0, 1, (2, 2, 3), np.bool_)


@pytest.mark.parametrize(
    ("make", "message"),
    [(Parts, r"Discrete\(2\) \(key b\), which are no numbers on a scale"), (Cells, "bool.*, which are no numbers")],
)
def test_what_has_no_scale_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        play(Disturbance(obs_bits=4), make=make)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"obs_noise": 2.0}, "obs_noise is a share .* not 2.0"),
        ({"obs_noise": float("nan")}, "obs_noise is a share"),
        ({"action_delay": -1}, "action_delay must be 0 to 1,000 steps, not -1"),
        ({"obs_bits": 17}, "obs_bits must be 1 to 16, not 17"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Disturbance(**arguments)


def test_games_in_cpp_cannot_be_disturbed():
    wrapper = Disturbance(action_delay=1).wrapper(lambda: None)
    with pytest.raises(ValueError, match="Games in C\\+\\+ cannot be disturbed: leave out --native"):
        evaluate_paired(
            Watcher(0), lambda n: make_eval_env("PongNoFrameskip-v4", n, native=True), 1, n_envs=1, wrapper=wrapper
        )


# --- The command line


@pytest.fixture(scope="module")
def pole(ppo_teacher: PPO, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pole") / "CartPole-v1.zip"
    ppo_teacher.save(path)
    return path


def test_scores_say_under_what_they_were_measured(pole, tmp_path, capsys):
    options = ["-n", "6", "--env", "CartPole-v1", "--obs-noise", "0.02", "--action-delay", "3", "--obs-bits", "5"]
    found = []
    for name in ("first", "again"):
        path = tmp_path / f"{name}.json"
        assert main(["evaluate", str(pole), *options, "-o", str(path)]) == 0
        found.append(json.loads(path.read_text()))
    assert found[0] == found[1]
    assert (
        "observation noise 0.02 of the range, actions 3 steps late, observations of 5 bits" in capsys.readouterr().out
    )
    (row,) = found[0]["agents"]
    assert (row["obs_noise"], row["action_delay"], row["obs_bits"]) == (0.02, 3, 5)
    (ranges,) = found[0]["ranges"]["CartPole-v1"]
    assert ranges["high"][0] == pytest.approx(4.8) and 0 < ranges["high"][1] < 100
    (read,) = parse_rows(path.read_text())
    assert conditions_of(read)["action_delay"] == 3
    assert main(["evaluate", str(pole), *options[:4], "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert "ranges" not in plain and "obs_bits" not in plain["agents"][0]
    assert plain["agents"][0]["traces"] != row["traces"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--obs-noise", "-0.1"], "--obs-noise: must be a share, between 0 and 1, not -0.1"),
        (["--action-delay", "1.5"], "--action-delay: must be a whole number"),
        (["--obs-bits", "0"], "--obs-bits: must be a whole number from 1 to 16"),
    ],
)
def test_bad_options_are_refused_by_name(arguments, message, capsys):
    for verb in (["evaluate"], ["export", "bench"]):
        with pytest.raises(SystemExit):
            main([*verb, "agent.zip", *arguments])
        assert message in capsys.readouterr().err


def test_too_many_bits_are_refused(pole, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(pole), "--env", "CartPole-v1", "--obs-bits", "20"])
    assert "--obs-bits: must be a whole number from 1 to 16, not 20" in capsys.readouterr().err
