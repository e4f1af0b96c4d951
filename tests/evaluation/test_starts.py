"""Held-out start states: recorded once, hashed, the same for every player."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from sb3_distill import load_teacher
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.cli import main
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.evaluation.players import RandomPlayer
from sb3_distill.evaluation.starts import HeldOutStarts, StartFrom, load_or_record, record_starts

PONG = "PongNoFrameskip-v4"


@pytest.fixture(scope="module")
def starts() -> HeldOutStarts:
    return record_starts(RandomPlayer(6, seed=0), "random", PONG, n_states=5, n_episodes=2)


def test_states_come_back_and_are_spread_over_the_first_fifth(starts, tmp_path):
    assert len(set(starts.states)) == 5
    path = tmp_path / "folder" / "starts.npz"
    starts.save(path)
    assert HeldOutStarts.load(path) == starts
    env = StartFrom(gym.make(PONG), starts)
    frames = []
    for index in range(5):
        env.reset(seed=index)
        frames.append(env.unwrapped.ale.getEpisodeFrameNumber())
    # No state twice
    assert len(set(frames)) == 5
    # A random player's game takes some 3,600 to 4,500 frames.
    assert 0 < min(frames) < max(frames) < 0.2 * 5_000
    assert record_starts(RandomPlayer(6, seed=0), "random", PONG, n_states=5, n_episodes=2).sha256 == starts.sha256


def test_seed_chooses_the_state_and_screens_are_fresh(starts):
    envs = [StartFrom(gym.make(PONG), starts) for _ in range(2)]
    envs[1].reset(seed=3)
    for _ in range(30):
        envs[1].step(2)
    # After five states the order begins anew.
    first, again = (env.reset(seed=7)[0] for env in envs)
    assert np.array_equal(first, again)
    assert np.array_equal(first, envs[0].reset(seed=2)[0])
    assert not np.array_equal(first, envs[0].reset()[0])
    assert np.array_equal(envs[0].reset(seed=3)[0], envs[1].reset()[0])


def test_points_before_the_start_do_not_count(starts):
    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros(len(observation), dtype=int), state

    make = partial(make_eval_env, PONG, start_wrapper=partial(StartFrom, starts=starts))
    score = evaluate_paired(Still(), make, 5, n_envs=5)
    env = StartFrom(gym.make(PONG), starts)
    assert len(set(score.traces)) == 5
    for index, value in enumerate(score.returns):
        env.reset(seed=index)
        ram = env.unwrapped.ale.getRAM()
        # The opponent's points, and ours, are in the RAM: it goes on from there to 21.
        assert value == -(21 - int(ram[13])) and ram[14] <= 21


@pytest.mark.parametrize("damage", ["hash", "truncated", "text"])
def test_damaged_files(starts, tmp_path, damage):
    path = tmp_path / "starts.npz"
    starts.save(path)
    if damage == "hash":
        HeldOutStarts(starts.env_id, starts.states[1:], starts.games[1:], "x").save(tmp_path / "other.npz")
        with np.load(path) as data, np.load(tmp_path / "other.npz") as other:
            np.savez(path.with_name("mixed.npz"), **{**data, "sha256": other["sha256"]})
        path = path.with_name("mixed.npz")
    else:
        path.write_bytes(path.read_bytes()[:1000] if damage == "truncated" else b"no starts")
    with pytest.raises(ValueError, match=r"damaged|cannot be used as start states"):
        HeldOutStarts.load(path)


def test_every_seed_chooses_other_starts_of_as_many_games_as_possible():
    states = tuple(bytes([index]) for index in range(100))
    starts = HeldOutStarts(PONG, states, tuple(index // 5 for index in range(100)), "random")
    chosen = []
    for seed in range(10):
        order = starts.order(seed)
        assert sorted(order) == list(range(100)) and np.array_equal(order, starts.order(seed))
        chosen.append(frozenset(order[:30]))
        games = np.array(starts.games)[order]
        # Rounds of one state from each of the twenty games
        assert all(len(set(games[first : first + 20])) == 20 for first in range(0, 100, 20))
    assert len(set(chosen)) == 10
    # Neighbouring seeds share no more than others: 30% of 30 on average.
    assert np.mean([len(one & two) for one, two in pairwise(chosen)]) < 13
    # Games may have given different numbers of states.
    uneven = HeldOutStarts(PONG, states[:4], (0, 0, 0, 1), "random")
    assert all(1 in np.array(uneven.games)[uneven.order(seed)[:2]] for seed in range(10))


def test_seeds_of_resets_count_from_the_first_one(starts):
    def frames(first_seed: int) -> list[int]:
        env = StartFrom(gym.make(PONG), starts, first_seed)
        found = []
        for episode in range(5):
            env.reset(seed=first_seed + episode)
            found.append(env.unwrapped.ale.getEpisodeFrameNumber())
        return found

    first, other = frames(0), frames(1)
    assert sorted(first) == sorted(other) and first != other and first[1:] != other[:-1]


def test_the_file_knows_the_game_of_each_state(starts, tmp_path):
    assert starts.games == (0, 0, 1, 1, 1)
    assert replace(starts, games=(0, 0, 0, 1, 1)).sha256 != starts.sha256
    starts.save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as data:
        np.savez(tmp_path / "old.npz", **{name: data[name] for name in data if name != "games"})
    with pytest.raises(ValueError, match=r"an earlier version wrote it.*Delete it, and record new ones"):
        HeldOutStarts.load(tmp_path / "old.npz")


def test_a_file_of_another_recorder_is_not_taken_for_this_one(cartpole_teacher, starts, tmp_path):
    path, agent = tmp_path / "starts.npz", load_teacher(cartpole_teacher, device="cpu")
    replace(starts, recorded_by="random", recorder_sha256="").save(path)
    assert load_or_record(path, PONG, "random") == load_or_record(path, PONG, None)
    with pytest.raises(
        ValueError, match=rf"that random has recorded, not .*\(sha256 {agent.sha256[:12]}\): name another"
    ):
        load_or_record(path, PONG, str(cartpole_teacher))
    replace(starts, recorded_by=str(cartpole_teacher), recorder_sha256=agent.sha256).save(path)
    assert load_or_record(path, PONG, str(cartpole_teacher)).recorder_sha256 == agent.sha256
    # The path is the same, the agent is not.
    replace(starts, recorded_by=str(cartpole_teacher), recorder_sha256="0" * 64).save(path)
    for source in (str(cartpole_teacher), "random"):
        with pytest.raises(ValueError, match=r"\(sha256 000000000000\) has recorded, not .*leave --starts-from out"):
            load_or_record(path, PONG, source)


def test_starts_of_a_game_with_other_arguments_are_others(starts, tmp_path):
    path = tmp_path / "starts.npz"
    assert starts.env_kwargs == "{}"
    replace(starts, env_kwargs='{"difficulty": 1, "mode": 2}').save(path)
    assert load_or_record(path, PONG, None, env_kwargs={"mode": 2, "difficulty": 1}) == HeldOutStarts.load(path)
    with pytest.raises(ValueError, match=r'with the arguments \{"difficulty": 1, "mode": 2\}, not \{\}: name another'):
        load_or_record(path, PONG, None)
    # Earlier versions did not say them.
    replace(starts, env_kwargs="").save(path)
    load_or_record(path, PONG, None, env_kwargs={"mode": 2})


def test_no_state_is_recorded_twice():
    class Still:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros(len(observation), dtype=int), state

    with pytest.raises(ValueError, match=r"5000 start states are needed .* has only \d+ that no other game has given"):
        record_starts(Still(), "still", PONG, n_states=5_000, n_episodes=1)


def test_no_atari_game():
    with pytest.raises(ValueError, match="CartPole-v1 is no Atari game"):
        record_starts(RandomPlayer(2), "random", "CartPole-v1")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--starts", "s.npz"], "CartPole-v1 is no Atari game"),
        (["--starts-from", "random"], "name it with --starts"),
        (["-o", "x.txt"], "must end with one of .json, .csv, .md"),
        (["--native"], "cannot be stepped natively"),
        (["--best"], "best_model.zip"),
    ],
)
def test_command_line_refuses(cartpole_teacher: Path, capsys, arguments, message):
    source = cartpole_teacher.parent if arguments == ["--best"] else cartpole_teacher
    try:
        status = main([str(source), "--env", "CartPole-v1", *arguments])
    except SystemExit as error:
        status = error.code
    assert status and message in capsys.readouterr().err
